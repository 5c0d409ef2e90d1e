//! Doubles of both sides of the ABI, to test an application or a worker class without a server.
//!
//! With the feature `testing`, which belongs into `[dev-dependencies]`:
//!
//! ```toml
//! [dev-dependencies]
//! worker-api = { version = "1.1", features = ["testing"] }
//! ```
//!
//! | to test | use |
//! | --- | --- |
//! | an application | [`Request::call`], which returns a [`Response`]; [`TestHost::app`] creates the application with settings |
//! | an application that keeps exchanges | [`Request::exchange`], or a [`TestEngine`] if it has a loop or threads |
//! | a worker class | [`RunningWorker`] with a [`TestHost`] |
//! | an implementation of [`crate::raw::RawExchange`] | [`crate::Exchange::from_raw`], or [`crate::AppHandle::call`] with an [`AppFn`] |
//!
//! The doubles are smaller than what they stand for: `host --check-worker` judges a class, and only a server has processes,
//! signals and TLS.
//!
//! # Test an application
//!
//! ```
//! use worker_api::testing::{Request, TestHost};
//! use worker_api::{App, AppContext, AppFactory, AppHandle, Exchange, Failure, Result};
//!
//! struct Greeting(String);
//!
//! impl AppFactory for Greeting {
//!     const NAME: &'static str = "greeting";
//!     const VERSION: &'static str = "1.0.0";
//!
//!     fn new(context: AppContext) -> Result<Self> {
//!         let word = context.host.section().trim().to_owned();
//!         if word.is_empty() {
//!             return Err(Failure::config("[application]: there is no greeting"));
//!         }
//!         Ok(Self(word))
//!     }
//! }
//!
//! impl App for Greeting {
//!     fn call(&self, exchange: &mut Exchange) -> Result<()> {
//!         let name = exchange.read_to_end(100)?;
//!         let text = format!("{} {}", self.0, String::from_utf8_lossy(&name));
//!         exchange.respond(200, &[], text.as_bytes())
//!     }
//! }
//!
//! let app: AppHandle = TestHost::default().section("Hello").app::<Greeting>()?;
//! let response = Request::post("/", b"world").call(&app);
//! assert!(response.is_complete());
//! assert_eq!((response.status, response.text().as_str()), (200, "Hello world"));
//!
//! let refused = Request::post("/", &[b'x'; 101]).call(&app);
//! assert_eq!(refused.status, 413);
//!
//! let failure = TestHost::default().app::<Greeting>().unwrap_err();
//! assert_eq!(failure.kind, worker_api::FailureKind::CONFIG);
//! # Ok::<(), Failure>(())
//! ```
//!
//! # Test a worker class
//!
//! The class below has no HTTP; `docs/worker-classes.md` in the repository has a complete one.
//!
//! ```
//! use std::io::Write as _;
//! use std::net::TcpListener;
//! use std::os::fd::{BorrowedFd, OwnedFd};
//!
//! use worker_api::testing::{AppFn, RunningWorker, TestHost};
//! use worker_api::{Counter, Host, Result, Worker, WorkerContext, WorkerFactory};
//!
//! /// Sends `hello` on every connection.
//! struct Hello(Host);
//!
//! impl WorkerFactory for Hello {
//!     const NAME: &'static str = "hello";
//!     const VERSION: &'static str = "1.0.0";
//!     const DESCRIPTION: &'static str = "hello on every connection";
//!
//!     fn new(context: WorkerContext) -> Result<Self> {
//!         Ok(Self(context.host))
//!     }
//! }
//!
//! impl Worker for Hello {
//!     fn run(&self) -> Result<()> {
//!         // SAFETY: the host keeps the listening socket open until `close_listeners`.
//!         let listener = unsafe { BorrowedFd::borrow_raw(self.0.listeners()[0].fd) };
//!         let listener = TcpListener::from(OwnedFd::from(listener.try_clone_to_owned()?));
//!         while self.0.alive() {
//!             self.0.notify();
//!             if let Ok((mut client, _)) = listener.accept() {
//!                 self.0.count(Counter::ACCEPTED, 1);
//!                 client.write_all(b"hello")?;
//!             }
//!             // A real class waits for the listener and for this descriptor.
//!             self.0.deliver_signals();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let app = AppFn(|exchange: &mut worker_api::Exchange| exchange.respond(200, &[], b""));
//! let worker = RunningWorker::start::<Hello>(TestHost::default(), app);
//! assert_eq!(worker.exchange_bytes(b"")?, b"hello");
//! worker.stop();
//! assert_eq!(worker.host.counter(Counter::ACCEPTED), 1);
//! # Ok::<(), std::io::Error>(())
//! ```
// A double fails its test by panicking; that is its contract, not an accident to document on each function.

mod engine;
mod exchange;
mod host;
mod request;
mod runtime;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::app::App;
use crate::exchange::Exchange;
use crate::failure::Result;

pub use engine::TestEngine;
pub use exchange::{Recorded, Response};
pub use host::{Setting, Stop, TestHost};
pub use request::Request;
pub use runtime::TestRuntime;
pub use worker::RunningWorker;

/// An application that is a function.
pub struct AppFn<F>(pub F);

impl<F: Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static> App for AppFn<F> {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        (self.0)(exchange)
    }
}

impl<F> std::fmt::Debug for AppFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppFn")
    }
}

/// Locks a mutex, even if a test has failed while it held the lock.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
