//! The exchange of a request, which its body and its response use alternately.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use worker_api::Exchange;

/// A detached exchange. Its operations never block, so that the lock is held for a moment.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Exchange>>);

impl Shared {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self(Arc::new(Mutex::new(exchange)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
