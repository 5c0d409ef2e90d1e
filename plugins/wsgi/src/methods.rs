//! The methods of request objects, as called by Python: `wsgi.input`, `start_response`, `write`, `wsgi.early_hints` and
//! `gunicorn.socket`. The request that they are bound to refers to the state of the process.

use worker_api::Header;

use crate::guest;
use crate::request::{Request, Socket, State, Types, not_bytes};
use crate::response::{Phase, Refused, Response, is_text, is_token, trimmed};
use python::method;
use python::{
    Arguments, Definition, Exception, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, required,
};

/// Creates the types and functions.
pub(crate) fn types(py: Python<'_>) -> PyResult<Types> {
    let define = |name, entry| Definition::new(&Method { name, entry });
    Ok(Types {
        request: NativeType::new(py)?,
        socket: NativeType::new(py)?,
        start_response: define(c"start_response", method!(start_response)),
        write: define(c"write", method!(write)),
        early_hints: define(c"early_hints", method!(early_hints)),
    })
}

impl Native for Request {
    const NAME: &'static std::ffi::CStr = c"jimu.Input";
    const METHODS: &'static [&'static [Method<Self>]] = &[
        &[
            Method { name: c"read", entry: method!(read) },
            Method { name: c"readline", entry: method!(readline) },
            Method { name: c"readlines", entry: method!(readlines) },
            Method { name: c"_take_over", entry: method!(take_over) },
            Method { name: c"_detach", entry: method!(detach) },
        ],
        guest::methods::METHODS,
    ];
    const ITERATES: bool = true;

    fn end(self, py: Python<'_>) {
        self.drop_references(py);
    }

    fn next<'py>(&self, me: &Object<'py>) -> PyResult<Option<Object<'py>>> {
        let line = next_line(me, self, usize::MAX)?;
        let is_end = line.length()? == 0;
        Ok((!is_end).then_some(line))
    }
}

impl Native for Socket {
    const NAME: &'static std::ffi::CStr = c"jimu.Socket";
    const METHODS: &'static [&'static [Method<Self>]] = &[];
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
        let request = self.types.request.value(&owner)?;
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
    let module = request.runtime().socket_module(py)?;
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
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let descriptor = request.state(py)?.take_over(py)?;
    descriptor.map_or_else(|| Ok(py.none()), |fd| py.number(fd.into()))
}

/// `_detach()`: discards the application's WSGI response from here on.
fn detach<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    request.state(py)?.detached = true;
    Ok(py.none())
}

/// `read(size=-1)`
fn read<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [size] = arguments.take(["size"])?;
    let size = limit(size)?;
    waiting(&arguments.bound_to(), request, |state| state.take(py, request.runtime(), size))
}

/// `readline(size=-1)`
fn readline<'py>(
    _: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [size] = arguments.take(["size"])?;
    next_line(&arguments.bound_to(), request, limit(size)?)
}

/// `readlines(hint=-1)`: whole lines, until their total length is at least `hint`.
fn readlines<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [hint] = arguments.take(["hint"])?;
    let hint = Some(limit(hint)?).filter(|hint| *hint > 0).unwrap_or(usize::MAX);
    let (mut lines, mut sum) = (Vec::new(), 0);
    while sum < hint {
        let line = next_line(&arguments.bound_to(), request, usize::MAX)?;
        let len = line.length()?;
        if len == 0 {
            break;
        }
        sum += len;
        lines.push(line);
    }
    py.list(lines)
}

/// Returns the next line, or `limit` bytes of it; empty at the end of the body.
fn next_line<'py>(me: &Object<'py>, request: &Request, limit: usize) -> PyResult<Object<'py>> {
    waiting(me, request, |state| state.line(me.py(), request.runtime(), limit))
}

/// Calls `read` until it returns something. In between, the greenlet of a guest loop waits, and borrows nothing.
fn waiting<'py>(
    me: &Object<'py>,
    request: &Request,
    mut read: impl FnMut(&mut State) -> PyResult<Option<Object<'py>>>,
) -> PyResult<Object<'py>> {
    let py = me.py();
    loop {
        let read = read(&mut *request.state(py)?)?;
        match read {
            Some(read) => return Ok(read),
            None => guest::methods::wait(me, request)?,
        }
    }
}

/// Converts a size as Python's files do: `None` and negative mean "all".
fn limit(size: Option<Object<'_>>) -> PyResult<usize> {
    match size.filter(|size| !size.is_none()) {
        Some(size) => Ok(usize::try_from(size.as_number()?).unwrap_or(usize::MAX)),
        None => Ok(usize::MAX),
    }
}

/// `start_response(status, headers, exc_info=None)`, bound to the request.
fn start_response<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [status, headers, exc_info] = arguments.take(["status", "headers", "exc_info"])?;
    let status = required(py, status, "status")?;
    let headers = required(py, headers, "headers")?;
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
    let refused = |refused: Refused| PyErrSet::new(py, Exception::Value, &refused.to_string());
    response.forget();
    response.set_status(text(status, "the status")?).map_err(refused)?;
    each_header(headers, |name, value| response.add(name, value).map_err(refused))
}

/// Calls `with` for each header of a list of pairs.
fn each_header(
    headers: &Object<'_>,
    mut with: impl FnMut(&str, &[u8]) -> PyResult<()>,
) -> PyResult<()> {
    headers.each_pair(NOT_A_PAIR, |name, value| {
        if !value.is_exact_str() {
            text(value, "a header's value")?;
        }
        with(text(name, "a header's name")?, value.as_latin1()?.bytes())
    })
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
fn write<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data] = arguments.take(["data"])?;
    let data = required(py, data, "data")?;
    let mut state = request.state(py)?;
    if state.response.phase == Phase::NotStarted {
        return Err(PyErrSet::new(py, Exception::Assertion, "write() before start_response()"));
    }
    let bytes = data.as_bytes().ok_or_else(|| not_bytes(&data, "the argument of write()"))?;
    state.check_room(py, bytes.len())?;
    if request.runtime().guest.is_some() {
        drop(state);
        guest::methods::send_all(&arguments.bound_to(), request, bytes)?;
    } else {
        state.send(py, bytes)?;
    }
    Ok(py.none())
}

/// `wsgi.early_hints(headers)`, bound to the request: sends 103 (RFC 8297), unless the response has started.
fn early_hints<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [headers] = arguments.take(["headers"])?;
    let headers = required(py, headers, "headers")?;
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    headers.each_pair(NOT_A_PAIR, |name, value| {
        let (name, value) = (bytes_of(name)?, bytes_of(value)?);
        if name.is_empty()
            || !name.iter().all(|b| is_token(*b))
            || !value.iter().all(|b| is_text(*b))
        {
            let message = format!("Invalid header {:?}", String::from_utf8_lossy(&name));
            return Err(PyErrSet::new(py, Exception::Value, &message));
        }
        fields.push((String::from_utf8_lossy(&name).into_owned(), trimmed(&value).to_vec()));
        Ok(())
    })?;
    let mut state = request.state(py)?;
    let (exchange, response) = state.open(py)?;
    if response.phase == Phase::Sent {
        return Ok(py.none());
    }
    let headers: Vec<_> = fields.iter().map(|(n, v)| Header::new(n, v)).collect();
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

/// Why headers are refused that are no pairs.
const NOT_A_PAIR: &str = "a header must be a pair of name and value";
