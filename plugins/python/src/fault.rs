//! What can end a request: a Python exception, or a failure of the exchange.

use worker_api::{Failure, FailureKind};

use crate::{Object, PyErrSet, Python};

/// Reason why a request cannot be completed normally.
#[derive(Debug)]
pub enum Fault {
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
pub fn is_outside(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::GONE
            | FailureKind::TIMEOUT
            | FailureKind::PROTOCOL
            | FailureKind::TOO_LARGE
            | FailureKind::INTERRUPTED
    )
}

/// A fault whose exception is taken, so that other code can run.
pub enum SavedFault<'py> {
    /// The exception.
    Exception(Object<'py>),
    /// The exchange, or the request itself, failed.
    Failure(Failure),
}

impl<'py> SavedFault<'py> {
    /// Takes the exception.
    pub fn new(py: Python<'py>, fault: Fault) -> Self {
        match fault {
            Fault::Exception(raised) => Self::Exception(raised.take(py)),
            Fault::Failure(failure) => Self::Failure(failure),
        }
    }

    /// Sets the exception again.
    pub fn restore(self) -> Fault {
        match self {
            Self::Exception(exception) => PyErrSet::restore(&exception).into(),
            Self::Failure(failure) => failure.into(),
        }
    }
}
