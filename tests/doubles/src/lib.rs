//! What our own tests add to the doubles of `worker_api::testing`, which are for third parties, too.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`host`] | the double of the host with the server's TLS, and applications from their libraries |
//! | [`worker`] | HTTP clients of a worker that runs in the test |
//! | [`cooperative`] | the behaviors of cooperative classes, as tests of a class |
//! | [`app`] | small applications |
//! | [`http`], [`tls`] | the HTTP client of all tests, and certificates for it |
//!
//! **Invariant:** it depends on `worker-api`, `host/tls` and on no other part of the server, so that every part can use it.
// A double fails its test by panicking; that is its contract, not an accident to document on each function.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod app;
pub mod cooperative;
pub mod host;
pub mod worker;

pub use host::{app_of, host_with_tls};
pub use support::{http, tls};
pub use worker::Clients;

/// Locks a mutex, even if a test has failed while it held the lock.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
