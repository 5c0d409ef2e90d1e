//! Serves a request by calling the application: the server side of PEP 3333, for classes that wait by themselves.

use std::cell::Cell;
use std::slice;

use worker_api::{Exchange, Failure, FailureKind, LogLevel, Result, fork};

use crate::bridge::Bridge;
use crate::environ::Handles;
use crate::errors::{Fault, is_outside};
use crate::process;
use crate::python::{Object, PyResult, Python, Raised, Stored, attach};
use crate::request::{Request, Slot, State, not_octets};
use crate::response::{Phase, Response};

/// Serves a request.
pub(crate) fn serve(bridge: &Bridge, exchange: &mut Exchange) -> Result<()> {
    let rest = attach(|py| {
        drop_left(py);
        if !ADOPTED.replace(true)
            && let Err(raised) = bridge.helper(py, "adopt_thread", [])
        {
            return Err(unexpected(bridge, py, raised));
        }
        let slot = bridge.slot(py).map_err(|raised| unexpected(bridge, py, raised))?;
        let answered = with_slot(bridge, py, &slot, exchange);
        bridge.give_back(py, slot);
        answered
    })?;
    // The rest needs no Python: other threads can take the lock.
    let Some(body) = rest else { return Ok(()) };
    let sent = exchange.write(body.octets()).and_then(|()| exchange.finish());
    body.leave();
    sent
}

fn with_slot(
    bridge: &Bridge,
    py: Python<'_>,
    slot: &Slot,
    exchange: &mut Exchange,
) -> Result<Option<Octets>> {
    let object = slot.request.get(py);
    let internal = |raised| unexpected(bridge, py, raised);
    let request = bridge.types.request.value(&object).map_err(internal)?;
    slot.begin(py, bridge, exchange.keep()).map_err(internal)?;
    let answered = answer(bridge, py, slot, request);
    if fork::is_child() {
        // Cleaning up is up to the parent. It is a fault of the server if it does not.
        let raised = match answered {
            Err(Fault::Raised(raised)) => Some(raised),
            _ => None,
        };
        process::end_child(py, &bridge.process, raised);
    }
    let answered = answered.or_else(|fault| settle(bridge, py, request, fault).map(|()| None));
    if let Some(kept) = slot.end(py, bridge).map_err(internal)? {
        *exchange = kept;
    }
    answered
}

/// Calls the application and sends its result. A body in one piece is returned instead; the head has then been
/// passed to the exchange, so that it can be sent without the interpreter's lock.
fn answer(
    bridge: &Bridge,
    py: Python<'_>,
    slot: &Slot,
    request: &Request,
) -> Result<Option<Octets>, Fault> {
    let environ = environ_of(bridge, py, slot, request)?;
    let Some(application) = bridge.application.get() else {
        return Err(Failure::application("the application is not loaded").into());
    };
    let result = application.get(py).call([&environ, &slot.start_response.get(py)])?;
    drop(environ);
    if fork::is_child() {
        return Ok(None);
    }
    if request.state(py)?.is_taken() {
        bridge.log_variables(py, request);
        request.state(py)?.release(py)?;
        return Ok(None);
    }
    if result.is_exact_list() {
        // A list has no `close`.
        return send_list(bridge, py, request, &result);
    }
    let sent = send_other(bridge, py, request, &result);
    // Python code must not run while an error is set.
    let sent = sent.map_err(|fault| Taken::new(py, fault));
    if let Err(raised) = close(bridge, &result) {
        bridge.report(py, raised, "Error in close() of what the application returned");
    }
    sent.map(|()| None).map_err(Taken::back)
}

/// A fault whose exception is not set while other code runs.
enum Taken<'py> {
    Raised(Object<'py>),
    Failed(Failure),
}

impl<'py> Taken<'py> {
    fn new(py: Python<'py>, fault: Fault) -> Self {
        match fault {
            Fault::Raised(raised) => Self::Raised(raised.take(py)),
            Fault::Failed(failure) => Self::Failed(failure),
        }
    }

    fn back(self) -> Fault {
        match self {
            Self::Raised(exception) => Raised::restore(&exception).into(),
            Self::Failed(failure) => failure.into(),
        }
    }
}

/// Creates the environ of a request.
pub(crate) fn environ_of<'py>(
    bridge: &Bridge,
    py: Python<'py>,
    slot: &Slot,
    request: &Request,
) -> Result<Object<'py>, Fault> {
    let mut state = request.state(py)?;
    let (exchange, _) = state.open(py)?;
    let handles = Handles {
        input: &slot.wsgi_input().get(py),
        early_hints: &slot.early_hints.get(py),
        socket: &slot.socket.get(py),
        proxied: exchange.is_proxied(),
    };
    let (environ, upgrade) = bridge.with_environs(py, |environs, constants| {
        (environs.make(py, constants, exchange.head(), &handles), environs.is_upgrade())
    })?;
    let environ = environ?;
    if bridge.logs_variables(py)? {
        state.environ = Some(environ.clone().store());
    }
    if upgrade && bridge.offers_websocket {
        bridge.websocket(py, &environ, slot)?;
    }
    Ok(environ)
}

/// Sends a list, usually of one item.
fn send_list(
    bridge: &Bridge,
    py: Python<'_>,
    request: &Request,
    list: &Object<'_>,
) -> Result<Option<Octets>, Fault> {
    if list.list_len() == 1 {
        let item = list.list_item(0)?;
        let mut octets = Octets::new(item)?;
        bridge.log_variables(py, request);
        let mut state = request.state(py)?;
        expect_start(py, state.response.phase)?;
        let (exchange, response) = state.open(py)?;
        if response.phase == Phase::Said {
            let len = octets.octets().len() as u64;
            response.set_whole(len);
            let fits = response.begin_part(exchange, len)?;
            if fits < len {
                bridge.warn_of_excess();
                octets.truncate(fits);
            }
            return Ok(if response.omits_body() {
                exchange.finish()?;
                None
            } else {
                Some(octets)
            });
        }
        // After `write()`: one part more.
        state.send(py, octets.octets())?;
        drop(state);
        octets.leave();
    } else {
        set_whole(&mut request.state(py)?.response, list)?;
        for place in 0.. {
            if place >= list.list_len() || !send_part(py, request, &list.list_item(place)?)? {
                break;
            }
        }
    }
    finish(bridge, py, request)?;
    Ok(None)
}

/// Sets the total length of a body in several parts. A part that is not `bytes` is refused later, when it would
/// be sent.
pub(crate) fn set_whole(response: &mut Response, list: &Object<'_>) -> PyResult<()> {
    let mut sum = 0;
    for place in 0..list.list_len() {
        match list.list_item(place)?.as_octets() {
            Some(part) => sum += part.len() as u64,
            None => return Ok(()),
        }
    }
    response.set_whole(sum);
    Ok(())
}

/// Sends any other return value of an application.
fn send_other(
    bridge: &Bridge,
    py: Python<'_>,
    request: &Request,
    result: &Object<'_>,
) -> Result<(), Fault> {
    if result.is(&bridge.already_handled.get(py)) {
        bridge.log_variables(py, request);
        return Ok(request.state(py)?.release(py)?);
    }
    if result.is_exactly(&bridge.file_wrapper.get(py)) && send_file(bridge, py, request, result)? {
        return finish(bridge, py, request);
    }
    let parts = result.iterator()?;
    while let Some(part) = parts.next()? {
        if fork::is_child() {
            return Ok(());
        }
        if !send_part(py, request, &part)? {
            break;
        }
    }
    finish(bridge, py, request)
}

/// Returns the bytes of a body part, if it is one and `start_response` was called before.
pub(crate) fn prepare_part<'a>(
    py: Python<'_>,
    state: &State,
    part: &'a Object<'_>,
) -> PyResult<&'a [u8]> {
    expect_start(py, state.response.phase)?;
    part.as_octets().ok_or_else(|| not_octets(part, "the application"))
}

/// Sends a part of the body; false if no more of it is to be sent.
fn send_part(py: Python<'_>, request: &Request, part: &Object<'_>) -> PyResult<bool> {
    let mut state = request.state(py)?;
    let octets = prepare_part(py, &state, part)?;
    state.send(py, octets)
}

/// Sends a `wsgi.file_wrapper` of a plain file without reading it; false if it must be read.
fn send_file(
    bridge: &Bridge,
    py: Python<'_>,
    request: &Request,
    wrapper: &Object<'_>,
) -> Result<bool, Fault> {
    let span = bridge.helper(py, "file_span", [wrapper])?;
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

/// The body is complete: sends what was not sent and ends the exchange if it matches what was announced.
pub(crate) fn finish(bridge: &Bridge, py: Python<'_>, request: &Request) -> Result<(), Fault> {
    bridge.log_variables(py, request);
    let mut state = request.state(py)?;
    if state.is_taken() {
        return Ok(state.release(py)?);
    }
    expect_start(py, state.response.phase)?;
    let (exchange, response) = state.open(py)?;
    response.complete()?;
    response.set_whole(0);
    response.send_head(exchange)?;
    if bridge.guest.is_some() {
        // Nothing blocks here: releasing the lock would cost more.
        exchange.finish()?;
    } else {
        py.detach(|| exchange.finish())?;
    }
    Ok(())
}

/// Raises `AssertionError` if `start_response` was not called.
pub(crate) fn expect_start(py: Python<'_>, phase: Phase) -> PyResult<()> {
    if phase == Phase::Nothing {
        let message = "the application sent its body before it called start_response";
        return Err(Raised::new(py, crate::python::Exception::Assertion, message));
    }
    Ok(())
}

/// Calls `close` if there is one (PEP 3333: always, and once).
fn close(bridge: &Bridge, result: &Object<'_>) -> PyResult<()> {
    if result.is_exact_tuple() {
        return Ok(());
    }
    let py = result.py();
    match result.attr(&bridge.close.get(py)) {
        Ok(close) => close.call([]).map(drop),
        Err(raised) => {
            raised.clear(py);
            Ok(())
        }
    }
}

/// Ends a request whose application failed: with its failure, unless it had taken the connection over. An error
/// response would then follow what it has sent.
#[cold]
pub(crate) fn settle(
    bridge: &Bridge,
    py: Python<'_>,
    request: &Request,
    fault: Fault,
) -> Result<()> {
    let fault = Taken::new(py, fault);
    bridge.log_variables(py, request);
    match request.state(py) {
        Ok(mut state) if state.is_touched() => {
            let head = state.exchange.as_ref().map(Exchange::head);
            let what = match head.filter(|head| !head.method.is_empty()) {
                Some(head) => format!("{} {}", head.method, head.path.as_slice().escape_ascii()),
                None => "request".to_owned(),
            };
            let released = state.release(py);
            drop(state);
            if let Err(raised) = released {
                raised.clear(py);
            }
            match fault {
                Taken::Raised(exception) if exception.type_name() == "StopIteration" => {
                    let message = "the application took the connection over, and is done with it";
                    bridge.host.log(LogLevel::DEBUG, "wsgi", &format!("{what}: {message}"));
                }
                Taken::Raised(exception) => {
                    let doing =
                        format!("{what}: error on a connection that the application took over");
                    bridge.report(py, Raised::restore(&exception), &doing);
                }
                Taken::Failed(failure) => {
                    let late = failure.kind == FailureKind::TIMEOUT;
                    let level = if late { LogLevel::WARNING } else { LogLevel::DEBUG };
                    bridge.host.log(level, "wsgi", &format!("{what}: {failure}"));
                }
            }
            return Ok(());
        }
        Ok(_) => {}
        Err(raised) => raised.clear(py),
    }
    Err(failed(bridge, py, request, fault.back()))
}

/// Returns the failure that ends the exchange, with the traceback if an error of the application is the reason:
/// the worker class logs both as one record.
#[cold]
pub(crate) fn failed(bridge: &Bridge, py: Python<'_>, request: &Request, fault: Fault) -> Failure {
    let earlier = match request.state(py) {
        Ok(mut state) => state.failure.take(),
        Err(raised) => {
            raised.clear(py);
            None
        }
    };
    match (fault, earlier) {
        (Fault::Failed(failure), earlier) => earlier.unwrap_or(failure),
        // The application let the exception for this failure through.
        (Fault::Raised(raised), Some(failure)) if is_outside(&failure) => {
            raised.clear(py);
            failure
        }
        (Fault::Raised(raised), _) => told(bridge, py, FailureKind::APPLICATION, raised),
    }
}

/// Creates a failure for a Python error that only a lack of memory explains.
#[cold]
fn unexpected(bridge: &Bridge, py: Python<'_>, raised: Raised) -> Failure {
    told(bridge, py, FailureKind::OTHER, raised)
}

/// Converts an exception to a failure, with the traceback for the log.
fn told(bridge: &Bridge, py: Python<'_>, kind: FailureKind, raised: Raised) -> Failure {
    let (line, traceback) = bridge.describe(py, raised);
    let failure = Failure::new(kind, line);
    // Without frames of the application it adds nothing.
    if traceback.trim_end() == failure.message.as_str() {
        failure
    } else {
        failure.with_detail(traceback)
    }
}

/// A `bytes` object whose contents are used while detached: they never change, and live as long as this.
struct Octets {
    owner: Stored,
    pointer: *const u8,
    len: usize,
}

// SAFETY: see `octets`; the owner is only released on an attached thread.
unsafe impl Send for Octets {}

impl Octets {
    fn new(object: Object<'_>) -> PyResult<Self> {
        let Some(octets) = object.as_octets() else {
            return Err(not_octets(&object, "the application"));
        };
        let (pointer, len) = (octets.as_ptr(), octets.len());
        Ok(Self { owner: object.store(), pointer, len })
    }

    /// Drops everything after the first `len` bytes.
    fn truncate(&mut self, len: u64) {
        self.len = self.len.min(len as usize);
    }

    fn octets(&self) -> &[u8] {
        // SAFETY: the memory of a `bytes`, which is never written to again and is kept alive by `owner`.
        unsafe { slice::from_raw_parts(self.pointer, self.len) }
    }

    /// Leaves the object to this thread's next request, or drops it at once if it is large.
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

/// Drops what the last request of this thread left.
fn drop_left(py: Python<'_>) {
    if let Some(left) = LEFT.take() {
        drop(left.take(py));
    }
}

thread_local! {
    /// The body of the last response: dropping it takes the interpreter's lock, which the next request has
    /// anyway.
    static LEFT: Cell<Option<Stored>> = const { Cell::new(None) };
    /// Whether Python knows that this thread belongs to the worker.
    static ADOPTED: Cell<bool> = const { Cell::new(false) };
}

/// Maximum size of a body that is kept until then.
const LEFT_MAX: usize = 64 * 1024;
