//! Serves ASGI applications with any CPython from 3.9 on, chosen at run time.
//!
//! The application's loop, asyncio's or uvloop's, runs the worker: it watches the descriptor of the worker class's engine,
//! and each turn of the engine starts a task for each request that has arrived. The tasks and the protocol's messages are
//! the application's side; the exchange is the server's.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`app`] | the application as seen by the host |
//! | [`driver`], `driver.py` | the loop, the tasks and the lifespan protocol |
//! | [`runtime`] | per-process state |
//! | [`request`] | what HTTP requests and WebSockets have in common: `receive`, `send`, their task |
//! | [`http`] | one HTTP request: its messages, and how it ends |
//! | [`websocket`] | one WebSocket |
//! | [`message`] | the parts of a message that the application sends |
//! | [`timers`] | when pings and the ends of silent connections are due |
//! | [`operation`], [`unsent`], [`waiters`] | what waits, the order in which it is sent, and the futures of the tasks |
//! | [`scope`] | its scope |
//! | [`head`] | the head of its response |
//! | [`awaitable`] | what `receive()` and `send()` return |
//! | [`names`] | the strings of the protocol, as Python objects |
//!
//! # Invariants
//!
//! - All Python code runs on the worker's main thread, in the loop, except what the application moves elsewhere.
//! - Nothing here blocks: an operation that would have to wait gives the loop a future, which a waker of the exchange
//!   resolves after a turn of the engine.
//! - A message is taken from the exchange when the task that awaits it runs, so that cancelling the task loses none.
//! - A request ends once: by the application's last message, by its return, or by its failure.

mod app;
mod awaitable;
mod driver;
mod head;
mod http;
mod message;
mod names;
mod operation;
mod request;
mod runtime;
mod scope;
mod timers;
mod unsent;
mod waiters;
mod websocket;

pub use app::Asgi;

worker_api::export_app!(Asgi);
