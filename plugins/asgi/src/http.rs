//! One HTTP request: the messages of `receive` and `send`, and how the request ends. ASGI HTTP specification 2.5.

use std::ffi::CStr;
use std::fs::File;

use python::clock::now_ns;
use python::fault::is_outside;
use python::{
    Arguments, Cell, Definition, Exception, GlobalRef, Method, Native, NativeType, Object,
    PyErrSet, PyResult, Python, method, required,
};
use worker_api::{Exchange, Failure, FailureKind, Header, Step as Polled};

use crate::awaitable::Pending;
use crate::head::{Head, owned_headers};
use crate::operation::{Operation, Source, Span, Step, Subject};
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
    pub(crate) fn set_gone(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.state(py)?;
        state.is_gone = true;
        let deadline = state.exchange.as_ref().and_then(Exchange::deadline_ns);
        let is_late = deadline.is_some_and(|deadline| deadline <= now_ns());
        let failure = if is_late {
            Failure::new(FailureKind::TIMEOUT, "the request timed out (request_timeout)")
                .with_status(504)
        } else {
            Failure::new(FailureKind::GONE, "the client has disconnected")
        };
        state.failure.get_or_insert(failure);
        drop(state);
        self.wake(py)?;
        Ok(is_late)
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

impl State {
    fn receive<'py>(&mut self, py: Python<'py>, http: &Http) -> PyResult<Step<'py>> {
        let runtime = http.runtime;
        let Some(exchange) = self.exchange.as_mut().filter(|_| !self.is_gone && !self.is_drained)
        else {
            return disconnect(py, runtime);
        };
        let Incoming::Body { left, waits } = &mut self.incoming else { return Ok(Step::Wait) };
        let mut buffer = runtime.buffer(py)?;
        let mut filled = 0;
        while *left != Some(0) && filled < buffer.len() {
            let part = &mut buffer[filled..];
            let mut polled = if std::mem::take(waits) {
                Polled::Pending
            } else {
                exchange.poll_read(part, None)
            };
            if matches!(polled, Polled::Pending) && filled == 0 {
                polled = exchange.poll_read(part, Some(runtime.waker(http.number)));
            }
            match polled {
                Polled::Ready(0) => *left = Some(0),
                Polled::Ready(n) => {
                    filled += n;
                    *left = left.map(|left| left.saturating_sub(n as u64));
                }
                Polled::Pending if filled == 0 => return Ok(Step::Wait),
                Polled::Pending => {
                    *waits = true;
                    break;
                }
                Polled::Failed(failure) => {
                    self.is_gone = true;
                    self.failure.get_or_insert(failure);
                    return disconnect(py, runtime);
                }
            }
        }
        let more = *left != Some(0);
        let names = &runtime.names;
        let message = py.dict()?;
        message.set_item(&names.kind.get(py), &names.http_request.get(py))?;
        message.set_item(&names.body.get(py), &py.bytes(&buffer[..filled])?)?;
        message.set_item(&names.more_body.get(py), &py.truth(more)?)?;
        if !more {
            self.incoming = Incoming::Disconnect;
        }
        Ok(Step::Message(message))
    }

    /// Starts the response with its first part of `length` bytes, which is the whole body unless `more`.
    fn begin_body(
        &mut self,
        py: Python<'_>,
        http: &Http,
        length: usize,
        more: bool,
    ) -> PyResult<()> {
        let response = std::mem::replace(&mut self.response, Response::Nothing);
        let Response::FirstBody { head, has_trailers } = response else {
            self.response = response;
            return if more { self.check_not_drained(py) } else { Ok(()) };
        };
        let omitted = self.is_head_method || head.has_no_body();
        let is_event_stream = head.is_event_stream;
        let whole = (!more && !has_trailers).then_some(length);
        let started = head.start(self.open(py)?, whole);
        self.response = Response::Body { omitted, has_trailers, is_event_stream };
        started.map_err(|failure| self.raise(py, failure))?;
        if is_event_stream && http.runtime.interpreter.drain.has_begun() {
            self.is_drained = true;
            self.waiting.take().resolve(py, http.runtime)?;
        }
        Ok(())
    }

    /// Fails if the worker drains: more of a stream of events would delay it.
    fn check_not_drained(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.is_drained {
            return Ok(());
        }
        self.failure.get_or_insert_with(|| {
            Failure::new(FailureKind::GONE, "the worker drains: the stream of events has to end")
        });
        Err(gone(py))
    }

    /// Writes `bytes` from the index `at` on. Returns the index up to which they are written.
    fn write(
        &mut self,
        py: Python<'_>,
        http: &Http,
        bytes: &[u8],
        mut at: usize,
    ) -> PyResult<usize> {
        self.check_open(py)?;
        if let Response::Body { omitted: true, .. } = self.response {
            return Ok(bytes.len());
        }
        let Some(exchange) = self.exchange.as_mut() else { return Ok(bytes.len()) };
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let mut polled = exchange.poll_write(rest, None);
            if matches!(polled, Polled::Pending) {
                polled = exchange.poll_write(rest, Some(http.runtime.waker(http.number)));
            }
            match polled {
                Polled::Ready(n) => at += n,
                Polled::Pending => break,
                Polled::Failed(failure) => return Err(self.raise(py, failure)),
            }
        }
        Ok(at)
    }

    /// Writes a part of a file. Returns whether all of it is written.
    fn write_file(&mut self, py: Python<'_>, http: &Http, span: &mut Span) -> PyResult<bool> {
        self.check_open(py)?;
        if let Response::Body { omitted: true, .. } = self.response {
            return Ok(true);
        }
        let fd = span.file.fd();
        let Some(exchange) = self.exchange.as_mut() else { return Ok(true) };
        while span.left > 0 {
            let waker = http.runtime.waker(http.number);
            match exchange.poll_send_file(fd, span.offset, span.left, Some(waker)) {
                Polled::Ready(n) => {
                    span.offset += n as u64;
                    span.left = span.left.saturating_sub(n as u64);
                }
                Polled::Pending => return Ok(false),
                Polled::Failed(failure) => return Err(self.raise(py, failure)),
            }
        }
        Ok(true)
    }

    /// What follows a part of the body: nothing if there is `more`, otherwise the trailers or the end.
    fn after_body(&mut self, py: Python<'_>, http: &Http, more: bool) -> PyResult<()> {
        if more {
            return Ok(());
        }
        if let Response::Body { has_trailers: true, .. } = self.response {
            self.response = Response::Trailers(Vec::new());
            return Ok(());
        }
        self.complete(py, http)
    }

    /// Ends a complete response. The task may go on.
    fn complete(&mut self, py: Python<'_>, http: &Http) -> PyResult<()> {
        self.response = Response::Nothing;
        let Some(mut exchange) = self.exchange.take() else { return Ok(()) };
        if let Err(failure) = exchange.finish() {
            let raised = self.raise(py, failure.clone());
            exchange.fail(failure);
            return Err(raised);
        }
        self.waiting.take().resolve(py, http.runtime)
    }

    /// Returns the exchange; the error of a disconnected client if there is none.
    fn open(&mut self, py: Python<'_>) -> PyResult<&mut Exchange> {
        self.check_open(py)?;
        self.exchange.as_mut().ok_or_else(|| gone(py))
    }

    /// Fails if the client has disconnected: `send` raises an `OSError` then (HTTP specification 2.4).
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_gone || self.exchange.is_none() { Err(gone(py)) } else { Ok(()) }
    }

    /// Records a failure of the exchange and sets the corresponding exception.
    #[cold]
    fn raise(&mut self, py: Python<'_>, failure: Failure) -> PyErrSet {
        let kind = match failure.kind {
            FailureKind::GONE => Exception::ConnectionReset,
            FailureKind::TIMEOUT => Exception::Timeout,
            FailureKind::APPLICATION => Exception::Runtime,
            _ => Exception::Os,
        };
        let raised = PyErrSet::new(py, kind, &failure.to_string());
        self.is_gone |= is_outside(&failure);
        self.failure.get_or_insert(failure);
        raised
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
    let Some(mut operation) = begin_message(py, http, &message)? else {
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

/// Reads a message of the application, and does what it asks for up to the first write. Returns what is to be written.
fn begin_message<'py>(
    py: Python<'py>,
    http: &Http,
    message: &Object<'py>,
) -> PyResult<Option<Operation>> {
    let names = &http.runtime.names;
    let Some(kind) = message.dict_item(&names.kind.get(py))? else {
        return Err(PyErrSet::new(py, Exception::Value, "the message has no type"));
    };
    let kind = kind.as_str()?;
    let mut state = http.state(py)?;
    let flag = |name: &GlobalRef| -> PyResult<bool> {
        Ok(message.dict_item(&name.get(py))?.is_some_and(|flag| flag.is_true()))
    };
    match (kind, &state.response) {
        ("http.response.start", Response::Start) => {
            state.check_open(py)?;
            let status = message.dict_item(&names.status.get(py))?;
            let status = required(py, status, "status")?.as_number()?;
            let headers = message.dict_item(&names.headers.get(py))?;
            let head = Head::new(u16::try_from(status).unwrap_or_default(), headers.as_ref())?;
            let has_trailers = flag(&names.trailers)?;
            state.response = Response::FirstBody { head, has_trailers };
            Ok(None)
        }
        ("http.response.body", Response::FirstBody { .. } | Response::Body { .. }) => {
            let data = match message.dict_item(&names.body.get(py))? {
                Some(body) => body_bytes(py, &body)?,
                None => py.bytes(b"")?,
            };
            let more = flag(&names.more_body)?;
            let length = data.as_bytes().unwrap_or_default().len();
            state.begin_body(py, http, length, more)?;
            Ok(Some(Operation::Send { data: data.store(), at: 0, more }))
        }
        ("http.response.pathsend", Response::FirstBody { .. }) => {
            let path = message.dict_item(&names.path.get(py))?;
            let file = open_file(py, required(py, path, "path")?.as_str()?)?;
            let left = file.metadata().map_or(0, |facts| facts.len());
            state.begin_body(py, http, left as usize, false)?;
            let file = Span { file: Source::File(file), offset: 0, left };
            Ok(Some(Operation::SendFile { file, more: false }))
        }
        ("http.response.zerocopysend", Response::FirstBody { .. } | Response::Body { .. }) => {
            let (file, more) = (zero_copy_span(py, http, message)?, flag(&names.more_body)?);
            state.begin_body(py, http, file.left as usize, more)?;
            Ok(Some(Operation::SendFile { file, more }))
        }
        ("http.response.trailers", Response::Trailers(_)) => {
            add_trailers(py, http, &mut state, message)?;
            if !flag(&names.more_trailers)? {
                state.complete(py, http)?;
            }
            Ok(None)
        }
        ("http.response.early_hint", Response::Start | Response::FirstBody { .. }) => {
            early_hint(py, http, &mut state, message).map(|()| None)
        }
        ("http.response.debug", Response::Start | Response::FirstBody { .. }) => {
            // For tests in the application's process: nothing is sent.
            Ok(None)
        }
        _ => Err(unexpected(py, kind, &state)),
    }
}

/// Returns the bytes of a part of the body.
pub(crate) fn body_bytes<'py>(py: Python<'py>, body: &Object<'py>) -> PyResult<Object<'py>> {
    if body.as_bytes().is_some() {
        return Ok(body.clone());
    }
    if body.is_exact_str() {
        let message = "the body of a message must be bytes, not str";
        return Err(PyErrSet::new(py, Exception::Type, message));
    }
    body.to_bytes()
}

fn open_file(py: Python<'_>, path: &str) -> PyResult<File> {
    File::open(path).map_err(|error| {
        PyErrSet::new(py, Exception::Os, &format!("cannot open {path:?} for pathsend: {error}"))
    })
}

/// Reads `file`, `offset` and `count` of a message: a part of a file that the application has opened.
fn zero_copy_span<'py>(py: Python<'py>, http: &Http, message: &Object<'py>) -> PyResult<Span> {
    let names = &http.runtime.names;
    let file = required(py, message.dict_item(&names.file.get(py))?, "file")?;
    let number = |name: &GlobalRef| -> PyResult<Option<u64>> {
        let value = message.dict_item(&name.get(py))?.filter(|value| !value.is_none());
        value.map(|value| value.as_number().map(|n| n.max(0) as u64)).transpose()
    };
    let (offset, count) = (number(&names.offset)?, number(&names.count)?);
    let fd = match file.as_number() {
        Ok(fd) => fd as i32,
        Err(raised) => {
            raised.clear(py);
            file.call_method("fileno", [])?.as_number()? as i32
        }
    };
    let offset = if let Some(offset) = offset {
        offset
    } else {
        let os = py.import("os")?;
        let at = os.call_method("lseek", [&py.number(fd.into())?, &py.number(0)?, &py.number(1)?]);
        at?.as_number()? as u64
    };
    let left = if let Some(count) = count {
        count
    } else {
        let facts = py.import("os")?.call_method("fstat", [&py.number(fd.into())?])?;
        let size = facts.attr_named("st_size")?.as_number()? as u64;
        size.saturating_sub(offset)
    };
    Ok(Span { file: Source::Descriptor(fd), offset, left })
}

/// Adds the headers of a message to the trailers; passes them to the exchange with the last message.
fn add_trailers(
    py: Python<'_>,
    http: &Http,
    state: &mut State,
    message: &Object<'_>,
) -> PyResult<()> {
    let headers = message.dict_item(&http.runtime.names.headers.get(py))?;
    let added = headers.map_or_else(|| Ok(Vec::new()), |headers| owned_headers(&headers))?;
    let Response::Trailers(all) = &mut state.response else { return Ok(()) };
    all.extend(added);
    let all = std::mem::take(all);
    let headers: Vec<Header<'_>> =
        all.iter().map(|(name, value)| Header::new(name, value)).collect();
    let set = state.open(py)?.trailers(&headers);
    set.map_err(|failure| state.raise(py, failure))?;
    state.response = Response::Trailers(all);
    Ok(())
}

/// Sends 103 with the links of a message (RFC 8297).
fn early_hint(
    py: Python<'_>,
    http: &Http,
    state: &mut State,
    message: &Object<'_>,
) -> PyResult<()> {
    let links = message.dict_item(&http.runtime.names.links.get(py))?;
    let links = required(py, links, "links")?.to_list()?;
    let mut values = Vec::new();
    for place in 0..links.list_len() {
        let link = links.list_item(place)?;
        let Some(bytes) = link.as_bytes() else {
            return Err(PyErrSet::new(py, Exception::Type, "a link must be bytes"));
        };
        values.push(bytes.to_vec());
    }
    let headers: Vec<Header<'_>> = values.iter().map(|value| Header::new("link", value)).collect();
    let sent = state.open(py)?.informational(103, &headers);
    sent.map_err(|failure| state.raise(py, failure))
}

/// Creates the error for a message that the protocol does not allow at this point.
#[cold]
fn unexpected(py: Python<'_>, kind: &str, state: &State) -> PyErrSet {
    let expected = match state.response {
        Response::Start => "expected http.response.start",
        Response::FirstBody { .. } | Response::Body { .. } => "expected http.response.body",
        Response::Trailers(_) => "expected http.response.trailers",
        Response::Nothing => "the response is complete",
    };
    let message = format!("unexpected ASGI message {kind:?}: {expected}");
    PyErrSet::new(py, Exception::Runtime, &message)
}

#[cold]
pub(crate) fn gone(py: Python<'_>) -> PyErrSet {
    PyErrSet::new(py, Exception::ConnectionReset, "the client has disconnected")
}

/// Creates the message `http.disconnect`.
fn disconnect<'py>(py: Python<'py>, runtime: &AsgiRuntime) -> PyResult<Step<'py>> {
    let message = py.dict()?;
    message.set_item(&runtime.names.kind.get(py), &py.name(b"http.disconnect")?)?;
    Ok(Step::Message(message))
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
