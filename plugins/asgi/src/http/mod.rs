//! One HTTP request: the messages of `receive` and `send`, and how the request ends. ASGI HTTP specification 2.5.

pub(crate) mod messages;
mod state;

use std::ffi::CStr;

use python::clock::now_ns;
use python::fault::is_outside;
use python::{
    Arguments, Cell, Definition, Exception, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, method, required,
};
use worker_api::{Exchange, Failure, FailureKind};

use crate::awaitable::Pending;
use crate::head::Head;
use crate::operation::{Operation, Step, Subject};
use crate::runtime::AsgiRuntime;
use crate::waiters::Waiters;

/// The type and the functions of which the objects of a request are made.
pub(crate) struct HttpTypes {
    runtime: &'static AsgiRuntime,
    pub(crate) http: NativeType<Http>,
    receive: Definition<Http>,
    send: Definition<Http>,
}

/// A request. The value of the Python object to which `receive` and `send` are bound.
pub(crate) struct Http {
    types: &'static HttpTypes,
    runtime: &'static AsgiRuntime,
    /// Unique in this process.
    pub(crate) number: u64,
    state: Cell<State>,
}

struct State {
    /// The exchange, until the request has ended.
    exchange: Option<Exchange>,
    incoming: Incoming,
    response: Response,
    /// Whether the response has no body because the request is a HEAD.
    is_head_method: bool,
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
    Body { omitted: bool, has_trailers: bool, is_event_stream: bool },
    /// `http.response.trailers`
    Trailers(Vec<(String, Vec<u8>)>),
    /// None: the response is complete.
    Nothing,
}

impl Native for Http {
    const NAME: &'static CStr = c"jimu.Http";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[&[Method { name: c"_end", entry: method!(end) }]];

    fn end(self, py: Python<'_>) {
        if let Some(waiting) = self.state.borrow(py).map(|mut state| state.waiting.take()) {
            waiting.release(py);
        }
    }
}

impl HttpTypes {
    /// Creates the type. It is never freed: requests refer to it.
    pub(crate) fn new(py: Python<'_>, runtime: &'static AsgiRuntime) -> PyResult<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            runtime,
            http: NativeType::new(py)?,
            receive: Definition::new(&Method { name: c"receive", entry: method!(receive) }),
            send: Definition::new(&Method { name: c"send", entry: method!(send) }),
        })))
    }

    /// Returns `receive` and `send` of a request.
    pub(crate) fn functions<'py>(
        &self,
        request: &Object<'py>,
    ) -> PyResult<(Object<'py>, Object<'py>)> {
        Ok((self.http.bind(&self.receive, request)?, self.http.bind(&self.send, request)?))
    }

    fn pending<'py>(
        &'static self,
        request: &Object<'py>,
        operation: Operation,
    ) -> PyResult<Object<'py>> {
        self.runtime.pending.make(request.py(), Pending::new(self, request, operation))
    }
}

impl Subject for HttpTypes {
    fn step<'py>(
        &self,
        py: Python<'py>,
        request: &Object<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>> {
        self.http.value(request)?.step(py, operation)
    }

    fn future<'py>(&self, py: Python<'py>, request: &Object<'py>) -> PyResult<Object<'py>> {
        let http = self.http.value(request)?;
        http.state(py)?.waiting.create(py, self.runtime)
    }
}

impl Http {
    /// Creates the value for a request.
    pub(crate) fn new(types: &'static HttpTypes, exchange: Exchange) -> Self {
        let runtime = types.runtime;
        let head = exchange.head();
        let length = head.content_length.into_option();
        let is_head_method = head.method.as_str() == "HEAD";
        let state = State {
            exchange: Some(exchange),
            incoming: Incoming::Body { left: length, waits: false },
            response: Response::Start,
            is_head_method,
            is_gone: false,
            is_drained: false,
            waiting: Waiters::default(),
            failure: None,
        };
        Self { types, runtime, number: runtime.next_number(), state: Cell::new(state) }
    }

    /// Runs `work` on the exchange; `None` after the request.
    pub(crate) fn with_exchange<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Exchange) -> T,
    ) -> PyResult<Option<T>> {
        Ok(self.state(py)?.exchange.as_mut().map(work))
    }

    /// Builds the scope.
    pub(crate) fn scope<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        let state = self.state(py)?;
        let Some(exchange) = &state.exchange else {
            return Err(PyErrSet::new(py, Exception::Runtime, "the request has ended"));
        };
        self.runtime.scopes(py)?.http(py, &self.runtime.names, exchange.head())
    }

    /// Tries an operation.
    pub(crate) fn step<'py>(
        &self,
        py: Python<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>> {
        let mut state = self.state(py)?;
        match operation {
            Operation::Receive => state.receive(py, self),
            Operation::Send { data, at, more } => {
                let data = data.get(py);
                let bytes = data.as_bytes().unwrap_or_default();
                let sent = state.write(py, self, bytes, *at)?;
                *at = sent;
                if sent < bytes.len() {
                    return Ok(Step::Wait);
                }
                state.after_body(py, self, *more).map(|()| Step::Done)
            }
            Operation::Flush => Ok(Step::Done),
            Operation::SendFile { file, more } => {
                if state.write_file(py, self, file)? {
                    state.after_body(py, self, *more).map(|()| Step::Done)
                } else {
                    Ok(Step::Wait)
                }
            }
        }
    }

    /// Resolves the futures of the tasks that wait: they try their operations again.
    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let waiting = self.state(py)?.waiting.take();
        waiting.resolve(py, self.runtime)
    }

    /// Records that the client has disconnected, or that the deadline has passed; returns whether it is the deadline.
    /// `None` if the response is complete: what its task still does is not for the client.
    pub(crate) fn set_gone(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let mut state = self.state(py)?;
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

    /// When the worker drains: a stream of events, which may last for hours, gets the disconnect.
    pub(crate) fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        if let Response::Body { is_event_stream: true, .. } = state.response {
            state.is_drained = true;
            drop(state);
            self.wake(py)?;
        }
        Ok(())
    }

    /// Ends a request after the application's task. `exception` is what it raised. Returns whether the exception was
    /// reported.
    pub(crate) fn end_request(
        &self,
        py: Python<'_>,
        exception: Option<&Object<'_>>,
    ) -> PyResult<bool> {
        let mut state = self.state(py)?;
        let Some(mut exchange) = state.exchange.take() else {
            return Ok(false);
        };
        let failure = state.failure.take();
        let response = std::mem::replace(&mut state.response, Response::Nothing);
        // The application has ended the stream for the drain, by its return or with the error of `send`.
        let is_drained = state.is_drained
            && !state.is_gone
            && matches!(response, Response::Body { .. })
            && (exception.is_none() || failure.is_some());
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime)?;
        if is_drained {
            if let Err(failure) = exchange.finish() {
                exchange.fail(failure);
            }
            return Ok(true);
        }
        let outside = failure.filter(is_outside);
        let failure = match (exception, outside) {
            (_, Some(failure)) => failure,
            (Some(exception), None) => self.runtime.interpreter.to_failure(
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

    fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.state.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the request is in use by another thread")
        })
    }
}

/// `receive()`, bound to a request.
fn receive<'py>(
    _: Python<'py>,
    http: &Http,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [] = arguments.take([])?;
    http.types.pending(&arguments.bound_to(), Operation::Receive)
}

/// `send(message)`, bound to a request.
fn send<'py>(
    py: Python<'py>,
    http: &Http,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [message] = arguments.take(["message"])?;
    let message = required(py, message, "message")?;
    let runtime = http.runtime;
    let Some(mut operation) = messages::begin(py, http, &message)? else {
        return Ok(runtime.completed.get(py).clone());
    };
    match http.step(py, &mut operation) {
        Ok(Step::Wait) => http.types.pending(&arguments.bound_to(), operation),
        step => {
            operation.release(py);
            step.map(|_| runtime.completed.get(py).clone())
        }
    }
}

/// `_end(exception)`: ends the request after the application's task. Returns whether an exception was reported.
fn end<'py>(py: Python<'py>, http: &Http, arguments: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let [exception] = arguments.take(["exception"])?;
    let exception = exception.filter(|exception| !exception.is_none());
    if let Some(open) = http.runtime.forget(py, http.number)? {
        drop((open.request.take(py), open.task.take(py)));
    }
    py.truth(http.end_request(py, exception.as_ref())?)
}
