//! One request as seen by Python: the exchange, and the objects through which the application uses it.
//!
//! The objects are created once and reused for further requests, unless the application keeps them: creating five
//! Python objects costs more than the rest of a small request.

mod objects;
mod reading;
mod requests;

use std::os::fd::{IntoRawFd as _, RawFd};

use worker_api::{Exchange, Failure, FailureKind, Step};

use crate::input::Input;
use crate::response::{Phase, Response, SMALL};
use crate::runtime::PythonRuntime;
use python::fault::Fault;
use python::{Cell, Exception, GlobalRef, Object, PyErrSet, PyResult, Python};

pub(crate) use objects::{RequestObjects, Types};
pub(crate) use requests::Requests;

/// A request. The value of the Python object that is `wsgi.input`.
pub(crate) struct Request {
    /// The requests of this process.
    pub(crate) requests: &'static Requests,
    state: Cell<State>,
}

/// The parts of a request.
#[derive(Default)]
pub(crate) struct State {
    /// The exchange; `None` between requests.
    pub(crate) exchange: Option<Exchange>,
    /// The response so far.
    pub(crate) response: Response,
    /// The environ, while the access log needs it.
    pub(crate) environ: Option<GlobalRef>,
    /// Body bytes that were read from the exchange and not yet returned.
    pub(crate) input: Input,
    /// Request number, unique in this process.
    pub(crate) number: u64,
    /// Descriptor of the connection, which may be closed after the exchange.
    pub(crate) descriptor: RawFd,
    /// The objects of the request while a greenlet of a guest loop serves it.
    pub(crate) objects: Option<RequestObjects>,
    /// End of the part that a greenlet is sending: less than its length if `Content-Length` leaves no room
    /// for it.
    pub(crate) part_end: usize,
    /// The first failure of the exchange, which the application received as an exception.
    pub(crate) failure: Option<Failure>,
    /// `write`, as returned by `start_response`.
    pub(crate) write: Option<GlobalRef>,
    /// Socket object of the connection, if the application asked for one.
    pub(crate) socket: Option<GlobalRef>,
    /// Whether the application has read or written on that socket.
    taken: bool,
    /// Whether the application's WSGI response is discarded.
    pub(crate) detached: bool,
    /// Whether the exchange has handed the connection over.
    hijacked: bool,
}

impl Request {
    /// Creates the value of a request object, which has no exchange yet.
    fn new(requests: &'static Requests) -> Self {
        Self { requests, state: Cell::new(State::default()) }
    }

    /// Returns the state of this process.
    #[inline]
    pub(crate) fn runtime(&self) -> &'static PythonRuntime {
        self.requests.runtime
    }

    /// Drops the references that it holds.
    pub(crate) fn drop_references(self, py: Python<'_>) {
        if let Some(mut state) = self.state.borrow(py) {
            let State { write, socket, environ, mut input, .. } = std::mem::take(&mut *state);
            input.drop_references(py);
            drop([write, socket, environ].map(|object| object.map(|object| object.take(py))));
        }
    }

    /// Borrows the state; `RuntimeError` if another thread of the application is using it.
    #[inline]
    pub(crate) fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.state.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the request is in use by another thread")
        })
    }

    /// Passes the environ's variables to the access log. Must be called before the exchange ends, because that
    /// writes the line. Only the first call per request has an effect.
    pub(crate) fn log_variables(&self, py: Python<'_>) {
        if let Err(raised) = self.pass_on_variables(py) {
            let doing = "cannot pass the environ's variables to the access log";
            self.runtime().interpreter.report(py, raised, doing);
        }
    }

    fn pass_on_variables(&self, py: Python<'_>) -> PyResult<()> {
        // The request is not borrowed while Python code may run.
        let (environ, id, peer) = {
            let mut state = self.state(py)?;
            let Some(environ) = state.environ.take() else { return Ok(()) };
            let environ = environ.take(py);
            let Some(exchange) = &state.exchange else { return Ok(()) };
            let head = exchange.head();
            (environ, head.id, head.peer.host.to_string())
        };
        let runtime = self.runtime();
        runtime.logged.pass_on(py, &runtime.interpreter.host, &environ, id, &peer)
    }
}

impl State {
    /// Returns the exchange and the response; `RuntimeError` after the request.
    pub(crate) fn open<'a>(
        &'a mut self,
        py: Python<'_>,
    ) -> PyResult<(&'a mut Exchange, &'a mut Response)> {
        match &mut self.exchange {
            Some(exchange) => Ok((exchange, &mut self.response)),
            None => Err(PyErrSet::new(py, Exception::Runtime, "the request has ended")),
        }
    }

    /// Records a failure of the exchange and sets the corresponding exception.
    #[cold]
    pub(crate) fn raise(&mut self, py: Python<'_>, failure: Failure) -> PyErrSet {
        let kind = match failure.kind {
            FailureKind::GONE => Exception::ConnectionReset,
            FailureKind::TIMEOUT => Exception::Timeout,
            FailureKind::APPLICATION => Exception::Value,
            _ => Exception::Os,
        };
        let raised = PyErrSet::new(py, kind, &failure.to_string());
        self.failure.get_or_insert(failure);
        raised
    }

    /// Sets the exception of a fault.
    pub(crate) fn raise_fault(&mut self, py: Python<'_>, fault: Fault) -> PyErrSet {
        match fault {
            Fault::Exception(raised) => raised,
            Fault::Failure(failure) => self.raise(py, failure),
        }
    }

    /// Records that the application uses the connection directly. Under TLS this returns a separate
    /// descriptor.
    pub(crate) fn take_over(&mut self, py: Python<'_>) -> PyResult<Option<RawFd>> {
        let Some(exchange) = &mut self.exchange else {
            return Err(PyErrSet::new(py, Exception::Os, "the request has ended"));
        };
        self.taken = true;
        if self.response.is_switch()
            && let Err(failure) = self.response.send_head(exchange)
        {
            return Err(PyErrSet::new(py, Exception::Os, &failure.to_string()));
        }
        if exchange.head().tls.is_none() || self.hijacked {
            return Ok(None);
        }
        let stream = exchange
            .hijack()
            .map_err(|failure| PyErrSet::new(py, Exception::Os, &failure.to_string()))?;
        (self.detached, self.hijacked) = (true, true);
        Ok(Some(stream.fd.into_raw_fd()))
    }

    /// Returns whether the application uses the connection directly and has started no response.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken && (self.detached || self.response.phase == Phase::NotStarted)
    }

    /// Returns whether the application has used the connection directly.
    pub(crate) fn is_touched(&self) -> bool {
        self.taken
    }

    /// Ends the request of an application that uses the connection directly.
    pub(crate) fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.hijacked {
            // The application's socket uses a duplicate of the descriptor.
            let hijacked = self.open(py)?.0.hijack();
            hijacked.map_err(|failure| self.raise(py, failure))?;
            self.hijacked = true;
        }
        Ok(())
    }

    /// Sends a part of the body; before the first part, the head. Returns false if `Content-Length` left no
    /// room for all of it: the excess is dropped.
    pub(crate) fn send(&mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<bool> {
        if bytes.is_empty() && !self.response.is_switch() || self.detached {
            return Ok(true);
        }
        let (exchange, response) = self.open(py)?;
        let sent = response.begin_part(exchange, bytes.len() as u64).and_then(|fits| {
            let part = &bytes[..fits as usize];
            if !part.is_empty() && !response.omits_body() {
                send_part(py, exchange, part)?;
            }
            Ok(part.len() == bytes.len())
        });
        sent.map_err(|failure| self.raise(py, failure))
    }

    /// Refuses a `write()` that exceeds `Content-Length`, before any of it is sent (PEP 3333).
    pub(crate) fn check_room(&self, py: Python<'_>, len: usize) -> PyResult<()> {
        let room = self.response.room();
        if len as u64 <= room {
            return Ok(());
        }
        let message = format!("write() of {len} bytes, but Content-Length leaves room for {room}");
        Err(PyErrSet::new(py, Exception::Value, &message))
    }
}

/// Sends a part of a body. A small one usually fits into the socket's buffer: then the lock is not released, because
/// acquiring it again means waiting until other threads have finished their requests.
fn send_part(py: Python<'_>, exchange: &mut Exchange, part: &[u8]) -> Result<(), Failure> {
    let mut rest = part;
    if part.len() <= SMALL {
        match exchange.poll_write(part, None) {
            Step::Ready(n) => rest = part.get(n..).unwrap_or_default(),
            Step::Pending => {}
            Step::Failed(failure) => return Err(failure),
        }
    }
    if rest.is_empty() { Ok(()) } else { py.detach(|| exchange.write(rest)) }
}

/// The Python object that is `gunicorn.socket`. It creates the socket when it is first used: few applications use
/// it, and creating one costs as much as a small request.
pub(crate) struct Socket {
    /// The [`Request`].
    pub(crate) owner: GlobalRef,
    /// The type of the owner.
    pub(crate) types: &'static Types,
}

/// Creates the `TypeError` for a part of a body that is not `bytes`.
#[cold]
pub(crate) fn not_bytes(object: &Object<'_>, what: &str) -> PyErrSet {
    let message = format!("{what} must be bytes, not {}", object.type_name());
    PyErrSet::new(object.py(), Exception::Type, &message)
}
