//! The worker class's engine as a Python object, which the driver holds: its descriptor and its turns, and the requests
//! for greenlets.

use std::sync::Mutex;

use worker_api::Engine;

use super::methods::{end_request, guest, send_result};
use super::{Guest, locked};
use crate::failure::failure_of;
use crate::request::{Request, RequestObjects, Requests};
use crate::serve::environ_of;
use python::engine::LoopEngine;
use python::fault::Fault;
use python::method;
use python::{Arguments, Method, Native, NativeType, Object, PyResult, Python, required};

/// Runs the loop until the engine has stopped.
pub(crate) fn run<'py>(
    py: Python<'py>,
    requests: &'static Requests,
    engine: Engine,
    application: &Object<'py>,
) -> PyResult<()> {
    let running = Running { engine: LoopEngine::new(engine), requests };
    let engine = NativeType::new(py)?.make(py, running)?;
    guest(py, requests.runtime)?.run(&engine, application)
}

/// The value of the engine's object.
struct Running {
    engine: LoopEngine,
    requests: &'static Requests,
}

impl Native for Running {
    const NAME: &'static std::ffi::CStr = c"jimu.Engine";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"descriptor", entry: method!(descriptor) },
        Method { name: c"turn", entry: method!(turn) },
        Method { name: c"next", entry: method!(next) },
        Method { name: c"proceed", entry: method!(proceed) },
        Method { name: c"woken", entry: method!(woken) },
        Method { name: c"gone", entry: method!(gone) },
    ]];
}

/// `descriptor()` of the engine.
fn descriptor<'py>(
    py: Python<'py>,
    running: &Running,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(running.engine.get(py)?.descriptor().into())
}

/// `turn()` of the engine: returns whether the engine still runs.
fn turn<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    py.truth(running.engine.turn(py)?)
}

/// `next()`: returns the next exchange as its request object, the environ and `start_response`; `None` if none is
/// queued. A request for which no environ can be created is ended here.
fn next<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    next_of(py, running.requests)
}

fn next_of<'py>(py: Python<'py>, requests: &'static Requests) -> PyResult<Object<'py>> {
    let (runtime, types) = (requests.runtime, &requests.types);
    let guest = guest(py, runtime)?;
    loop {
        let Some(exchange) = locked(&guest.ready).pop_front() else {
            return Ok(py.none());
        };
        let objects = requests.take(py)?;
        objects.begin(py, types, runtime.next_number(), exchange)?;
        let object = objects.request.get(py).clone();
        let request = types.request.value(&object)?;
        match begin(py, guest, &objects, request) {
            Ok(environ) => {
                let start_response = objects.start_response.get(py).clone();
                request.state(py)?.objects = Some(objects);
                return py.tuple([object, environ, start_response]);
            }
            Err(fault) => {
                let failure = failure_of(py, request, fault);
                request.state(py)?.objects = Some(objects);
                end_request(py, request, Some(failure))?;
            }
        }
    }
}

/// `proceed(request, result, greenlet, references)`: sends an application's result as `_send_list` does. If that has
/// ended the request, and the request has left nothing behind in its greenlet, returns the next one as `next()` does.
/// Otherwise returns what `_send_list` returns.
fn proceed<'py>(
    py: Python<'py>,
    running: &Running,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [request, result, greenlet, references] =
        arguments.take(["request", "result", "greenlet", "references"])?;
    let request = required(py, request, "request")?;
    let request = running.requests.types.request.value(&request)?;
    let sent = send_result(py, request, &required(py, result, "result")?)?;
    if !sent.is_none() {
        return Ok(sent);
    }
    let greenlet = required(py, greenlet, "greenlet")?;
    let references = required(py, references, "references")?.as_number()?;
    if guest(py, running.requests.runtime)?.leftovers.are_none(&greenlet, references)? {
        return next_of(py, running.requests);
    }
    Ok(sent)
}

fn begin<'py>(
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
    environ_of(py, objects, request)
}

/// `woken()`: returns the numbers of requests whose wait is over.
fn woken<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    take_numbers(py, &guest(py, running.requests.runtime)?.woken)
}

/// `gone()`: returns the numbers of requests whose client has disconnected or whose deadline has passed.
fn gone<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    take_numbers(py, &guest(py, running.requests.runtime)?.gone)
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
