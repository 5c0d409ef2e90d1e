//! The messages that an application sends.

use ::websocket::{Message, Settings};
use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python, required};
use worker_api::{Header, Step as Polled};

use super::connection::{Connection, NORMAL, SERVICE_RESTART};
use super::handshake::offer;
use super::{End, Phase, State, WebSocket, over};
use crate::head::{Head, owned_headers};
use crate::http::messages::body_bytes;
use crate::operation::Operation;

/// Reads a message, and does what it asks for up to the first write. Returns what is to be written.
pub(super) fn begin<'py>(
    py: Python<'py>,
    socket: &WebSocket,
    message: &Object<'py>,
) -> PyResult<Operation> {
    let names = &socket.runtime.names;
    let Some(kind) = message.dict_item(&names.kind.get(py))? else {
        return Err(PyErrSet::new(py, Exception::Value, "the message has no type"));
    };
    let kind = kind.as_str()?;
    let mut state = socket.state(py)?;
    if state.end.is_some() && kind != "websocket.close" {
        return Err(over(py));
    }
    match (kind, &state.phase) {
        ("websocket.send", Phase::Connected(_)) => {
            state.send(py, socket, message)?;
            Ok(Operation::Flush)
        }
        ("websocket.accept", Phase::Connecting { .. }) => {
            state.accept(py, socket, message)?;
            Ok(Operation::Flush)
        }
        ("websocket.close", Phase::Connected(_)) => {
            let (code, reason) = code_and_reason(py, socket, message)?;
            state.close(py, socket, code, &reason)?;
            state.end.get_or_insert(End { code, reason });
            Ok(Operation::Flush)
        }
        ("websocket.close", Phase::Connecting { .. }) => {
            if let Some(exchange) = &mut state.exchange {
                let refused = exchange.respond(403, &[], b"");
                refused.map_err(|failure| failed(py, &failure))?;
            }
            state.finish(py, socket.runtime, End::abnormal())?;
            Ok(Operation::Flush)
        }
        ("websocket.close", Phase::Over) => Ok(Operation::Flush),
        ("websocket.http.response.start", Phase::Connecting { .. }) => {
            let status = message.dict_item(&names.status.get(py))?;
            let status = required(py, status, "status")?.as_number()?;
            let headers = message.dict_item(&names.headers.get(py))?;
            let head = Head::new(u16::try_from(status).unwrap_or_default(), headers.as_ref())?;
            state.phase = Phase::Denying(Some(head));
            Ok(Operation::Flush)
        }
        ("websocket.http.response.body", Phase::Denying(_)) => {
            let data = match message.dict_item(&names.body.get(py))? {
                Some(body) => body_bytes(py, &body)?,
                None => py.bytes(b"")?,
            };
            let more = flag(py, &names.more_body, message)?;
            let length = data.as_bytes().unwrap_or_default().len();
            state.begin_denial(py, (!more).then_some(length))?;
            Ok(Operation::Send { data: data.store(), at: 0, more })
        }
        _ => {
            let message = format!("unexpected ASGI message {kind:?}");
            Err(PyErrSet::new(py, Exception::Runtime, &message))
        }
    }
}

impl State {
    /// Encodes a message.
    fn send(&mut self, py: Python<'_>, socket: &WebSocket, message: &Object<'_>) -> PyResult<()> {
        let names = &socket.runtime.names;
        let Phase::Connected(connection) = &mut self.phase else { return Err(over(py)) };
        let text = message.dict_item(&names.text.get(py))?.filter(|text| !text.is_none());
        let sent = if let Some(text) = text {
            connection.encode(Message::text(text.as_str()?))
        } else {
            let bytes = message.dict_item(&names.bytes.get(py))?;
            let bytes = body_bytes(py, &required(py, bytes, "bytes")?)?;
            connection.encode(Message::binary(bytes.as_bytes().unwrap_or_default()))
        };
        if sent { Ok(()) } else { Err(over(py)) }
    }

    /// Accepts the handshake: sends 101 with the subprotocol and the headers of a message.
    fn accept(&mut self, py: Python<'_>, socket: &WebSocket, message: &Object<'_>) -> PyResult<()> {
        let names = &socket.runtime.names;
        let settings = &socket.runtime.websocket;
        let Some(exchange) = &mut self.exchange else { return Err(over(py)) };
        let chosen = message.dict_item(&names.subprotocol.get(py))?;
        let chosen = chosen.filter(|chosen| !chosen.is_none());
        let chosen = chosen.as_ref().map(Object::as_str).transpose()?;
        let own = match message.dict_item(&names.headers.get(py))? {
            Some(headers) => owned_headers(&headers)?,
            None => Vec::new(),
        };
        let refused = |reason: &dyn std::fmt::Display| {
            PyErrSet::new(py, Exception::Runtime, &reason.to_string())
        };
        let offer = offer(exchange.head()).map_err(|reason| refused(&reason))?;
        let accepted = offer.accept(chosen, settings.deflate).map_err(|reason| refused(&reason))?;
        let headers: Vec<Header<'_>> = accepted
            .headers
            .iter()
            .map(|(name, value)| Header::new(name, value.as_bytes()))
            .chain(own.iter().map(|(name, value)| Header::new(name, value)))
            .collect();
        exchange.start(101, "", &headers).map_err(|failure| failed(py, &failure))?;
        let connection = Connection::new(&Settings {
            max_message_size: settings.max_message_size,
            deflate: accepted.deflate,
            ..Settings::default()
        });
        self.phase = Phase::Connected(Box::new(connection));
        if socket.runtime.interpreter.drain.has_begun() {
            self.close(py, socket, SERVICE_RESTART, "")?;
            self.end.get_or_insert(End { code: SERVICE_RESTART, reason: String::new() });
        }
        Ok(())
    }

    /// Starts a response in place of the handshake (the extension `websocket.http.response`).
    fn begin_denial(&mut self, py: Python<'_>, length: Option<usize>) -> PyResult<()> {
        let Phase::Denying(head) = &mut self.phase else { return Ok(()) };
        let (Some(head), Some(exchange)) = (head.take(), &mut self.exchange) else { return Ok(()) };
        head.start(exchange, length).map_err(|failure| failed(py, &failure))
    }

    /// Writes a part of that response from the index `at` on. Returns the index up to which it is written.
    pub(super) fn write_denial(
        &mut self,
        py: Python<'_>,
        socket: &WebSocket,
        bytes: &[u8],
        mut at: usize,
    ) -> PyResult<usize> {
        let Some(exchange) = &mut self.exchange else { return Err(over(py)) };
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match exchange.poll_write(rest, Some(socket.runtime.waker(socket.number))) {
                Polled::Ready(n) => at += n,
                Polled::Pending => break,
                Polled::Failed(failure) => return Err(failed(py, &failure)),
            }
        }
        Ok(at)
    }
}

/// Reads `code` and `reason`.
fn code_and_reason(
    py: Python<'_>,
    socket: &WebSocket,
    message: &Object<'_>,
) -> PyResult<(u16, String)> {
    let names = &socket.runtime.names;
    let given = |name: &GlobalRef| -> PyResult<_> {
        Ok(message.dict_item(&name.get(py))?.filter(|value| !value.is_none()))
    };
    let code = given(&names.code)?.map_or(Ok(i64::from(NORMAL)), |code| code.as_number())?;
    let reason = given(&names.reason)?.map_or_else(String::new, |reason| reason.to_text());
    Ok((u16::try_from(code).unwrap_or(NORMAL), reason))
}

fn flag(py: Python<'_>, name: &GlobalRef, message: &Object<'_>) -> PyResult<bool> {
    Ok(message.dict_item(&name.get(py))?.is_some_and(|flag| flag.is_true()))
}

fn failed(py: Python<'_>, failure: &worker_api::Failure) -> PyErrSet {
    PyErrSet::new(py, Exception::Runtime, &failure.to_string())
}
