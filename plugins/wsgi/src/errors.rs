//! What can end a request: an exception of Python's, or a failure of the exchange.

use worker_api::{Failure, FailureKind};

use crate::python::Raised;

/// Either of the two.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An exception is set in this thread.
    Raised(Raised),
    /// The exchange, or the request itself, is at fault.
    Failed(Failure),
}

impl From<Raised> for Fault {
    fn from(raised: Raised) -> Self {
        Self::Raised(raised)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Whether a failure is the client's or the server's affair and not the application's: no traceback is due.
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
