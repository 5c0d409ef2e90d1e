//! Doubles of both sides of the ABI: of the host, for worker classes and applications, and of a worker class, for
//! applications.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`host`] | the host: settings, one listener, signals, and records of what was logged |
//! | [`worker`] | a real worker of any class, on a thread, with that host and real clients |
//! | [`cooperative`] | the behaviors of cooperative classes, as tests of a class |
//! | [`app`] | small applications |
//! | [`exchange`] | requests and responses in memory |
//! | [`engine`] | an engine in memory, for applications with their own loop |
//! | [`http`], [`tls`] | the HTTP client of all tests, and certificates for it |
//!
//! **Invariant:** it depends on `worker-api` and on no other part of the server, so that every part can use it.
// A double fails its test by panicking; that is its contract, not an accident to document on each function.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod app;
pub mod cooperative;
pub mod engine;
pub mod exchange;
pub mod host;
pub mod worker;

pub use app::Closure;
pub use engine::Engine;
pub use exchange::{Request, Response};
pub use host::TestHost;
pub use support::{http, tls};
pub use worker::RunningWorker;

/// Locks a mutex, even if a test has failed while it held the lock.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
