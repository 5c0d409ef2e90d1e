//! Ends a request that failed.

use worker_api::{Exchange, Failure, FailureKind, LogLevel, Result};

use crate::request::Request;
use crate::runtime::PythonRuntime;
use python::fault::{Fault, SavedFault, is_outside};
use python::{PyErrSet, Python};

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
                    runtime.interpreter.log(LogLevel::DEBUG, &format!("{request_line}: {message}"));
                }
                SavedFault::Exception(exception) => {
                    let doing = format!(
                        "{request_line}: error on a connection that the application took over"
                    );
                    runtime.interpreter.report(py, PyErrSet::restore(&exception), &doing);
                }
                SavedFault::Failure(failure) => {
                    let late = failure.kind == FailureKind::TIMEOUT;
                    let level = if late { LogLevel::WARNING } else { LogLevel::DEBUG };
                    runtime.interpreter.log(level, &format!("{request_line}: {failure}"));
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
            request.runtime().interpreter.to_failure(py, FailureKind::APPLICATION, raised)
        }
    }
}

/// Creates a failure for an unexpected Python error, such as a lack of memory.
#[cold]
pub(crate) fn unexpected(runtime: &PythonRuntime, py: Python<'_>, raised: PyErrSet) -> Failure {
    runtime.interpreter.to_failure(py, FailureKind::OTHER, raised)
}
