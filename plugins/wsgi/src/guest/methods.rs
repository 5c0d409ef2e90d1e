//! The methods of request objects that `driver.py` calls. Those that send parts of a body, a file, or the rest of a list
//! let the greenlet of the request wait, and borrow nothing then. The others never block.

use worker_api::{Failure, FailureKind, Result, Step, fork};

use super::Guest;
use crate::body::{expect_start, finish, prepare_part, set_whole};
use crate::failure::fail_request;
use crate::request::{Request, State};
use crate::runtime::PythonRuntime;
use python::clock::now_ns;
use python::fault::Fault;
use python::method;
use python::{Arguments, Exception, Method, Object, PyErrSet, PyResult, Python, required};

/// Methods of a request object that the driver calls.
pub(crate) const METHODS: &[Method<Request>] = &[
    Method { name: c"_number", entry: method!(number) },
    Method { name: c"_descriptor", entry: method!(descriptor_of) },
    Method { name: c"_is_over", entry: method!(is_over) },
    Method { name: c"_send_part", entry: method!(send_part) },
    Method { name: c"_send_rest", entry: method!(send_rest) },
    Method { name: c"_send_list", entry: method!(send_list) },
    Method { name: c"_send_file", entry: method!(send_file) },
    Method { name: c"_finish", entry: method!(finish_request) },
    Method { name: c"_hijack", entry: method!(hijack) },
    Method { name: c"_end", entry: method!(end) },
];

/// `_number()`: returns the request's number, as it appears in `woken()` and `gone()`.
fn number<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(request.state(py)?.number as i64)
}

/// `_descriptor()`: returns the descriptor of the request's connection, also after the request.
fn descriptor_of<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(request.state(py)?.descriptor.into())
}

/// `_is_over()`: returns whether the request's deadline has passed.
fn is_over<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let deadline = request.state(py)?.open(py)?.0.deadline_ns();
    py.truth(deadline.is_some_and(|deadline| deadline <= now_ns()))
}

/// `_send_part(data)`: sends a part of the body. Returns whether `Content-Length` left room for all of it: the excess is
/// dropped.
fn send_part<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data] = arguments.take(["data"])?;
    let data = required(py, data, "data")?;
    let bytes = prepare_part(py, &*request.state(py)?, &data)?;
    py.truth(send_all(&arguments.bound_to(), request, bytes)? == bytes.len())
}

/// `_send_rest(data, sent)`: sends the rest of the data whose first `sent` bytes `_send_list` has sent.
fn send_rest<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data, sent] = arguments.take(["data", "sent"])?;
    let data = required(py, data, "data")?;
    let bytes = prepare_part(py, &*request.state(py)?, &data)?;
    let sent = required(py, sent, "sent")?.as_number()? as usize;
    send_from(&arguments.bound_to(), request, bytes, sent)?;
    Ok(py.none())
}

/// Waits in the greenlet of a request until the request's waker fires. The caller borrows nothing.
pub(crate) fn wait(me: &Object<'_>, request: &Request) -> PyResult<()> {
    let py = me.py();
    guest(py, request.runtime())?.wait.get(py).call([me]).map(drop)
}

/// Sends a part of the body; the greenlet of the request waits until all of it is sent. Returns the number of bytes sent,
/// as [`send_bytes`] does.
pub(crate) fn send_all(me: &Object<'_>, request: &Request, bytes: &[u8]) -> PyResult<usize> {
    let (py, runtime) = (me.py(), request.runtime());
    let sent = send_bytes(runtime, py, &mut *request.state(py)?, bytes, 0, Data::Part)?;
    send_from(me, request, bytes, sent)
}

/// Sends the rest of a part, from `at` on, each time its waker has fired.
fn send_from(me: &Object<'_>, request: &Request, bytes: &[u8], mut at: usize) -> PyResult<usize> {
    let (py, runtime) = (me.py(), request.runtime());
    while at < bytes.len() {
        if let Err(raised) = wait(me, request) {
            request.state(py)?.response.leave_gap();
            return Err(raised);
        }
        at = send_bytes(runtime, py, &mut *request.state(py)?, bytes, at, Data::Rest)?;
    }
    Ok(at)
}

/// Kind of data to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Rest,
    Part,
    Whole,
}

/// `_send_list(result)`: if the application returned a list of one item, sends the item and ends the request.
/// Returns `None` then; the number of bytes sent if that is not all of them; `False` if `result` is anything
/// else, and in a process that the application has forked.
fn send_list<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [result] = arguments.take(["result"])?;
    send_result(py, request, &required(py, result, "result")?)
}

/// See [`send_list`].
pub(super) fn send_result<'py>(
    py: Python<'py>,
    request: &Request,
    result: &Object<'py>,
) -> PyResult<Object<'py>> {
    if fork::is_child() || !result.is_exact_list() {
        return py.truth(false);
    }
    let runtime = request.runtime();
    if request.state(py)?.is_taken() {
        request.log_variables(py);
        request.state(py)?.release(py)?;
        end_request(py, request, None)?;
        return Ok(py.none());
    }
    let mut state = request.state(py)?;
    if result.list_len() != 1 {
        set_whole(&mut state.response, result)?;
        return py.truth(false);
    }
    let data = result.list_item(0)?;
    let bytes = prepare_part(py, &state, &data)?;
    let sent = send_bytes(runtime, py, &mut state, bytes, 0, Data::Whole)?;
    if sent < bytes.len() {
        return py.number(sent as i64);
    }
    drop(state);
    finish(py, request).or_else(|fault| Err(request.state(py)?.raise_fault(py, fault)))?;
    end_request(py, request, None)?;
    Ok(py.none())
}

/// Sends bytes from the index `at` on, and returns the index up to which they were sent. If that is not the end, the
/// request's number is added to `woken()` when it makes sense to try again. The excess of a part is dropped: once the rest
/// has been sent, the result is the length of `bytes` plus one.
fn send_bytes(
    runtime: &PythonRuntime,
    py: Python<'_>,
    state: &mut State,
    bytes: &[u8],
    at: usize,
    what: Data,
) -> PyResult<usize> {
    if state.detached {
        return Ok(bytes.len());
    }
    let number = state.number;
    let guest = guest(py, runtime)?;
    let State { exchange: Some(exchange), response, part_end, .. } = state else {
        return Err(PyErrSet::new(py, Exception::Runtime, "the request has ended"));
    };
    let mut step = || -> Result<usize> {
        if what != Data::Rest {
            if bytes.is_empty() && what == Data::Part && !response.is_switch() {
                return Ok(0);
            }
            if what == Data::Whole {
                response.set_whole(bytes.len() as u64);
            }
            *part_end = response.begin_part(exchange, bytes.len() as u64)? as usize;
        }
        if response.omits_body() {
            return Ok(bytes.len());
        }
        let mut at = at;
        while let Some(rest) = bytes.get(at..*part_end).filter(|rest| !rest.is_empty()) {
            match exchange.poll_write(rest, None) {
                Step::Ready(n) => at += n,
                Step::Failed(failure) => return Err(failure),
                Step::Pending => match exchange.poll_write(rest, Some(guest.waker(number))) {
                    Step::Ready(n) => at += n,
                    Step::Failed(failure) => return Err(failure),
                    Step::Pending => return Ok(at),
                },
            }
        }
        if *part_end < bytes.len() {
            runtime.warn_of_excess();
            return Ok(bytes.len() + 1);
        }
        Ok(at)
    };
    step().map_err(|failure| state.raise(py, failure))
}

/// `_send_file(fd, offset, length)`: sends a part of a file as the whole body.
fn send_file<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [fd, offset, length] = arguments.take(["fd", "offset", "length"])?;
    let number_of = |argument, name| required(py, argument, name)?.as_number();
    let fd = number_of(fd, "fd")? as i32;
    let offset = number_of(offset, "offset")? as u64;
    let length = begin_file(py, request, number_of(length, "length")? as u64)?;
    let mut sent = 0;
    while sent < length {
        match send_of_file(py, request, fd, offset + sent, length - sent)? {
            Some(count) => sent += count,
            None => wait(&arguments.bound_to(), request)?,
        }
    }
    Ok(py.none())
}

/// Sends the head before a file of that length. Returns how many of its bytes are to be sent.
fn begin_file(py: Python<'_>, request: &Request, length: u64) -> PyResult<u64> {
    let mut state = request.state(py)?;
    expect_start(py, state.response.phase)?;
    let (exchange, response) = state.open(py)?;
    response.set_whole(length);
    match response.begin_part(exchange, length) {
        Ok(_) if response.omits_body() => Ok(0),
        Ok(room) => Ok(room),
        Err(failure) => Err(state.raise(py, failure)),
    }
}

/// Sends bytes of a file, and returns how many; `None` if the request's waker will fire when it makes sense to try again.
fn send_of_file(
    py: Python<'_>,
    request: &Request,
    fd: i32,
    from: u64,
    length: u64,
) -> PyResult<Option<u64>> {
    let mut state = request.state(py)?;
    let waker = guest(py, request.runtime())?.waker(state.number);
    match state.open(py)?.0.poll_send_file(fd, from, length, Some(waker)) {
        Step::Ready(count) => Ok(Some(count as u64)),
        Step::Pending => Ok(None),
        Step::Failed(failure) => Err(state.raise(py, failure)),
    }
}

/// `_finish()`: ends a complete body.
fn finish_request<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    match finish(py, request) {
        Ok(()) => Ok(py.none()),
        Err(fault) => Err(request.state(py)?.raise_fault(py, fault)),
    }
}

/// `_hijack()`: the application has responded on the socket directly.
fn hijack<'py>(
    py: Python<'py>,
    request: &Request,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    request.log_variables(py);
    request.state(py)?.release(py)?;
    Ok(py.none())
}

/// `_end(exception)`: ends the request, successfully if there is no exception.
fn end<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [exception] = arguments.take(["exception"])?;
    let exception = exception.filter(|exception| !exception.is_none());
    let failure = exception.and_then(|exception| {
        let fault: Fault = match exception.type_name().as_str() {
            "GreenletExit" => {
                Failure::new(FailureKind::INTERRUPTED, "the greenlet was killed").into()
            }
            "RequestTimeout" => Failure::new(FailureKind::TIMEOUT, "the deadline passed").into(),
            _ => PyErrSet::restore(&exception).into(),
        };
        fail_request(py, request, fault).err()
    });
    end_request(py, request, failure)?;
    Ok(py.none())
}

/// Ends a request and defers the reuse of its objects.
pub(super) fn end_request(
    py: Python<'_>,
    request: &Request,
    failure: Option<Failure>,
) -> PyResult<()> {
    let Some(objects) = request.state(py)?.objects.take() else { return Ok(()) };
    let exchange = objects.end(py, &request.requests.types)?;
    if let (Some(mut exchange), Some(failure)) = (exchange, failure) {
        exchange.fail(failure);
    }
    // CPython still holds a reference for this call, so the objects are not free before it returns.
    request.requests.defer_recycling(py, objects);
    Ok(())
}

/// Returns the guest loop of this process.
pub(super) fn guest<'a>(py: Python<'_>, runtime: &'a PythonRuntime) -> PyResult<&'a Guest> {
    let guest = runtime.guest.as_ref();
    guest.ok_or_else(|| PyErrSet::new(py, Exception::Runtime, "this process has no guest loop"))
}
