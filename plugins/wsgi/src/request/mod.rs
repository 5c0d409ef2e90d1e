//! One request as seen by Python: the exchange, and the objects through which the application uses it.
//!
//! The objects are created once and reused for further requests, unless the application keeps them: creating five
//! Python objects costs more than the rest of a small request.

use std::os::fd::{IntoRawFd as _, RawFd};

use worker_api::{Exchange, Failure, FailureKind};

use crate::errors::Fault;
use crate::input::Input;
use crate::python::{
    Cell, Definition, Exception, GlobalRef, NativeType, Object, PyErrSet, PyResult, Python,
};
use crate::response::{Phase, Response};

/// The types and functions of which the objects of a request are made.
pub(crate) struct Types {
    pub(crate) request: NativeType<Request>,
    pub(crate) socket: NativeType<Socket>,
    pub(crate) start_response: Definition,
    pub(crate) write: Definition,
    pub(crate) early_hints: Definition,
    /// Creates `wsgi.input` from the request object; `None` if the request object itself is `wsgi.input`.
    pub(crate) input: Option<GlobalRef>,
}

/// The state of a request. The value of the Python object that is `wsgi.input`.
pub(crate) struct Request(Cell<State>);

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
    /// Drops the references that it holds.
    pub(crate) fn drop_references(self, py: Python<'_>) {
        if let Some(mut state) = self.0.borrow(py) {
            let State { write, socket, environ, .. } = std::mem::take(&mut *state);
            drop([write, socket, environ].map(|object| object.map(|object| object.take(py))));
        }
    }

    /// Borrows the state; `RuntimeError` if another thread of the application is using it.
    #[inline]
    pub(crate) fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.0.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the request is in use by another thread")
        })
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
                py.detach(|| exchange.write(part))?;
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

/// The Python object that is `gunicorn.socket`. It creates the socket when it is first used: few applications use
/// it, and creating one costs as much as a small request.
pub(crate) struct Socket {
    /// The [`Request`].
    pub(crate) owner: GlobalRef,
}

/// The Python objects of a request, taken from a pool and returned to it.
pub(crate) struct RequestObjects {
    /// The [`Request`].
    pub(crate) request: GlobalRef,
    /// `wsgi.input` under a guest loop; otherwise the request object is `wsgi.input`.
    input: Option<GlobalRef>,
    /// `start_response`.
    pub(crate) start_response: GlobalRef,
    /// `wsgi.early_hints`.
    pub(crate) early_hints: GlobalRef,
    /// The [`Socket`].
    pub(crate) socket: GlobalRef,
    /// `write`. The request refers to it, too, to return it from `start_response`.
    write: GlobalRef,
}

impl RequestObjects {
    /// Creates the objects.
    pub(crate) fn new(py: Python<'_>, types: &Types) -> PyResult<Self> {
        let request = types.request.make(py, Request(Cell::new(State::default())))?;
        let (input, write) = match &types.input {
            Some(input) => {
                let input = input.get(py).call([&request])?;
                let write = input.attr_named("_write")?;
                (Some(input.store()), write)
            }
            None => (None, types.write.bind(&request)?),
        };
        types.request.value(&request)?.state(py)?.write = Some(write.clone().store());
        Ok(Self {
            write: write.store(),
            start_response: types.start_response.bind(&request)?.store(),
            early_hints: types.early_hints.bind(&request)?.store(),
            socket: types.socket.make(py, Socket { owner: request.clone().store() })?.store(),
            request: request.store(),
            input,
        })
    }

    /// Returns `wsgi.input`.
    pub(crate) fn wsgi_input(&self) -> &GlobalRef {
        self.input.as_ref().unwrap_or(&self.request)
    }

    /// Attaches an exchange.
    pub(crate) fn begin(
        &self,
        py: Python<'_>,
        types: &Types,
        number: u64,
        exchange: Exchange,
    ) -> PyResult<()> {
        let request = self.request.get(py);
        let mut state = types.request.value(&request)?.state(py)?;
        state.response.begin(exchange.head().method.as_str() == "HEAD");
        state.input.begin(exchange.head().content_length.into_option());
        state.number = number;
        state.descriptor = exchange.descriptor();
        state.failure = None;
        (state.taken, state.detached, state.hijacked) = (false, false, false);
        state.exchange = Some(exchange);
        Ok(())
    }

    /// Detaches the exchange: the application must not use these objects any more.
    pub(crate) fn end(&self, py: Python<'_>, types: &Types) -> PyResult<Option<Exchange>> {
        let request = self.request.get(py);
        let mut state = types.request.value(&request)?.state(py)?;
        let socket = state.socket.take().map(|socket| socket.take(py));
        let environ = state.environ.take().map(|environ| environ.take(py));
        state.response.phase = Phase::Ended;
        let exchange = state.exchange.take();
        let hijacked = state.hijacked;
        // Dropping the socket, or the contents of the environ, can run Python code.
        drop(state);
        drop(environ);
        if let Some(socket) = socket {
            let ended = py.truth(hijacked).and_then(|gone| socket.call_method("_end", [&gone]));
            ended.map_or_else(|raised| raised.clear(py), drop);
        }
        Ok(exchange)
    }

    /// Returns whether nothing else refers to the objects.
    pub(crate) fn is_free(&self, py: Python<'_>) -> bool {
        let is = |object: &GlobalRef, references| object.get(py).reference_count() == references;
        is(&self.start_response, 1)
            && is(&self.early_hints, 1)
            && is(&self.socket, 1)
            && is(&self.write, REFERENCES_TO_WRITE)
            && is(&self.request, REFERENCES_TO_REQUEST)
            && self.input.as_ref().is_none_or(|input| is(input, REFERENCES_TO_INPUT))
    }

    /// Drops the references to the objects, which live as long as the application refers to them.
    pub(crate) fn release(self, py: Python<'_>, types: &Types) {
        let request = self.request.take(py);
        let write = types
            .request
            .value(&request)
            .and_then(|request| request.state(py))
            .map(|mut state| state.write.take());
        match write {
            // Breaks the cycle: `write` is bound to the object that refers to it.
            Ok(write) => drop(write.map(|w| w.take(py))),
            Err(raised) => raised.clear(py),
        }
        drop(self.input.map(|input| input.take(py)));
        drop((self.start_response.take(py), self.early_hints.take(py)));
        drop((self.socket.take(py), self.write.take(py)));
    }
}

/// Creates the `TypeError` for a part of a body that is not `bytes`.
#[cold]
pub(crate) fn not_bytes(object: &Object<'_>, what: &str) -> PyErrSet {
    let message = format!("{what} must be bytes, not {}", object.type_name());
    PyErrSet::new(object.py(), Exception::Type, &message)
}

/// References: from [`RequestObjects`]; from `start_response`, `early_hints` and the socket; and from `write`, or
/// under a guest loop from `wsgi.input`.
const REFERENCES_TO_REQUEST: u32 = 5;
/// References: from [`RequestObjects`], and from `write`, which is a bound method.
const REFERENCES_TO_INPUT: u32 = 2;
/// References: from [`RequestObjects`], and from the request.
const REFERENCES_TO_WRITE: u32 = 2;
