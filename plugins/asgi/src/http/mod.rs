//! One HTTP request: the messages of `receive` and `send`, and how the request ends. ASGI HTTP specification 2.5.

mod messages;
mod state;

use std::ffi::CStr;

use python::clock::now_ns;
use python::fault::is_outside;
use python::{Cell, Exception, Method, Native, Object, PyErrSet, PyResult, Python, method};
use worker_api::{Exchange, Failure, FailureKind};

use crate::head::Head;
use crate::operation::{Operation, Step};
use crate::request::{self, Request, RequestTypes};
use crate::unsent::Unsent;
use crate::waiters::Waiters;

/// A request. The value of the Python object to which `receive` and `send` are bound.
pub(crate) struct Http {
    types: &'static RequestTypes<Self>,
    number: u64,
    state: Cell<State>,
}

struct State {
    /// The exchange, until the request has ended.
    exchange: Option<Exchange>,
    incoming: Incoming,
    response: Response,
    /// What was begun and could not be sent at once.
    unsent: Unsent,
    /// Whether the application has returned from a complete response, a part of which is unsent.
    has_returned: bool,
    /// Whether the response has no body: the request is a HEAD, or the status says so.
    omits_body: bool,
    /// Whether the client has disconnected or the deadline has passed.
    is_gone: bool,
    /// Whether the worker drains and this is a stream of events: it received the disconnect, and may send its end.
    is_drained: bool,
    /// The futures of tasks that wait for a message or for room.
    waiting: Waiters,
    /// The first failure of the exchange, which the application received as an exception.
    failure: Option<Failure>,
}

/// The messages that `receive` has yet to return.
enum Incoming {
    /// More of the body. The number of bytes is known unless it is chunked.
    Body {
        left: Option<u64>,
        /// Whether the exchange had nothing more after the last message: the next attempt leaves a waker, so that the
        /// loop runs other tasks in between even if the client is always ready.
        waits: bool,
    },
    /// The disconnect, when it happens.
    Disconnect,
}

/// The messages that `send` expects.
enum Response {
    /// `http.response.start`
    Start,
    /// The first `http.response.body`. The head is sent with it.
    FirstBody { head: Head, has_trailers: bool },
    /// More of the body.
    Body { has_trailers: bool, is_event_stream: bool },
    /// `http.response.trailers`
    Trailers(Vec<(String, Vec<u8>)>),
    /// None: they were all accepted.
    Nothing,
}

impl Native for Http {
    const NAME: &'static CStr = c"jimu.Http";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[&[Method { name: c"_end", entry: method!(request::end::<Http>) }]];

    fn end(self, py: Python<'_>) {
        if let Some(mut state) = self.state.borrow(py) {
            state.unsent.release(py);
            state.waiting.take().release(py);
        }
    }
}

impl Request for Http {
    const RECEIVE: Method<Self> =
        Method { name: c"receive", entry: method!(request::receive::<Http>) };
    const SEND: Method<Self> = Method { name: c"send", entry: method!(request::send::<Http>) };

    fn new(types: &'static RequestTypes<Self>, number: u64, exchange: Exchange) -> Self {
        let head = exchange.head();
        let length = head.content_length.into_option();
        let omits_body = head.method.as_str() == "HEAD";
        let state = State {
            exchange: Some(exchange),
            incoming: Incoming::Body { left: length, waits: false },
            response: Response::Start,
            unsent: Unsent::default(),
            has_returned: false,
            omits_body,
            is_gone: false,
            is_drained: false,
            waiting: Waiters::default(),
            failure: None,
        };
        Self { types, number, state: Cell::new(state) }
    }

    fn types(&self) -> &'static RequestTypes<Self> {
        self.types
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn with_exchange<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Exchange) -> T,
    ) -> PyResult<Option<T>> {
        Ok(self.state(py)?.exchange.as_mut().map(work))
    }

    fn scope<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        let state = self.state(py)?;
        let Some(exchange) = &state.exchange else {
            return Err(PyErrSet::new(py, Exception::Runtime, "the request has ended"));
        };
        self.runtime().scopes(py)?.http(py, &self.runtime().names, exchange.head())
    }

    fn begin<'py>(&self, py: Python<'py>, message: &Object<'py>) -> PyResult<Option<Operation>> {
        messages::begin(py, self, message)
    }

    fn step<'py>(&self, py: Python<'py>, operation: &mut Operation) -> PyResult<Step<'py>> {
        let mut state = self.state(py)?;
        if let Operation::Receive = operation {
            return state.receive(py, self);
        }
        if state.send_unsent(py, self)? && state.send(py, self, operation)? {
            return Ok(Step::Done);
        }
        state.unsent.push(py, std::mem::replace(operation, Operation::Flush))?;
        Ok(Step::Wait)
    }

    fn future<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        self.state(py)?.waiting.create(py, self.runtime())
    }

    fn wake(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.state(py)?;
        state.wake(py, self);
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime())?;
        Ok(false)
    }

    fn set_gone(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let mut state = self.state(py)?;
        // What the task of a complete response still does is not for the client.
        let Some(exchange) = &state.exchange else { return Ok(None) };
        let is_late = exchange.deadline_ns().is_some_and(|deadline| deadline <= now_ns());
        let failure = if is_late {
            Failure::new(FailureKind::TIMEOUT, "the request timed out (request_timeout)")
                .with_status(504)
        } else {
            Failure::new(FailureKind::GONE, "the client has disconnected")
        };
        state.is_gone = true;
        state.failure.get_or_insert(failure);
        drop(state);
        self.wake(py)?;
        Ok(Some(is_late))
    }

    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        // A stream of events may last for hours: it gets the disconnect.
        if let Response::Body { is_event_stream: true, .. } = state.response {
            state.is_drained = true;
            drop(state);
            self.wake(py)?;
        }
        Ok(())
    }

    fn end_task(&self, py: Python<'_>, exception: Option<&Object<'_>>) -> PyResult<bool> {
        let mut state = self.state(py)?;
        if matches!(state.response, Response::Nothing) && !state.unsent.is_empty() && !state.is_gone
        {
            state.has_returned = true;
            return Ok(false);
        }
        let Some(mut exchange) = state.exchange.take() else {
            return Ok(false);
        };
        let failure = state.failure.take();
        let response = std::mem::replace(&mut state.response, Response::Nothing);
        // The application has ended the stream for the drain, by its return or with the error of `send`.
        let is_drained = state.is_drained
            && !state.is_gone
            && state.unsent.is_empty()
            && matches!(response, Response::Body { .. })
            && (exception.is_none() || failure.is_some());
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime())?;
        if is_drained {
            if let Err(failure) = exchange.finish() {
                exchange.fail(failure);
            }
            return Ok(true);
        }
        let outside = failure.filter(is_outside);
        let failure = match (exception, outside) {
            (_, Some(failure)) => failure,
            (Some(exception), None) => self.runtime().interpreter.to_failure(
                py,
                FailureKind::APPLICATION,
                PyErrSet::restore(exception),
            ),
            (None, None) => match response {
                Response::Start => {
                    Failure::application("the application returned without starting a response")
                }
                _ => {
                    Failure::application("the application returned without completing its response")
                }
            },
        };
        exchange.fail(failure);
        Ok(true)
    }
}

impl Http {
    fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.state.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the request is in use by another thread")
        })
    }
}
