//! The methods of request objects that `driver.py` calls. They never block.

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
    Method { name: c"_send", entry: method!(send) },
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

/// `_send(data, at, what)`: sends `data` from the index `at` on, and returns the index up to which it was sent. If
/// that is not the end, the request's number is added to `woken()` when it makes sense to try again. `what` is 0
/// for the rest of the data of an earlier call, 1 for a part of the body. The excess of a part is dropped: once the
/// rest has been sent, the result is the length of `data` plus one.
fn send<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data, at, what] = arguments.take(["data", "at", "what"])?;
    let data = required(py, data, "data")?;
    let at = required(py, at, "at")?.as_number()? as usize;
    let what = required(py, what, "what")?.as_number()?;
    let runtime = request.runtime();
    let mut state = request.state(py)?;
    let bytes = prepare_part(py, &state, &data)?;
    let what = if what == 0 { Data::Rest } else { Data::Part };
    let sent = send_bytes(runtime, py, &mut state, bytes, at, what)?;
    py.number(sent as i64)
}

/// Waits in the greenlet of a request until the request's waker fires. The caller borrows nothing.
pub(crate) fn wait(me: &Object<'_>, request: &Request) -> PyResult<()> {
    let py = me.py();
    guest(py, request.runtime())?.wait.get(py).call([me]).map(drop)
}

/// Sends a part of the body; the greenlet of the request waits until all of it is sent.
pub(crate) fn send_all(me: &Object<'_>, request: &Request, bytes: &[u8]) -> PyResult<()> {
    let send_from = |at, what| {
        let mut state = request.state(me.py())?;
        send_bytes(request.runtime(), me.py(), &mut state, bytes, at, what)
    };
    let mut at = send_from(0, Data::Part)?;
    while at < bytes.len() {
        wait(me, request)?;
        at = send_from(at, Data::Rest)?;
    }
    Ok(())
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

/// `_send_file(fd, offset, length, first)`: sends a part of a file as `_send` sends bytes. Returns a pair: how many
/// bytes were sent, and how many there are to send. The first call passes the length of the whole file.
fn send_file<'py>(
    py: Python<'py>,
    request: &Request,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [fd, offset, length, first] = arguments.take(["fd", "offset", "length", "first"])?;
    let number_of = |argument, name| required(py, argument, name)?.as_number();
    let fd = number_of(fd, "fd")? as i32;
    let offset = number_of(offset, "offset")? as u64;
    let mut length = number_of(length, "length")? as u64;
    let runtime = request.runtime();
    let mut state = request.state(py)?;
    expect_start(py, state.response.phase)?;
    let number = state.number;
    let guest = guest(py, runtime)?;
    let (exchange, response) = state.open(py)?;
    let step = || -> Result<u64> {
        if first.is_some_and(|first| first.is_true()) {
            response.set_whole(length);
            length = response.begin_part(exchange, length)?;
        }
        if response.omits_body() {
            return Ok(length);
        }
        let mut sent = 0;
        while sent < length {
            let (from, rest) = (offset + sent, length - sent);
            match exchange.poll_send_file(fd, from, rest, Some(guest.waker(number))) {
                Step::Ready(n) => sent += n as u64,
                Step::Failed(failure) => return Err(failure),
                Step::Pending => break,
            }
        }
        Ok(sent)
    };
    let sent = step().map_err(|failure| state.raise(py, failure))?;
    py.tuple([py.number(sent as i64)?, py.number(length as i64)?])
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
