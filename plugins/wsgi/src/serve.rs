//! Serves a request by calling the application: the server side of PEP 3333, for worker classes without a guest
//! loop.

use std::cell::Cell;

use worker_api::{Exchange, Failure, Result, fork};

use crate::body::{Rest, close, send_list, send_other};
use crate::body_bytes::drop_left;
use crate::environ::Handles;
use crate::failure::{fail_request, unexpected};
use crate::request::{Request, RequestObjects, Requests};
use python::fault::{Fault, SavedFault};
use python::{Object, Python, attach_in_turn};

/// Serves a request.
pub(crate) fn serve(requests: &'static Requests, exchange: &mut Exchange) -> Result<()> {
    let rest = attach_in_turn(|py| {
        drop_left(py);
        let runtime = requests.runtime;
        if !ADOPTED.replace(true)
            && let Err(raised) = runtime.interpreter.helper(py, "adopt_thread", [])
        {
            return Err(unexpected(runtime, py, raised));
        }
        let objects = requests.take(py).map_err(|raised| unexpected(runtime, py, raised))?;
        let result = serve_with(requests, py, &objects, exchange);
        requests.recycle(py, objects);
        result
    })?;
    rest.send(exchange)
}

fn serve_with(
    requests: &Requests,
    py: Python<'_>,
    objects: &RequestObjects,
    exchange: &mut Exchange,
) -> Result<Rest> {
    let (runtime, types) = (requests.runtime, &requests.types);
    let object = objects.request.get(py);
    let internal = |raised| unexpected(runtime, py, raised);
    let request = types.request.value(&object).map_err(internal)?;
    objects.begin(py, types, runtime.next_number(), exchange.detach()).map_err(internal)?;
    let result = call_application(py, objects, request);
    if fork::is_child() {
        // A process that the application has forked. The exchange is the parent's, so its failures are
        // ignored.
        let raised = match result {
            Err(Fault::Exception(raised)) => Some(raised),
            _ => None,
        };
        runtime.interpreter.end_child(py, raised);
    }
    let result = result.or_else(|fault| fail_request(py, request, fault).map(|()| Rest::Nothing));
    if let Some(kept) = objects.end(py, types).map_err(internal)? {
        *exchange = kept;
    }
    result
}

/// Calls the application and sends its result, except for what needs no Python.
fn call_application(
    py: Python<'_>,
    objects: &RequestObjects,
    request: &Request,
) -> Result<Rest, Fault> {
    let runtime = request.runtime();
    let environ = environ_of(py, objects, request)?;
    let Some(application) = runtime.interpreter.application.get() else {
        return Err(Failure::application("the application is not loaded").into());
    };
    let result = application.get(py).call([&environ, &objects.start_response.get(py)])?;
    drop(environ);
    if fork::is_child() {
        return Ok(Rest::Nothing);
    }
    if request.state(py)?.is_taken() {
        request.log_variables(py);
        request.state(py)?.release(py)?;
        return Ok(Rest::Nothing);
    }
    if result.is_exact_list() {
        // A list has no `close`.
        return send_list(py, request, &result);
    }
    let sent = send_other(py, request, &result);
    // Python code must not run while an exception is set.
    let sent = sent.map_err(|fault| SavedFault::new(py, fault));
    if let Err(raised) = close(runtime, &result) {
        runtime.interpreter.report(py, raised, "error in close() of the response body");
    }
    sent.map_err(SavedFault::restore)
}

/// Creates the environ of a request.
pub(crate) fn environ_of<'py>(
    py: Python<'py>,
    objects: &RequestObjects,
    request: &Request,
) -> Result<Object<'py>, Fault> {
    let runtime = request.runtime();
    let mut state = request.state(py)?;
    let (exchange, _) = state.open(py)?;
    let handles = Handles {
        input: &objects.request.get(py),
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
        runtime.websocket(&environ, &objects.socket.get(py), &objects.request.get(py))?;
    }
    Ok(environ)
}

thread_local! {
    /// Whether this thread was registered with `adopt_thread()`.
    static ADOPTED: Cell<bool> = const { Cell::new(false) };
}
