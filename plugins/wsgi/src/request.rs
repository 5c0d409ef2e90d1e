//! One request as seen by Python: the exchange, and the objects through which the application uses it.
//!
//! The objects are created once and reused for further requests, unless the application keeps them: creating four
//! Python objects costs more than the rest of a small request.

use std::os::fd::{IntoRawFd as _, RawFd};

use worker_api::{Exchange, Failure, FailureKind};

use crate::errors::Fault;
use crate::function;
use crate::guest;
use crate::input::Input;
use crate::python::{
    Arguments, Cell, Exception, Function, GlobalRef, Native, Object, PyErrSet, PyResult, Python,
    required,
};
use crate::response::{Phase, Response, is_text, is_token, trimmed};
use crate::runtime::PythonRuntime;

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
    write: Option<GlobalRef>,
    /// Socket object of the connection, if the application asked for one.
    socket: Option<GlobalRef>,
    /// Whether the application has read or written on that socket.
    taken: bool,
    /// Whether the application's WSGI response is discarded.
    pub(crate) detached: bool,
    /// Whether the exchange has handed the connection over.
    hijacked: bool,
}

impl Request {
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
    fn take_over(&mut self, py: Python<'_>) -> PyResult<Option<RawFd>> {
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
            // The application's socket has a descriptor of its own, a duplicate.
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
        if let Ok(false) = sent {
            PythonRuntime::get().warn_of_excess();
        }
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

impl Native for Request {
    const NAME: &'static std::ffi::CStr = c"jimu.Input";
    const METHODS: &'static [&'static [Function]] = &[
        &[
            Function { name: c"read", entry: function!(crate::input::read) },
            Function { name: c"readline", entry: function!(crate::input::readline) },
            Function { name: c"readlines", entry: function!(crate::input::readlines) },
            Function { name: c"_take_over", entry: function!(take_over) },
            Function { name: c"_detach", entry: function!(detach) },
        ],
        guest::METHODS,
    ];
    const ITERATES: bool = true;

    fn end(self, py: Python<'_>) {
        if let Some(mut state) = self.0.borrow(py) {
            let State { write, socket, environ, .. } = std::mem::take(&mut *state);
            drop([write, socket, environ].map(|object| object.map(|object| object.take(py))));
        }
    }

    fn next<'py>(&self, me: &Object<'py>) -> PyResult<Option<Object<'py>>> {
        match self.state(me.py())?.line(me.py(), usize::MAX)? {
            Some(line) if line.len()? > 0 => Ok(Some(line)),
            _ => Ok(None),
        }
    }
}

/// The Python object that is `gunicorn.socket`. It creates the socket when it is first used: few applications use
/// it, and creating one costs as much as a small request.
pub(crate) struct Socket {
    /// The [`Request`].
    owner: GlobalRef,
}

impl Native for Socket {
    const NAME: &'static std::ffi::CStr = c"jimu.Socket";
    const METHODS: &'static [&'static [Function]] = &[];
    const HAS_ATTRIBUTES: bool = true;

    fn end(self, py: Python<'_>) {
        drop(self.owner.take(py));
    }

    fn attribute<'py>(&self, me: &Object<'py>, name: &Object<'py>) -> PyResult<Object<'py>> {
        let py = me.py();
        if name.as_str()?.starts_with("__") {
            // `isinstance` and similar functions read these; that is not a use of the socket.
            return me.own_attr(name);
        }
        let owner = self.owner.get(py);
        let request = PythonRuntime::get().types.request.value(&owner)?;
        let made = request.state(py)?.socket.as_ref().map(|socket| socket.get(py).clone());
        match made {
            Some(socket) => socket.attr(name),
            None => connection(py, &owner, request)?.attr(name),
        }
    }
}

/// Creates the socket for the connection of a request; a closed one after the request.
#[cold]
fn connection<'py>(
    py: Python<'py>,
    owner: &Object<'py>,
    request: &Request,
) -> PyResult<Object<'py>> {
    let module = PythonRuntime::get().socket_module(py)?;
    let facts = match &request.state(py)?.exchange {
        None => return module.call_method("Closed", []),
        Some(exchange) => {
            let tls = exchange.head().tls.into_option().map(|tls| {
                let text = |text: &str| py.latin1(text.as_bytes());
                let certificate = py.bytes(tls.client_certificate.as_slice());
                Ok([text(&tls.protocol)?, text(&tls.cipher)?, certificate?])
            });
            (py.number(exchange.descriptor().into())?, tls.transpose()?)
        }
    };
    let made = match facts {
        (fd, None) => module.call_method("Connection", [owner, &fd])?,
        (fd, Some([protocol, cipher, certificate])) => {
            let arguments = [owner, &fd, &protocol, &cipher, &certificate];
            module.call_method("TlsConnection", arguments)?
        }
    };
    request.state(py)?.socket = Some(made.clone().store());
    Ok(made)
}

/// `_take_over()`: the application uses the connection directly. Returns the descriptor for that; `None` if it is
/// the connection's.
fn take_over<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let descriptor = PythonRuntime::get().types.request.value(me)?.state(py)?.take_over(py)?;
    descriptor.map_or_else(|| Ok(py.none()), |fd| py.number(fd.into()))
}

/// `_detach()`: discards the application's WSGI response from here on.
fn detach<'py>(py: Python<'py>, me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    PythonRuntime::get().types.request.value(me)?.state(py)?.detached = true;
    Ok(py.none())
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
    pub(crate) fn new(py: Python<'_>, runtime: &PythonRuntime) -> PyResult<Self> {
        let types = &runtime.types;
        let request = types.request.make(py, Request(Cell::new(State::default())))?;
        let (input, write) = match &runtime.guest {
            Some(guest) => {
                let input = guest.input(py, &request)?;
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
        runtime: &PythonRuntime,
        exchange: Exchange,
    ) -> PyResult<()> {
        let request = self.request.get(py);
        let mut state = runtime.types.request.value(&request)?.state(py)?;
        state.response.begin(exchange.head().method.as_str() == "HEAD");
        state.input.begin(exchange.head().content_length.into_option());
        state.number = runtime.next_number();
        state.descriptor = exchange.descriptor();
        state.failure = None;
        (state.taken, state.detached, state.hijacked) = (false, false, false);
        state.exchange = Some(exchange);
        Ok(())
    }

    /// Detaches the exchange: the application must not use these objects any more.
    pub(crate) fn end(
        &self,
        py: Python<'_>,
        runtime: &PythonRuntime,
    ) -> PyResult<Option<Exchange>> {
        let request = self.request.get(py);
        let mut state = runtime.types.request.value(&request)?.state(py)?;
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
    pub(crate) fn release(self, py: Python<'_>, runtime: &PythonRuntime) {
        let request = self.request.take(py);
        let write = runtime
            .types
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

/// `start_response(status, headers, exc_info=None)`, bound to the request.
pub(crate) fn start_response<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [status, headers, exc_info] = arguments.take(["status", "headers", "exc_info"])?;
    let status = required(py, status, "status")?;
    let headers = required(py, headers, "headers")?;
    let request = PythonRuntime::get().types.request.value(me)?;
    let exc_info = exc_info.filter(|info| !info.is_none());
    let phase = request.state(py)?.response.phase;
    match (phase, exc_info) {
        (Phase::Ended, _) => {
            let message = "start_response() called after the request ended";
            return Err(PyErrSet::new(py, Exception::Runtime, message));
        }
        (Phase::Sent, Some(info)) => return Err(raise_again(py, &info)?),
        (Phase::Started | Phase::Sent, None) => {
            let message = "start_response() called again without exc_info";
            return Err(PyErrSet::new(py, Exception::Assertion, message));
        }
        (Phase::NotStarted, _) | (Phase::Started, Some(_)) => {}
    }
    let result = set_head(py, &mut request.state(py)?.response, &status, &headers);
    let mut state = request.state(py)?;
    if let Err(raised) = result {
        state.response.phase = Phase::NotStarted;
        return Err(raised);
    }
    state.response.phase = Phase::Started;
    match &state.write {
        Some(write) => Ok(write.get(py).clone()),
        None => Ok(py.none()),
    }
}

fn set_head<'py>(
    py: Python<'py>,
    response: &mut Response,
    status: &Object<'py>,
    headers: &Object<'py>,
) -> PyResult<()> {
    let refused = |refused: crate::response::Refused| {
        PyErrSet::new(py, Exception::Value, &refused.to_string())
    };
    response.forget();
    response.set_status(text(status, "the status")?).map_err(refused)?;
    each_header(headers, |name, value| response.add(name, value).map_err(refused))
}

/// Calls `with` for each header of a list of pairs.
fn each_header(
    headers: &Object<'_>,
    mut with: impl FnMut(&str, &[u8]) -> PyResult<()>,
) -> PyResult<()> {
    let headers = headers.to_list()?;
    for place in 0..headers.list_len() {
        let item = headers.list_item(place)?;
        let (name, value) = item.pair().map_or_else(|| loose_pair(&item), Ok)?;
        if !value.is_exact_str() {
            text(&value, "a header's value")?;
        }
        with(text(&name, "a header's name")?, value.as_latin1()?.bytes())?;
    }
    Ok(())
}

/// Converts a pair that is not a tuple: a list of two, as some frameworks use.
#[cold]
fn loose_pair<'py>(pair: &Object<'py>) -> PyResult<(Object<'py>, Object<'py>)> {
    let items = pair.to_list()?;
    if items.list_len() != 2 {
        let message = "a header must be a pair of name and value";
        return Err(PyErrSet::new(pair.py(), Exception::Type, message));
    }
    Ok((items.list_item(0)?, items.list_item(1)?))
}

fn text<'a>(object: &'a Object<'_>, what: &str) -> PyResult<&'a str> {
    object.as_str().map_err(|raised| {
        let py = object.py();
        raised.clear(py);
        let message = format!("{what} must be str, not {}", object.type_name());
        PyErrSet::new(py, Exception::Type, &message)
    })
}

/// Sets the exception of an `exc_info` again: the head has been sent, so it cannot be replaced.
#[cold]
fn raise_again<'py>(py: Python<'py>, info: &Object<'py>) -> PyResult<PyErrSet> {
    let (kind, value, trace) = (info.tuple_item(0)?, info.tuple_item(1)?, info.tuple_item(2)?);
    let trace = Some(trace).filter(|trace| !trace.is_none());
    Ok(PyErrSet::again(py, kind, value, trace))
}

/// `write(data)`, bound to the request: returned by `start_response`.
pub(crate) fn write<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data] = arguments.take(["data"])?;
    let data = required(py, data, "data")?;
    let request = PythonRuntime::get().types.request.value(me)?;
    let mut state = request.state(py)?;
    if state.response.phase == Phase::NotStarted {
        return Err(PyErrSet::new(py, Exception::Assertion, "write() before start_response()"));
    }
    let bytes = data.as_bytes().ok_or_else(|| not_bytes(&data, "the argument of write()"))?;
    state.check_room(py, bytes.len())?;
    state.send(py, bytes)?;
    Ok(py.none())
}

/// Creates the `TypeError` for a part of a body that is not `bytes`.
#[cold]
pub(crate) fn not_bytes(object: &Object<'_>, what: &str) -> PyErrSet {
    let message = format!("{what} must be bytes, not {}", object.type_name());
    PyErrSet::new(object.py(), Exception::Type, &message)
}

/// `wsgi.early_hints(headers)`, bound to the request: sends 103 (RFC 8297), unless the response has started.
pub(crate) fn early_hints<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [headers] = arguments.take(["headers"])?;
    let headers = required(py, headers, "headers")?.to_list()?;
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    for place in 0..headers.list_len() {
        let pair = headers.list_item(place)?;
        let (name, value) = pair.pair().map_or_else(|| loose_pair(&pair), Ok)?;
        let (name, value) = (bytes_of(&name)?, bytes_of(&value)?);
        if name.is_empty()
            || !name.iter().all(|b| is_token(*b))
            || !value.iter().all(|b| is_text(*b))
        {
            let message = format!("Invalid header {:?}", String::from_utf8_lossy(&name));
            return Err(PyErrSet::new(py, Exception::Value, &message));
        }
        fields.push((String::from_utf8_lossy(&name).into_owned(), trimmed(&value).to_vec()));
    }
    let request = PythonRuntime::get().types.request.value(me)?;
    let mut state = request.state(py)?;
    let (exchange, response) = state.open(py)?;
    if response.phase == Phase::Sent {
        return Ok(py.none());
    }
    let headers: Vec<_> = fields.iter().map(|(n, v)| worker_api::Header::new(n, v)).collect();
    match py.detach(|| exchange.informational(103, &headers)) {
        Ok(()) => Ok(py.none()),
        Err(failure) => Err(state.raise(py, failure)),
    }
}

fn bytes_of(object: &Object<'_>) -> PyResult<Vec<u8>> {
    if let Some(bytes) = object.as_bytes() {
        return Ok(bytes.to_vec());
    }
    text(object, "a header")?;
    Ok(object.as_latin1()?.bytes().to_vec())
}

/// References: from [`RequestObjects`]; from `start_response`, `early_hints` and the socket; and from `write`, or
/// under a guest loop from `wsgi.input`.
const REFERENCES_TO_REQUEST: u32 = 5;
/// References: from [`RequestObjects`], and from `write`, which is a bound method.
const REFERENCES_TO_INPUT: u32 = 2;
/// References: from [`RequestObjects`], and from the request.
const REFERENCES_TO_WRITE: u32 = 2;
