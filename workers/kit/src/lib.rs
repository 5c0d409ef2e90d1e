//! The library that worker classes are built from: connections, TLS, exchanges, and what every worker has. The syntax of
//! HTTP/1.1 is in the crate [`jimu_http1`].
//!
//! A [`Connection`] is a state machine without an event loop: it never blocks. [`Connection::advance`] reads and writes as
//! far as it can without blocking and returns an [`Advance`]: wait for the descriptor, call the application, or drop the
//! connection. The worker class decides how to wait — in `poll(2)`, in a pool of threads, in a greenlet — and that is
//! what makes it a worker class.
//!
//! ```text
//!     Acceptor ──▶ Connection ──advance()──▶ Advance::Wait(interest)   wait until readable or writable, or the deadline
//!                      ▲                 ├─▶ Advance::Request          into_exchange(driver), call the application
//!                      │                 └─▶ Advance::Closed           drop it
//!                      └── ConnectionDriver::release ◀── exchange ends
//! ```
//!
//! # Example
//!
//! Serve one connection on the current thread, blocking in `poll(2)`:
//!
//! ```no_run
//! use std::os::fd::RawFd;
//! use std::sync::{Arc, Mutex, PoisonError};
//!
//! use jimu_kit::{Advance, Connection, ConnectionDriver, Deadline, WorkerBase, blocking, poll};
//! use worker_api::{Interest, Result};
//!
//! /// How an exchange waits while the application works on it, and where its connection returns to.
//! #[derive(Default)]
//! struct Driver(Mutex<Option<Box<Connection>>>);
//!
//! impl ConnectionDriver for Driver {
//!     fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
//!         blocking::in_time(poll::wait(fd, interest, deadline, || ()))
//!     }
//!
//!     fn release(&self, connection: Box<Connection>) {
//!         *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
//!     }
//! }
//!
//! fn serve(base: &WorkerBase, mut connection: Box<Connection>) {
//!     let mut next = connection.advance();
//!     loop {
//!         next = match next {
//!             Advance::Request => {
//!                 let driver = Arc::new(Driver::default());
//!                 base.app.call(connection.into_exchange(driver.clone()));
//!                 let returned = driver.0.lock().unwrap_or_else(PoisonError::into_inner).take();
//!                 let Some(returned) = returned else { return };
//!                 connection = returned;
//!                 connection.advance()
//!             }
//!             Advance::Wait(interest) => {
//!                 match poll::wait(connection.fd(), interest, connection.deadline(), || ()) {
//!                     Ok(true) => connection.advance(),
//!                     Ok(false) | Err(_) => connection.expire(),
//!                 }
//!             }
//!             Advance::Closed => return,
//!         };
//!     }
//! }
//! ```
//!
//! The guide `docs/worker-classes.md` in the repository turns this into a complete class. The crate `jimu-http1` parses
//! and encodes HTTP on any bytes, without connections:
//!
//! ```
//! use jimu_http1::{Framing, HeadScan, Policy, Scan, parse_head};
//!
//! let bytes = b"GET /search?q=1 HTTP/1.1\r\nHost: example.org\r\n\r\n";
//! let policy = Policy::default();
//! assert!(matches!(HeadScan::new().advance(bytes, &policy), Ok(Scan::Complete)));
//!
//! let mut headers = Vec::new();
//! let Ok(Some(head)) = parse_head(bytes, &policy, &mut headers) else { panic!("refused") };
//! assert_eq!((head.method, head.path, head.query), ("GET", &b"/search"[..], &b"q=1"[..]));
//! assert_eq!(head.framing, Framing::None);
//! assert_eq!(headers.len(), 1);
//! ```
//!
//! # Map
//!
//! | module | contents |
//! | --- | --- |
//! | [`worker_base`], [`context`], [`config`] | what every worker has: host, application, listeners, settings; the state its connections share |
//! | [`connection`], `state` | a connection: the state machine that every class drives, and its states |
//! | `reading`, `closing`, `io` | the states between requests: up to a complete head, and after a response; the bytes of a connection |
//! | [`driver`] | the interface that a class implements: how an exchange waits, and where its connection returns to |
//! | `exchange`, `active_request`, `request`, `response` | a connection during one request: the exchange of `worker-api` |
//! | `upgrade` | the bytes of an exchange after a 101 |
//! | `intake`, `tail`, `spool` | for classes whose threads may block: a request body is read before the exchange, the end of a response sent after it, both kept in memory and files |
//! | [`ends`] | the addresses of a connection |
//! | `owned_head`, `buffer`, `vec_pool` | a request's head with its memory, input and output buffers, buffers kept for reuse |
//! | [`socket`], [`accept`], [`accept_queue`], [`crowd`] | accepting: the system calls, the handling of errors, sharing listeners with other workers, and making room for new connections |
//! | [`registry`], `time_heap` | connections by descriptor, with their deadlines: for classes that have no hub |
//! | [`stream`], `relay` | the bytes of a connection, plain or over TLS; TLS for connections that an application took over |
//! | [`poll`], [`blocking`], [`request_deadlines`] | for classes whose threads may block: waiting, the application's runtime, and `request_timeout` |
//! | [`waiting`] | for classes with a thread for each connection: waiting for clients, and making room for new ones |
//! | `wire`, `hung_request` | which thread responds to a request when the thread that serves it hangs, and how another one does |
//! | `batches` | responses to pipelined requests that are sent together |
//! | [`connect`], [`resolve`] | connections that the application opens: what the runtimes of all classes share |
//! | [`background`] | work of the application outside of requests, for which a draining worker waits |
//! | [`threads`] | stack sizes of threads that call the application |
//! | [`clock`], [`deadline`] | monotonic time in nanoseconds, and the type of every time limit |
//! | `queueing`, `transfer_rate` | how long requests were queued; how fast bodies are transferred |
//!
//! # Invariants
//!
//! - Connections never block, and exchanges block only in their [`ConnectionDriver`]. Only [`poll`], [`waiting`], [`blocking`], [`resolve`] and the
//!   threads of [`request_deadlines`], `batches` and `relay` (TLS for connections that applications have taken over) wait themselves.
//! - The kit refers to no worker class by name and contains no event loop that serves connections.
//! - Only the kit handles bytes and framing: a class sees requests, an application sees exchanges.

pub mod accept;
pub mod accept_queue;
pub mod background;
pub mod blocking;
pub mod clock;
pub mod config;
pub mod connect;
pub mod connection;
pub mod context;
pub mod crowd;
pub mod deadline;
pub mod driver;
pub mod ends;
pub mod poll;
pub mod registry;
pub mod request_deadlines;
pub mod resolve;
pub mod socket;
pub mod stream;
pub mod threads;
pub mod waiting;
pub mod worker_base;

mod active_request;
mod batches;
mod buffer;
mod closing;
mod exchange;
mod hung_request;
mod intake;
mod io;
mod owned_head;
mod queueing;
mod reading;
mod relay;
mod request;
mod response;
mod spool;
mod state;
mod tail;
mod time_heap;
mod transfer_rate;
mod upgrade;
mod vec_pool;
mod wire;

pub use accept::{AcceptResult, Acceptor};
pub use accept_queue::AcceptQueue;
pub use connection::{Advance, Connection};
pub use context::ServerContext;
pub use deadline::Deadline;
pub use driver::ConnectionDriver;
pub use registry::Registry;
pub use request_deadlines::{RequestDeadlines, TimedOutRequest};
pub use spool::Buffering;
pub use waiting::WaitingConnections;
pub use worker_base::WorkerBase;

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
