//! Ends a request that failed.

use worker_api::{Exchange, Failure, FailureKind, LogLevel, Result};

use crate::errors::{Fault, is_outside};
use crate::python::{Object, PyErrSet, Python};
use crate::request::Request;
use crate::runtime::PythonRuntime;

/// Ends a request whose application failed. The exchange fails, unless the application has used the connection
/// directly: an error response would follow what it has sent.
#[cold]
pub(crate) fn fail_request(py: Python<'_>, request: &Request, fault: Fault) -> Result<()> {
    let runtime = request.runtime();
    let fault = SavedFault::new(py, fault);
    request.log_variables(py);
    match request.state(py) {
        Ok(mut state) if state.is_touched() => {
            let head = state.exchange.as_ref().map(Exchange::head);
            let request_line = match head.filter(|head| !head.method.is_empty()) {
                Some(head) => format!("{} {}", head.method, head.path.as_slice().escape_ascii()),
                None => "request".to_owned(),
            };
            let released = state.release(py);
            drop(state);
            if let Err(raised) = released {
                raised.clear(py);
            }
            match fault {
                SavedFault::Exception(exception) if exception.type_name() == "StopIteration" => {
                    let message = "the application has finished with the connection it took over";
                    runtime.host.log(
                        LogLevel::DEBUG,
                        "wsgi",
                        &format!("{request_line}: {message}"),
                    );
                }
                SavedFault::Exception(exception) => {
                    let doing = format!(
                        "{request_line}: error on a connection that the application took over"
                    );
                    runtime.report(py, PyErrSet::restore(&exception), &doing);
                }
                SavedFault::Failure(failure) => {
                    let late = failure.kind == FailureKind::TIMEOUT;
                    let level = if late { LogLevel::WARNING } else { LogLevel::DEBUG };
                    runtime.host.log(level, "wsgi", &format!("{request_line}: {failure}"));
                }
            }
            return Ok(());
        }
        Ok(_) => {}
        Err(raised) => raised.clear(py),
    }
    Err(failure_of(py, request, fault.restore()))
}

/// Returns the failure that ends the exchange. If an error of the application is the reason, it has the traceback:
/// the worker class logs both as one record.
#[cold]
pub(crate) fn failure_of(py: Python<'_>, request: &Request, fault: Fault) -> Failure {
    let earlier = match request.state(py) {
        Ok(mut state) => state.failure.take(),
        Err(raised) => {
            raised.clear(py);
            None
        }
    };
    match (fault, earlier) {
        (Fault::Failure(failure), earlier) => earlier.unwrap_or(failure),
        // The application did not catch the exception for this failure.
        (Fault::Exception(raised), Some(failure)) if is_outside(&failure) => {
            raised.clear(py);
            failure
        }
        (Fault::Exception(raised), _) => {
            to_failure(request.runtime(), py, FailureKind::APPLICATION, raised)
        }
    }
}

/// Creates a failure for an unexpected Python error, such as a lack of memory.
#[cold]
pub(crate) fn unexpected(runtime: &PythonRuntime, py: Python<'_>, raised: PyErrSet) -> Failure {
    to_failure(runtime, py, FailureKind::OTHER, raised)
}

/// Converts an exception to a failure, with the traceback for the log.
fn to_failure(
    runtime: &PythonRuntime,
    py: Python<'_>,
    kind: FailureKind,
    raised: PyErrSet,
) -> Failure {
    let (line, traceback) = runtime.describe(py, raised);
    let failure = Failure::new(kind, line);
    // A traceback without frames of the application adds nothing.
    if traceback.trim_end() == failure.message.as_str() {
        failure
    } else {
        failure.with_detail(traceback)
    }
}

/// A fault whose exception is taken, so that other code can run.
pub(crate) enum SavedFault<'py> {
    /// The exception.
    Exception(Object<'py>),
    /// The exchange, or the request itself, failed.
    Failure(Failure),
}

impl<'py> SavedFault<'py> {
    /// Takes the exception.
    pub(crate) fn new(py: Python<'py>, fault: Fault) -> Self {
        match fault {
            Fault::Exception(raised) => Self::Exception(raised.take(py)),
            Fault::Failure(failure) => Self::Failure(failure),
        }
    }

    /// Sets the exception again.
    pub(crate) fn restore(self) -> Fault {
        match self {
            Self::Exception(exception) => PyErrSet::restore(&exception).into(),
            Self::Failure(failure) => failure.into(),
        }
    }
}
