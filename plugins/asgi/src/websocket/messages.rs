//! The messages that an application sends.

use jimu_websocket::{CloseCode, Message, Settings};
use python::clock::now_ns;
use python::fault::is_outside;
use python::{Exception, Object, PyErrSet, PyResult, Python};
use worker_api::{Failure, FailureKind, Header};

use super::connection::Connection;
use super::handshake::offer;
use super::{End, Phase, State, WebSocket, over};
use crate::head::owned_headers;
use crate::message::{Sent, to_bytes};
use crate::operation::Operation;
use crate::request::Request as _;
use crate::runtime::AsgiRuntime;

/// Reads a message, and does what it asks for up to the first write. Returns what is to be written.
pub(super) fn begin<'py>(
    py: Python<'py>,
    socket: &WebSocket,
    message: &Object<'py>,
) -> PyResult<Option<Operation>> {
    let message = Sent { dict: message, names: &socket.runtime().names };
    let kind = message.kind()?;
    let kind = kind.as_str()?;
    let mut state = socket.state(py)?;
    if state.end.is_some() && kind != "websocket.close" {
        return Err(over(py));
    }
    match (kind, &state.phase) {
        ("websocket.send", Phase::Connected(_)) => {
            state.send(py, socket.runtime(), &message)?;
            Ok(Some(Operation::Flush))
        }
        ("websocket.accept", Phase::Connecting { .. }) => {
            state.accept(py, socket, &message)?;
            Ok(Some(Operation::Flush))
        }
        ("websocket.close", Phase::Connected(_)) => {
            state.close(py, socket, end_of(&message)?)?;
            Ok(Some(Operation::Flush))
        }
        ("websocket.close", Phase::Connecting { .. }) => {
            if let Some(exchange) = &mut state.exchange {
                let refused = exchange.respond(403, &[], b"");
                refused.map_err(|failure| failed(py, &failure))?;
            }
            state.finish(py, socket, End::abnormal())?;
            Ok(None)
        }
        ("websocket.close", Phase::Over) => Ok(None),
        ("websocket.http.response.start", Phase::Connecting { .. }) => {
            state.phase = Phase::Denying(Some(message.head()?));
            Ok(None)
        }
        ("websocket.http.response.body", Phase::Denying(_)) => {
            let (data, more) = message.body()?;
            let length = data.as_bytes().unwrap_or_default().len();
            state.begin_denial(py, (!more).then_some(length))?;
            if !more {
                state.phase = Phase::Denied;
            }
            Ok(Some(Operation::Send { data: data.store(), at: 0, ends: !more }))
        }
        _ => {
            let message = format!("unexpected ASGI message {kind:?}");
            Err(PyErrSet::new(py, Exception::Runtime, &message))
        }
    }
}

impl State {
    /// Encodes a message.
    fn send(
        &mut self,
        py: Python<'_>,
        runtime: &AsgiRuntime,
        message: &Sent<'_, '_>,
    ) -> PyResult<()> {
        let Phase::Connected(connection) = &mut self.phase else { return Err(over(py)) };
        let sent = if let Some(text) = message.optional(&message.names.text)? {
            connection.encode(Message::text(text.as_str()?), runtime)
        } else {
            let bytes = to_bytes(&message.required(&message.names.bytes)?)?;
            connection.encode(Message::binary(bytes.as_bytes().unwrap_or_default()), runtime)
        };
        if sent { Ok(()) } else { Err(over(py)) }
    }

    /// Accepts the handshake: sends 101 with the subprotocol and the headers of a message.
    fn accept(
        &mut self,
        py: Python<'_>,
        socket: &WebSocket,
        message: &Sent<'_, '_>,
    ) -> PyResult<()> {
        let names = message.names;
        let settings = &socket.runtime().websocket;
        let Some(exchange) = &mut self.exchange else { return Err(over(py)) };
        let chosen = message.optional(&names.subprotocol)?;
        let chosen = chosen.as_ref().map(Object::as_str).transpose()?;
        let own = match message.item(&names.headers)? {
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
        if socket.runtime().interpreter.drain.has_begun() {
            return self.close(py, socket, End::of(CloseCode::SERVICE_RESTART));
        }
        self.schedule(py, socket, now_ns())?;
        self.pump(py, socket)
    }

    /// Starts a response in place of the handshake (the extension `websocket.http.response`).
    fn begin_denial(&mut self, py: Python<'_>, length: Option<usize>) -> PyResult<()> {
        let Phase::Denying(head) = &mut self.phase else { return Ok(()) };
        let (Some(head), Some(exchange)) = (head.take(), &mut self.exchange) else { return Ok(()) };
        head.start(exchange, length).map_err(|failure| failed(py, &failure))
    }

    /// Sends what is unsent of that response, as far as there is room. Returns whether that is all of it.
    pub(super) fn send_unsent(&mut self, py: Python<'_>, socket: &WebSocket) -> PyResult<bool> {
        if self.unsent.has_failed() {
            return Err(over(py));
        }
        if self.unsent.is_empty() {
            return Ok(true);
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let sent = unsent.continue_with(py, |part| self.send_part(py, socket, part));
        self.unsent = unsent;
        sent
    }

    /// Sends a part of that response, and ends it if that was the last one. Returns whether all of the part is sent.
    pub(super) fn send_part(
        &mut self,
        py: Python<'_>,
        socket: &WebSocket,
        part: &mut Operation,
    ) -> PyResult<bool> {
        let Operation::Send { data, at, ends } = part else { return Ok(true) };
        let Some(exchange) = &mut self.exchange else { return Err(over(py)) };
        let data = data.get(py);
        let bytes = data.as_bytes().unwrap_or_default();
        let sent = socket.runtime().write(exchange, socket.number, bytes, at);
        let sent = sent.map_err(|failure| failed(py, &failure))?;
        if sent && *ends {
            self.finish(py, socket, End::abnormal())?;
        }
        Ok(sent)
    }

    /// Fails the exchange, if that response cannot be completed and the task no longer does so.
    pub(super) fn fail_if_returned(&mut self) {
        if self.has_returned
            && let Some(mut exchange) = self.exchange.take()
        {
            exchange.fail(Failure::new(FailureKind::GONE, "the client has disconnected"));
        }
    }
}

/// Reads `code` and `reason`.
fn end_of(message: &Sent<'_, '_>) -> PyResult<End> {
    let normal = CloseCode::NORMAL.0;
    let code = message.optional(&message.names.code)?;
    let code = code.map_or(Ok(i64::from(normal)), |code| code.as_number())?;
    let reason = message.optional(&message.names.reason)?;
    let reason = reason.map_or_else(String::new, |reason| reason.to_text());
    Ok(End { code: u16::try_from(code).unwrap_or(normal), reason })
}

fn failed(py: Python<'_>, failure: &Failure) -> PyErrSet {
    if is_outside(failure) {
        return over(py);
    }
    PyErrSet::new(py, Exception::Runtime, &failure.to_string())
}
