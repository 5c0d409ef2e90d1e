//! The functions that `driver.py` calls: those of the engine and of request objects.
//!
//! Python calls them without a reference to the runtime, so each of them gets it from [`PythonRuntime::get`].

use std::sync::Mutex;
use std::thread;

use worker_api::{Failure, FailureKind, Result, Step};

use super::{Guest, Running, locked};
use crate::errors::Fault;
use crate::function;
use crate::python::{
    Arguments, Exception, Function, Native, Object, PyErrSet, PyResult, Python, required,
};
use crate::request::{Request, RequestObjects, State};
use crate::runtime::PythonRuntime;
use crate::serve::{
    environ_of, expect_start, fail_request, failure_of, finish, prepare_part, set_whole,
};

/// Returns `next`, `woken` and `gone` for the driver.
pub(crate) fn for_driver(py: Python<'_>) -> PyResult<[Object<'_>; 3]> {
    Ok([
        Function { name: c"next", entry: function!(next) }.make(py)?,
        Function { name: c"woken", entry: function!(woken) }.make(py)?,
        Function { name: c"gone", entry: function!(gone) }.make(py)?,
    ])
}

impl Native for Running {
    const NAME: &'static std::ffi::CStr = c"jimu.Engine";
    const METHODS: &'static [&'static [Function]] = &[&[
        Function { name: c"descriptor", entry: function!(descriptor) },
        Function { name: c"turn", entry: function!(turn) },
    ]];
}

fn guest<'a>(py: Python<'_>, runtime: &'a PythonRuntime) -> PyResult<&'a Guest> {
    let guest = runtime.guest.as_ref();
    guest.ok_or_else(|| PyErrSet::new(py, Exception::Runtime, "this process has no guest loop"))
}

impl Running {
    fn of<'a>(me: &'a Object<'_>) -> PyResult<&'a Self> {
        let running = guest(me.py(), PythonRuntime::get())?.engines.value(me)?;
        if thread::current().id() == running.thread {
            Ok(running)
        } else {
            Err(PyErrSet::new(me.py(), Exception::Runtime, "the engine belongs to another thread"))
        }
    }
}

/// `descriptor()` of the engine.
fn descriptor<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(Running::of(me)?.engine.descriptor().into())
}

/// `turn()` of the engine: returns whether the engine still runs.
fn turn<'py>(py: Python<'py>, me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let engine = &Running::of(me)?.engine;
    match engine.turn() {
        Ok(()) => py.truth(!engine.stopped()),
        Err(failure) => Err(PyErrSet::new(py, Exception::Runtime, &failure.to_string())),
    }
}

/// `next()`: returns the next exchange as its request object, the environ and `start_response`; `None` if none is
/// queued. A request for which no environ can be created is ended here.
fn next<'py>(py: Python<'py>, _me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let runtime = PythonRuntime::get();
    let guest = guest(py, runtime)?;
    loop {
        let Some(exchange) = locked(&guest.ready).pop_front() else {
            return Ok(py.none());
        };
        let objects = runtime.request_objects(py)?;
        objects.begin(py, &runtime.types, runtime.next_number(), exchange)?;
        let object = objects.request.get(py).clone();
        let request = runtime.types.request.value(&object)?;
        match begin(runtime, py, guest, &objects, request) {
            Ok(environ) => {
                let start_response = objects.start_response.get(py).clone();
                request.state(py)?.objects = Some(objects);
                return py.tuple([object, environ, start_response]);
            }
            Err(fault) => {
                let failure = failure_of(runtime, py, request, fault);
                request.state(py)?.objects = Some(objects);
                end_request(runtime, py, request, Some(failure))?;
            }
        }
    }
}

fn begin<'py>(
    runtime: &PythonRuntime,
    py: Python<'py>,
    guest: &Guest,
    objects: &RequestObjects,
    request: &Request,
) -> Result<Object<'py>, Fault> {
    let mut state = request.state(py)?;
    let number = state.number;
    let (exchange, _) = state.open(py)?;
    if exchange.deadline_ns().is_some() {
        exchange.on_disconnect(guest.gone_waker(number))?;
    }
    drop(state);
    environ_of(runtime, py, objects, request)
}

/// `woken()`: returns the numbers of requests whose wait is over.
fn woken<'py>(py: Python<'py>, _me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    take_numbers(py, &guest(py, PythonRuntime::get())?.woken)
}

/// `gone()`: returns the numbers of requests whose client has disconnected or whose deadline has passed.
fn gone<'py>(py: Python<'py>, _me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    take_numbers(py, &guest(py, PythonRuntime::get())?.gone)
}

/// Empties a list and returns its contents; `None` if it was empty.
fn take_numbers<'py>(py: Python<'py>, list: &Mutex<Vec<u64>>) -> PyResult<Object<'py>> {
    let numbers = std::mem::take(&mut *locked(list));
    if numbers.is_empty() {
        return Ok(py.none());
    }
    let numbers = numbers.into_iter().map(|number| py.number(number as i64));
    py.list(numbers.collect::<PyResult<Vec<_>>>()?)
}

/// Methods of a request object that the driver calls.
pub(crate) const METHODS: &[Function] = &[
    Function { name: c"_number", entry: function!(number) },
    Function { name: c"_descriptor", entry: function!(descriptor_of) },
    Function { name: c"_is_over", entry: function!(is_over) },
    Function { name: c"_send", entry: function!(send) },
    Function { name: c"_send_list", entry: function!(send_list) },
    Function { name: c"_send_file", entry: function!(send_file) },
    Function { name: c"_finish", entry: function!(finish_request) },
    Function { name: c"_hijack", entry: function!(hijack) },
    Function { name: c"_end", entry: function!(end) },
];

fn request<'a>(runtime: &PythonRuntime, me: &'a Object<'_>) -> PyResult<&'a Request> {
    runtime.types.request.value(me)
}

/// `_number()`: returns the request's number, as it appears in [`woken`] and [`gone`].
fn number<'py>(py: Python<'py>, me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    py.number(request(PythonRuntime::get(), me)?.state(py)?.number as i64)
}

/// `_descriptor()`: returns the descriptor of the request's connection, also after the request.
fn descriptor_of<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(request(PythonRuntime::get(), me)?.state(py)?.descriptor.into())
}

/// `_is_over()`: returns whether the request's deadline has passed.
fn is_over<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let deadline = request(PythonRuntime::get(), me)?.state(py)?.open(py)?.0.deadline_ns();
    py.truth(deadline.is_some_and(|deadline| deadline <= now_ns()))
}

/// `CLOCK_MONOTONIC` in nanoseconds.
fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the variable is local, and every Linux has the clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `_send(data, at, what)`: sends `data` from the index `at` on, and returns the index up to which it was sent. If
/// that is not the end, the request's number is added to `woken()` when it makes sense to try again. `what` is 0
/// for the rest of the data of an earlier call, 1 for a part of the body, 2 for the data of `write()`, which must
/// fit into `Content-Length`. The excess of a part is dropped: once the rest has been sent, the result is the
/// length of `data` plus one.
fn send<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [data, at, what] = arguments.take(["data", "at", "what"])?;
    let data = required(py, data, "data")?;
    let at = required(py, at, "at")?.as_number()? as usize;
    let what = required(py, what, "what")?.as_number()?;
    let runtime = PythonRuntime::get();
    let mut state = request(runtime, me)?.state(py)?;
    let bytes = prepare_part(py, &state, &data)?;
    let what = match what {
        0 => Data::Rest,
        1 => Data::Part,
        _ => {
            state.check_room(py, bytes.len())?;
            Data::Part
        }
    };
    let sent = send_bytes(runtime, py, &mut state, bytes, at, what)?;
    py.number(sent as i64)
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
/// else.
fn send_list<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [result] = arguments.take(["result"])?;
    let result = required(py, result, "result")?;
    if !result.is_exact_list() {
        return py.truth(false);
    }
    let runtime = PythonRuntime::get();
    let request = request(runtime, me)?;
    if request.state(py)?.is_taken() {
        runtime.log_variables(py, request);
        request.state(py)?.release(py)?;
        end_request(runtime, py, request, None)?;
        return Ok(py.none());
    }
    let mut state = request.state(py)?;
    if result.list_len() != 1 {
        set_whole(&mut state.response, &result)?;
        return py.truth(false);
    }
    let data = result.list_item(0)?;
    let bytes = prepare_part(py, &state, &data)?;
    let sent = send_bytes(runtime, py, &mut state, bytes, 0, Data::Whole)?;
    if sent < bytes.len() {
        return py.number(sent as i64);
    }
    drop(state);
    finish(runtime, py, request).or_else(|fault| Err(request.state(py)?.raise_fault(py, fault)))?;
    end_request(runtime, py, request, None)?;
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
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [fd, offset, length, first] = arguments.take(["fd", "offset", "length", "first"])?;
    let number_of = |argument, name| required(py, argument, name)?.as_number();
    let fd = number_of(fd, "fd")? as i32;
    let offset = number_of(offset, "offset")? as u64;
    let mut length = number_of(length, "length")? as u64;
    let runtime = PythonRuntime::get();
    let mut state = request(runtime, me)?.state(py)?;
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
    me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let runtime = PythonRuntime::get();
    let request = request(runtime, me)?;
    match finish(runtime, py, request) {
        Ok(()) => Ok(py.none()),
        Err(fault) => Err(request.state(py)?.raise_fault(py, fault)),
    }
}

/// `_hijack()`: the application has responded on the socket directly.
fn hijack<'py>(py: Python<'py>, me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let runtime = PythonRuntime::get();
    let request = request(runtime, me)?;
    runtime.log_variables(py, request);
    request.state(py)?.release(py)?;
    Ok(py.none())
}

/// `_end(exception)`: ends the request, successfully if there is no exception.
fn end<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [exception] = arguments.take(["exception"])?;
    let exception = exception.filter(|exception| !exception.is_none());
    let runtime = PythonRuntime::get();
    let request = request(runtime, me)?;
    let failure = exception.and_then(|exception| {
        let fault: Fault = match exception.type_name().as_str() {
            "GreenletExit" => {
                Failure::new(FailureKind::INTERRUPTED, "the greenlet was killed").into()
            }
            "RequestTimeout" => Failure::new(FailureKind::TIMEOUT, "the deadline passed").into(),
            _ => PyErrSet::restore(&exception).into(),
        };
        fail_request(runtime, py, request, fault).err()
    });
    end_request(runtime, py, request, failure)?;
    Ok(py.none())
}

/// Ends a request and defers the reuse of its objects.
fn end_request(
    runtime: &PythonRuntime,
    py: Python<'_>,
    request: &Request,
    failure: Option<Failure>,
) -> PyResult<()> {
    let Some(objects) = request.state(py)?.objects.take() else { return Ok(()) };
    let exchange = objects.end(py, &runtime.types)?;
    if let (Some(mut exchange), Some(failure)) = (exchange, failure) {
        exchange.fail(failure);
    }
    // CPython still holds a reference for this call, so the objects are not free before it returns.
    runtime.defer_recycling(py, objects);
    Ok(())
}
