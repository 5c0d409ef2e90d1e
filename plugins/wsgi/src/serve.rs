//! Serves a request by calling the application: the server side of PEP 3333, for worker classes without a guest
//! loop.

use std::cell::Cell;
use std::slice;

use worker_api::{Exchange, Failure, FailureKind, LogLevel, Result, fork};

use crate::environ::Handles;
use crate::errors::{Fault, is_outside};
use crate::process;
use crate::python::{GlobalRef, Object, PyErrSet, PyResult, Python, attach};
use crate::request::{Request, RequestObjects, State, not_bytes};
use crate::response::{Phase, Response};
use crate::runtime::PythonRuntime;

/// Serves a request.
pub(crate) fn serve(runtime: &PythonRuntime, exchange: &mut Exchange) -> Result<()> {
    let rest = attach(|py| {
        drop_left(py);
        if !ADOPTED.replace(true)
            && let Err(raised) = runtime.helper(py, "adopt_thread", [])
        {
            return Err(unexpected(runtime, py, raised));
        }
        let objects =
            runtime.request_objects(py).map_err(|raised| unexpected(runtime, py, raised))?;
        let result = serve_with(runtime, py, &objects, exchange);
        runtime.recycle(py, objects);
        result
    })?;
    // Sending the rest needs no Python: other threads can take the lock.
    let Some(body) = rest else { return Ok(()) };
    let sent = exchange.write(body.bytes()).and_then(|()| exchange.finish());
    body.leave();
    sent
}

fn serve_with(
    runtime: &PythonRuntime,
    py: Python<'_>,
    objects: &RequestObjects,
    exchange: &mut Exchange,
) -> Result<Option<Bytes>> {
    let object = objects.request.get(py);
    let internal = |raised| unexpected(runtime, py, raised);
    let request = runtime.types.request.value(&object).map_err(internal)?;
    objects
        .begin(py, &runtime.types, runtime.next_number(), exchange.detach())
        .map_err(internal)?;
    let result = call_application(runtime, py, objects, request);
    if fork::is_child() {
        // A process that the application has forked. The exchange is the parent's, so its failures are
        // ignored.
        let raised = match result {
            Err(Fault::Exception(raised)) => Some(raised),
            _ => None,
        };
        process::end_child(runtime, py, raised);
    }
    let result = result.or_else(|fault| fail_request(runtime, py, request, fault).map(|()| None));
    if let Some(kept) = objects.end(py, &runtime.types).map_err(internal)? {
        *exchange = kept;
    }
    result
}

/// Calls the application and sends its result. A body in one piece is returned instead, after the head was passed
/// to the exchange: it can be sent without the interpreter's lock.
fn call_application(
    runtime: &PythonRuntime,
    py: Python<'_>,
    objects: &RequestObjects,
    request: &Request,
) -> Result<Option<Bytes>, Fault> {
    let environ = environ_of(runtime, py, objects, request)?;
    let Some(application) = runtime.application.get() else {
        return Err(Failure::application("the application is not loaded").into());
    };
    let result = application.get(py).call([&environ, &objects.start_response.get(py)])?;
    drop(environ);
    if fork::is_child() {
        return Ok(None);
    }
    if request.state(py)?.is_taken() {
        runtime.log_variables(py, request);
        request.state(py)?.release(py)?;
        return Ok(None);
    }
    if result.is_exact_list() {
        // A list has no `close`.
        return send_list(runtime, py, request, &result);
    }
    let sent = send_other(runtime, py, request, &result);
    // Python code must not run while an exception is set.
    let sent = sent.map_err(|fault| SavedFault::new(py, fault));
    if let Err(raised) = close(runtime, &result) {
        runtime.report(py, raised, "error in close() of the response body");
    }
    sent.map(|()| None).map_err(SavedFault::restore)
}

/// A fault whose exception is taken, so that other code can run.
enum SavedFault<'py> {
    Exception(Object<'py>),
    Failure(Failure),
}

impl<'py> SavedFault<'py> {
    fn new(py: Python<'py>, fault: Fault) -> Self {
        match fault {
            Fault::Exception(raised) => Self::Exception(raised.take(py)),
            Fault::Failure(failure) => Self::Failure(failure),
        }
    }

    fn restore(self) -> Fault {
        match self {
            Self::Exception(exception) => PyErrSet::restore(&exception).into(),
            Self::Failure(failure) => failure.into(),
        }
    }
}

/// Creates the environ of a request.
pub(crate) fn environ_of<'py>(
    runtime: &PythonRuntime,
    py: Python<'py>,
    objects: &RequestObjects,
    request: &Request,
) -> Result<Object<'py>, Fault> {
    let mut state = request.state(py)?;
    let (exchange, _) = state.open(py)?;
    let handles = Handles {
        input: &objects.wsgi_input().get(py),
        early_hints: &objects.early_hints.get(py),
        socket: &objects.socket.get(py),
        proxied: exchange.is_proxied(),
    };
    let (environ, upgrade) = runtime.with_environ_builder(py, |environs, constants| {
        (environs.make(py, constants, exchange.head(), &handles), environs.is_upgrade())
    })?;
    let environ = environ?;
    if runtime.logs_variables(py)? {
        state.environ = Some(environ.clone().store());
    }
    if upgrade && runtime.offers_websocket {
        runtime.websocket(py, &environ, objects)?;
    }
    Ok(environ)
}

/// Sends a list, usually of one item.
fn send_list(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    list: &Object<'_>,
) -> Result<Option<Bytes>, Fault> {
    if list.list_len() == 1 {
        let item = list.list_item(0)?;
        let mut bytes = Bytes::new(item)?;
        runtime.log_variables(py, request);
        let mut state = request.state(py)?;
        expect_start(py, state.response.phase)?;
        let (exchange, response) = state.open(py)?;
        if response.phase == Phase::Started {
            let len = bytes.bytes().len() as u64;
            response.set_whole(len);
            let fits = response.begin_part(exchange, len)?;
            if fits < len {
                runtime.warn_of_excess();
                bytes.truncate(fits);
            }
            return Ok(if response.omits_body() {
                exchange.finish()?;
                None
            } else {
                Some(bytes)
            });
        }
        // After `write()`: one more part.
        send(runtime, py, &mut state, bytes.bytes())?;
        drop(state);
        bytes.leave();
    } else {
        set_whole(&mut request.state(py)?.response, list)?;
        for place in 0.. {
            if place >= list.list_len()
                || !send_part(runtime, py, request, &list.list_item(place)?)?
            {
                break;
            }
        }
    }
    finish(runtime, py, request)?;
    Ok(None)
}

/// Sets the length of a body in several parts. A part that is not `bytes` is refused when it would be sent.
pub(crate) fn set_whole(response: &mut Response, list: &Object<'_>) -> PyResult<()> {
    let mut sum = 0;
    for place in 0..list.list_len() {
        match list.list_item(place)?.as_bytes() {
            Some(part) => sum += part.len() as u64,
            None => return Ok(()),
        }
    }
    response.set_whole(sum);
    Ok(())
}

/// Sends any other return value of an application.
fn send_other(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    result: &Object<'_>,
) -> Result<(), Fault> {
    if result.is(&runtime.already_handled.get(py)) {
        runtime.log_variables(py, request);
        return Ok(request.state(py)?.release(py)?);
    }
    let file_wrapper = runtime.constants.file_wrapper.get(py);
    if result.is_exactly(&file_wrapper) && send_file(runtime, py, request, result)? {
        return finish(runtime, py, request);
    }
    let parts = result.iterator()?;
    while let Some(part) = parts.next()? {
        if fork::is_child() {
            return Ok(());
        }
        if !send_part(runtime, py, request, &part)? {
            break;
        }
    }
    finish(runtime, py, request)
}

/// Returns the bytes of a body part; an error if it is not `bytes` or `start_response` was not called.
pub(crate) fn prepare_part<'a>(
    py: Python<'_>,
    state: &State,
    part: &'a Object<'_>,
) -> PyResult<&'a [u8]> {
    expect_start(py, state.response.phase)?;
    part.as_bytes().ok_or_else(|| not_bytes(part, "a part of the response body"))
}

/// Sends a part of the body; returns false if no more of the body is to be sent.
fn send_part(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    part: &Object<'_>,
) -> PyResult<bool> {
    let mut state = request.state(py)?;
    let bytes = prepare_part(py, &state, part)?;
    send(runtime, py, &mut state, bytes)
}

/// Like [`State::send`], and logs a warning if the bytes exceed `Content-Length`.
fn send(
    runtime: &PythonRuntime,
    py: Python<'_>,
    state: &mut State,
    bytes: &[u8],
) -> PyResult<bool> {
    let sent = state.send(py, bytes)?;
    if !sent {
        runtime.warn_of_excess();
    }
    Ok(sent)
}

/// Sends a `wsgi.file_wrapper` of a plain file without reading it; returns false if the file must be read.
fn send_file(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    wrapper: &Object<'_>,
) -> Result<bool, Fault> {
    let span = runtime.helper(py, "file_span", [wrapper])?;
    if span.is_none() {
        return Ok(false);
    }
    let number = |place| span.tuple_item(place)?.as_number();
    let (fd, offset, len) = (number(0)? as i32, number(1)? as u64, number(2)? as u64);
    let mut state = request.state(py)?;
    expect_start(py, state.response.phase)?;
    let (exchange, response) = state.open(py)?;
    response.set_whole(len);
    let len = response.begin_part(exchange, len)?;
    if len > 0 && !response.omits_body() {
        let sent = py.detach(|| exchange.send_file(fd, offset, len));
        sent.map_err(|failure| state.raise(py, failure))?;
    }
    Ok(true)
}

/// Ends a complete body: sends the head if nothing was sent, and ends the exchange if the body matches its
/// `Content-Length`.
pub(crate) fn finish(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
) -> Result<(), Fault> {
    runtime.log_variables(py, request);
    let mut state = request.state(py)?;
    if state.is_taken() {
        return Ok(state.release(py)?);
    }
    expect_start(py, state.response.phase)?;
    let (exchange, response) = state.open(py)?;
    response.complete()?;
    response.set_whole(0);
    response.send_head(exchange)?;
    if runtime.guest.is_some() {
        // The exchange does not block here: releasing the lock would cost more.
        exchange.finish()?;
    } else {
        py.detach(|| exchange.finish())?;
    }
    Ok(())
}

/// Raises `AssertionError` if `start_response` was not called.
pub(crate) fn expect_start(py: Python<'_>, phase: Phase) -> PyResult<()> {
    if phase == Phase::NotStarted {
        let message = "the application must call start_response() before it sends the body";
        return Err(PyErrSet::new(py, crate::python::Exception::Assertion, message));
    }
    Ok(())
}

/// Calls `close` if there is one (PEP 3333: always, and once).
fn close(runtime: &PythonRuntime, result: &Object<'_>) -> PyResult<()> {
    if result.is_exact_tuple() {
        return Ok(());
    }
    let py = result.py();
    match result.attr(&runtime.close.get(py)) {
        Ok(close) => close.call([]).map(drop),
        Err(raised) => {
            raised.clear(py);
            Ok(())
        }
    }
}

/// Ends a request whose application failed. The exchange fails, unless the application has used the connection
/// directly: an error response would follow what it has sent.
#[cold]
pub(crate) fn fail_request(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    fault: Fault,
) -> Result<()> {
    let fault = SavedFault::new(py, fault);
    runtime.log_variables(py, request);
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
    Err(failure_of(runtime, py, request, fault.restore()))
}

/// Returns the failure that ends the exchange. If an error of the application is the reason, it has the traceback:
/// the worker class logs both as one record.
#[cold]
pub(crate) fn failure_of(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    fault: Fault,
) -> Failure {
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
        (Fault::Exception(raised), _) => to_failure(runtime, py, FailureKind::APPLICATION, raised),
    }
}

/// Creates a failure for an unexpected Python error, such as a lack of memory.
#[cold]
fn unexpected(runtime: &PythonRuntime, py: Python<'_>, raised: PyErrSet) -> Failure {
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

/// A `bytes` object whose contents are used while detached: they never change and live as long as this value.
struct Bytes {
    owner: GlobalRef,
    pointer: *const u8,
    len: usize,
}

// SAFETY: see `bytes`; the owner is released only on an attached thread.
unsafe impl Send for Bytes {}

impl Bytes {
    fn new(object: Object<'_>) -> PyResult<Self> {
        let Some(bytes) = object.as_bytes() else {
            return Err(not_bytes(&object, "a part of the response body"));
        };
        let (pointer, len) = (bytes.as_ptr(), bytes.len());
        Ok(Self { owner: object.store(), pointer, len })
    }

    /// Drops everything after the first `len` bytes.
    fn truncate(&mut self, len: u64) {
        self.len = self.len.min(len as usize);
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the memory of a `bytes`, which is never written to again and is kept alive by `owner`.
        unsafe { slice::from_raw_parts(self.pointer, self.len) }
    }

    /// Leaves the object to this thread's next request; drops it at once if it is large.
    fn leave(self) {
        let large = self.len > LEFT_MAX;
        let before = LEFT.replace(Some(self.owner));
        if large || before.is_some() {
            attach(|py| {
                drop(before.map(|object| object.take(py)));
                if large {
                    drop_left(py);
                }
            });
        }
    }
}

/// Drops the body that the last request of this thread left.
fn drop_left(py: Python<'_>) {
    if let Some(left) = LEFT.take() {
        drop(left.take(py));
    }
}

thread_local! {
    /// The body of the last response. Dropping it needs the interpreter's lock, which the next request takes
    /// anyway.
    static LEFT: Cell<Option<GlobalRef>> = const { Cell::new(None) };
    /// Whether this thread was registered with `adopt_thread()`.
    static ADOPTED: Cell<bool> = const { Cell::new(false) };
}

/// Maximum length of a body that is left to the next request.
const LEFT_MAX: usize = 64 * 1024;
