//! Sends the body that an application has returned (PEP 3333).
//!
//! Acquiring the interpreter's lock again means waiting for the requests of other threads. So what remains to be done
//! without Python is returned as a [`Rest`], for the time when the thread has released the lock for good.

use worker_api::{Exchange, fork};

use crate::body_bytes::Bytes;
use crate::request::{Request, State, not_bytes};
use crate::response::{Phase, Response};
use crate::runtime::PythonRuntime;
use python::fault::Fault;
use python::{Exception, Object, PyErrSet, PyResult, Python};

/// What remains of a response when Python is no longer needed.
pub(crate) enum Rest {
    /// Nothing: the exchange has ended, or belongs to the application.
    Nothing,
    /// The end of the exchange.
    End,
    /// The whole body, and the end of the exchange. The head was passed to the exchange.
    Body(Bytes),
}

impl Rest {
    /// Completes the response.
    pub(crate) fn send(self, exchange: &mut Exchange) -> worker_api::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::End => exchange.finish(),
            Self::Body(body) => {
                let sent = exchange.write(body.bytes()).and_then(|()| exchange.finish());
                body.leave();
                sent
            }
        }
    }
}

/// Sends a list, usually of one item.
pub(crate) fn send_list(
    py: Python<'_>,
    request: &Request,
    list: &Object<'_>,
) -> Result<Rest, Fault> {
    if list.list_len() == 1 {
        let item = list.list_item(0)?;
        let mut bytes = Bytes::new(item)?;
        request.log_variables(py);
        let mut state = request.state(py)?;
        expect_start(py, state.response.phase)?;
        let (exchange, response) = state.open(py)?;
        if response.phase == Phase::Started {
            let len = bytes.bytes().len() as u64;
            response.set_whole(len);
            let fits = response.begin_part(exchange, len)?;
            if fits < len {
                request.runtime().warn_of_excess();
                bytes.truncate(fits);
            }
            return Ok(if response.omits_body() { Rest::End } else { Rest::Body(bytes) });
        }
        // After `write()`: one more part.
        send(request.runtime(), py, &mut state, bytes.bytes())?;
        drop(state);
        bytes.leave();
    } else {
        set_whole(&mut request.state(py)?.response, list)?;
        for place in 0.. {
            if place >= list.list_len() || !send_part(py, request, &list.list_item(place)?)? {
                break;
            }
        }
    }
    complete(py, request)
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

/// Sends any other return value of an application. Its `close` is still to be called.
pub(crate) fn send_other(
    py: Python<'_>,
    request: &Request,
    result: &Object<'_>,
) -> Result<Rest, Fault> {
    let runtime = request.runtime();
    if result.is(&runtime.already_handled.get(py)) {
        request.log_variables(py);
        request.state(py)?.release(py)?;
        return Ok(Rest::Nothing);
    }
    let file_wrapper = runtime.constants.file_wrapper.get(py);
    if result.is_exactly(&file_wrapper) && send_file(py, request, result)? {
        return finish_before_close(py, request);
    }
    let parts = result.iterator()?;
    while let Some(part) = parts.next()? {
        if fork::is_child() {
            return Ok(Rest::Nothing);
        }
        if !send_part(py, request, &part)? {
            break;
        }
    }
    finish_before_close(py, request)
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
fn send_part(py: Python<'_>, request: &Request, part: &Object<'_>) -> PyResult<bool> {
    let mut state = request.state(py)?;
    let bytes = prepare_part(py, &state, part)?;
    send(request.runtime(), py, &mut state, bytes)
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
fn send_file(py: Python<'_>, request: &Request, wrapper: &Object<'_>) -> Result<bool, Fault> {
    let span = request.runtime().interpreter.helper(py, "file_span", [wrapper])?;
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

/// Ends a complete body whose iterable has a `close`, which must not delay what the client waits for.
fn finish_before_close(py: Python<'_>, request: &Request) -> Result<Rest, Fault> {
    let rest = complete(py, request)?;
    let mut state = request.state(py)?;
    if matches!(rest, Rest::Nothing) || state.response.is_sent() {
        return Ok(rest);
    }
    let (exchange, _) = state.open(py)?;
    py.detach(|| rest.send(exchange))?;
    Ok(Rest::Nothing)
}

/// Ends a complete body and the exchange, which does not block.
pub(crate) fn finish(py: Python<'_>, request: &Request) -> Result<(), Fault> {
    let rest = complete(py, request)?;
    if let Rest::End = rest {
        rest.send(request.state(py)?.open(py)?.0)?;
    }
    Ok(())
}

/// Checks that the body is as long as its `Content-Length`, and passes on the head if nothing was sent.
fn complete(py: Python<'_>, request: &Request) -> Result<Rest, Fault> {
    request.log_variables(py);
    let mut state = request.state(py)?;
    if state.is_taken() {
        state.release(py)?;
        return Ok(Rest::Nothing);
    }
    expect_start(py, state.response.phase)?;
    let (exchange, response) = state.open(py)?;
    response.complete()?;
    response.set_whole(0);
    response.send_head(exchange)?;
    Ok(Rest::End)
}

/// Raises `AssertionError` if `start_response` was not called.
pub(crate) fn expect_start(py: Python<'_>, phase: Phase) -> PyResult<()> {
    if phase == Phase::NotStarted {
        let message = "the application must call start_response() before it sends the body";
        return Err(PyErrSet::new(py, Exception::Assertion, message));
    }
    Ok(())
}

/// Calls `close` if there is one (PEP 3333: always, and once).
pub(crate) fn close(runtime: &PythonRuntime, result: &Object<'_>) -> PyResult<()> {
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
