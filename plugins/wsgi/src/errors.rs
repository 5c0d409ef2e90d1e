//! What can end a request: a Python exception, or a failure of the exchange.

use worker_api::{Failure, FailureKind};

use crate::python::PyErrSet;

/// Reason why a request cannot be completed normally.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An exception is set in this thread.
    Exception(PyErrSet),
    /// The exchange, or the request itself, failed.
    Failure(Failure),
}

impl From<PyErrSet> for Fault {
    fn from(raised: PyErrSet) -> Self {
        Self::Exception(raised)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Returns whether the client or the server caused the failure, not the application. No traceback is logged then.
pub(crate) fn is_outside(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::GONE
            | FailureKind::TIMEOUT
            | FailureKind::PROTOCOL
            | FailureKind::TOO_LARGE
            | FailureKind::INTERRUPTED
    )
}
