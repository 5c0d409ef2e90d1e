//! The connection of a WebSocket after the handshake: bytes of the exchange to messages and back.

use std::collections::VecDeque;

use jimu_websocket::{
    Close, CloseCode, Codec, Event, Keepalive, Message, MessageKind, ProtocolError, Role, Settings,
};
use python::clock::now_ns;
use python::{GlobalRef, Object, PyResult, Python};
use worker_api::{Counter, Exchange, Step as Polled};

use super::{End, Phase, State, WebSocket, over};
use crate::operation::Step;
use crate::request::Request as _;
use crate::runtime::{AsgiRuntime, WebSockets};

/// A WebSocket after the handshake.
pub(super) struct Connection {
    codec: Codec,
    /// Bytes that have arrived and are not decoded yet.
    input: Vec<u8>,
    /// Frames that are not sent yet.
    out: Vec<u8>,
    /// Messages that the application has not received yet, and their length.
    messages: VecDeque<(GlobalRef, usize)>,
    queued: usize,
    /// What the peer has ended the connection with, until the application has received the messages before it.
    ended: Option<Ended>,
    keepalive: Keepalive,
    /// Whether a waker is left that fires when bytes arrive: until then there are none to read.
    pub(super) awaits_bytes: bool,
    /// When the last bytes arrived.
    heard_ns: u64,
    /// When the connection ends if the peer does not close it.
    close_by_ns: Option<u64>,
    /// When [`State::tick`] is called next.
    due_ns: Option<u64>,
}

/// How the peer has ended the connection.
enum Ended {
    /// By a Close frame.
    Closed { code: Option<CloseCode>, reason: String },
    /// By a violation of the protocol.
    Failed(ProtocolError),
}

impl Connection {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            codec: Codec::new(Role::Server, settings),
            input: Vec::new(),
            out: Vec::new(),
            messages: VecDeque::new(),
            queued: 0,
            ended: None,
            keepalive: Keepalive::default(),
            awaits_bytes: false,
            heard_ns: now_ns(),
            close_by_ns: None,
            due_ns: None,
        }
    }

    /// Encodes a message. Returns whether it can still be sent.
    pub(super) fn encode(&mut self, message: Message<'_>, runtime: &AsgiRuntime) -> bool {
        let encoded = self.codec.sender.message(message, &mut self.out).is_ok();
        if encoded {
            runtime.interpreter.host.count(Counter::MESSAGES_SENT, 1);
        }
        encoded
    }

    /// Drops the references that it holds.
    pub(super) fn release(&mut self, py: Python<'_>) {
        for (message, _) in self.messages.drain(..) {
            drop(message.take(py));
        }
    }

    /// Decodes what has arrived, as far as there is room for messages. Returns whether something else is due than before.
    fn decode(&mut self, py: Python<'_>, runtime: &AsgiRuntime) -> PyResult<bool> {
        let mut answered = false;
        let mut rest = self.input.as_slice();
        let Codec { receiver, sender } = &mut self.codec;
        while self.ended.is_none() && (sender.is_closed() || has_room(&self.messages, self.queued))
        {
            match receiver.receive(&mut rest) {
                Ok(None) => break,
                // The application has closed the connection.
                Ok(Some(Event::Message(_))) if sender.is_closed() => {}
                Ok(Some(Event::Message(message))) => {
                    let length = message.payload.len();
                    let received = to_python(py, runtime, message)?.store();
                    runtime.interpreter.host.count(Counter::MESSAGES_RECEIVED, 1);
                    self.messages.push_back((received, length));
                    self.queued += length;
                }
                Ok(Some(Event::Pong(payload))) => {
                    answered |= self.keepalive.pong(payload);
                }
                Ok(Some(event @ Event::Ping(_))) => sender.reply(&event, &mut self.out),
                Ok(Some(Event::Close(Close { code, reason }))) => {
                    self.ended = Some(Ended::Closed { code, reason: reason.to_owned() });
                }
                Err(error) => self.ended = Some(Ended::Failed(error)),
            }
        }
        if self.ended.is_some() {
            self.close_by_ns.get_or_insert(now_ns() + CLOSE_NS);
        }
        let used = self.input.len() - rest.len();
        remove(&mut self.input, used);
        Ok(answered || self.ended.is_some())
    }

    /// Returns when something is due: a ping, the end of a silent connection, or that of one that does not close.
    fn next_due(&self, settings: &WebSockets, now_ns: u64) -> Option<u64> {
        let keepalive_ns = settings.ping_interval_ns.and_then(|interval| {
            let answer = if self.keepalive.is_outstanding() {
                settings.ping_timeout_ns.unwrap_or(0)
            } else if self.close_by_ns.is_some() {
                return None;
            } else {
                0
            };
            let due = self.heard_ns.saturating_add(interval).saturating_add(answer);
            // What could not be done now, since the client has to wait.
            Some(if due <= now_ns { now_ns.saturating_add(interval) } else { due })
        });
        let due_ns = match (keepalive_ns, self.close_by_ns) {
            (Some(keepalive_ns), Some(close_by_ns)) => Some(keepalive_ns.min(close_by_ns)),
            (either, or) => either.or(or),
        };
        due_ns.map(|due_ns| settings.round_up(due_ns))
    }

    /// Returns how the connection ended, once the application has received the messages before that: it may still respond
    /// to them. Encodes the Close frame that the protocol demands.
    fn take_end(&mut self) -> Option<End> {
        if !self.messages.is_empty() && !self.codec.sender.is_closed() {
            return None;
        }
        match self.ended.take()? {
            Ended::Closed { code, reason } => {
                let close = Event::Close(Close { code, reason: "" });
                self.codec.sender.reply(&close, &mut self.out);
                Some(End { code: code.unwrap_or(CloseCode::NO_STATUS).0, reason })
            }
            Ended::Failed(error) => {
                self.codec.sender.fail(&error, &mut self.out);
                Some(End { code: error.close_code().0, reason: error.to_string() })
            }
        }
    }

    /// Returns whether more bytes are read now.
    fn reads_on(&self) -> bool {
        self.codec.sender.is_closed() || has_room(&self.messages, self.queued)
    }

    /// Writes the frames. Returns whether all are written.
    fn write(&mut self, exchange: &mut Exchange, socket: &WebSocket) -> worker_api::Result<bool> {
        let mut at = 0;
        let written = socket.runtime().write(exchange, socket.number, &self.out, &mut at);
        remove(&mut self.out, at);
        written
    }
}

impl State {
    pub(super) fn receive<'py>(
        &mut self,
        py: Python<'py>,
        socket: &WebSocket,
    ) -> PyResult<Step<'py>> {
        let names = &socket.runtime().names;
        if let Phase::Connecting { told: told @ false } = &mut self.phase {
            *told = true;
            let message = py.dict()?;
            message.set_item(&names.kind.get(py), &names.websocket_connect.get(py))?;
            return Ok(Step::Message(message));
        }
        let mut message = self.take_message(py);
        if message.is_none() {
            self.pump(py, socket)?;
            message = self.take_message(py);
        }
        if let Some(message) = message {
            return Ok(Step::Message(message));
        }
        match &self.end {
            Some(end) => disconnect(py, socket.runtime(), end).map(Step::Message),
            None => Ok(Step::Wait),
        }
    }

    fn take_message<'py>(&mut self, py: Python<'py>) -> Option<Object<'py>> {
        let Phase::Connected(connection) = &mut self.phase else { return None };
        let (message, length) = connection.messages.pop_front()?;
        connection.queued -= length;
        Some(message.take(py))
    }

    /// Reads, decodes and sends what can be without waiting, and leaves wakers for the rest.
    pub(super) fn pump(&mut self, py: Python<'_>, socket: &WebSocket) -> PyResult<()> {
        let mut has_read = false;
        loop {
            let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
            let is_rescheduled = connection.decode(py, socket.runtime())?;
            if let Some(end) = connection.take_end() {
                return self.peer_closed(py, socket, end);
            }
            if is_rescheduled {
                self.schedule(py, socket, now_ns())?;
            }
            let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
            let Some(exchange) = &mut self.exchange else { return Ok(()) };
            if connection.write(exchange, socket).is_err() {
                return self.lose(py, socket, End::abnormal());
            }
            if connection.ended.is_some() || !connection.reads_on() {
                // The client waits until the application has received what is here.
                return Ok(());
            }
            if connection.awaits_bytes {
                return Ok(());
            }
            let mut buffer = socket.runtime().buffer(py)?;
            // At the first attempt there usually are bytes, and after them there usually are none.
            let mut polled = Polled::Pending;
            if !has_read {
                polled = exchange.poll_read(&mut buffer, None);
            }
            if matches!(polled, Polled::Pending) {
                let waker = socket.runtime().waker(socket.number);
                polled = exchange.poll_read(&mut buffer, Some(waker));
            }
            match polled {
                Polled::Pending => {
                    connection.awaits_bytes = true;
                    return Ok(());
                }
                Polled::Ready(0) | Polled::Failed(_) => {
                    drop(buffer);
                    return self.lose(py, socket, End::abnormal());
                }
                Polled::Ready(n) => {
                    has_read = true;
                    connection.heard_ns = now_ns();
                    connection.input.extend_from_slice(&buffer[..n]);
                }
            }
        }
    }

    /// Sends frames that are encoded already.
    pub(super) fn flush<'py>(
        &mut self,
        py: Python<'py>,
        socket: &WebSocket,
    ) -> PyResult<Step<'py>> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(Step::Done) };
        let Some(exchange) = &mut self.exchange else { return Ok(Step::Done) };
        match connection.write(exchange, socket) {
            Ok(true) => Ok(Step::Done),
            Ok(false) => Ok(Step::Wait),
            Err(_) => {
                self.lose(py, socket, End::abnormal())?;
                Err(over(py))
            }
        }
    }

    /// Sends a Close frame and waits for that of the peer; the application receives the disconnect at once. Does nothing
    /// without a connection.
    pub(super) fn close(&mut self, py: Python<'_>, socket: &WebSocket, end: End) -> PyResult<()> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
        let code = CloseCode(end.code);
        let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
        // A frame was sent already if the peer has closed.
        let _ = connection.codec.sender.close(code, &end.reason, &mut connection.out);
        connection.close_by_ns.get_or_insert(now_ns() + CLOSE_NS);
        self.end.get_or_insert(end);
        self.schedule(py, socket, now_ns())?;
        // Reading may have stopped because the application has not received what is here.
        self.pump(py, socket)
    }

    /// The peer has sent a Close frame, or violated the protocol: the reply is encoded already.
    fn peer_closed(&mut self, py: Python<'_>, socket: &WebSocket, end: End) -> PyResult<()> {
        if let (Phase::Connected(connection), Some(exchange)) =
            (&mut self.phase, &mut self.exchange)
        {
            // Should it not fit into the socket's buffer, the client does not learn the code.
            let _ = connection.write(exchange, socket);
        }
        self.lose(py, socket, end)
    }

    /// The client has ended the connection.
    fn lose(&mut self, py: Python<'_>, socket: &WebSocket, end: End) -> PyResult<()> {
        if self.end.is_none() {
            self.is_lost = true;
            socket.runtime().wake_in_next_turn(socket.number);
        }
        self.finish(py, socket, end)
    }

    /// Ends the exchange. Messages that have arrived are still received.
    pub(super) fn finish(&mut self, py: Python<'_>, socket: &WebSocket, end: End) -> PyResult<()> {
        self.end.get_or_insert(end);
        if let Phase::Connected(connection) = &mut self.phase {
            socket.runtime().schedule(py, socket.number, connection.due_ns.take(), None)?;
        }
        let has_messages = matches!(&self.phase, Phase::Connected(of) if !of.messages.is_empty());
        if !has_messages {
            self.phase = Phase::Over;
        }
        if let Some(mut exchange) = self.exchange.take()
            && let Err(failure) = exchange.finish()
        {
            exchange.fail(failure);
        }
        self.waiting.take().resolve(py, socket.runtime())
    }

    /// Determines again when something is due.
    pub(super) fn schedule(
        &mut self,
        py: Python<'_>,
        socket: &WebSocket,
        now_ns: u64,
    ) -> PyResult<()> {
        let (Phase::Connected(connection), Some(_)) = (&mut self.phase, &self.exchange) else {
            return Ok(());
        };
        let due_ns = connection.next_due(&socket.runtime().websocket, now_ns);
        let before_ns = std::mem::replace(&mut connection.due_ns, due_ns);
        socket.runtime().schedule(py, socket.number, before_ns, due_ns)
    }

    /// Does what is due, and determines what is next.
    pub(super) fn tick(&mut self, py: Python<'_>, socket: &WebSocket, now: u64) -> PyResult<()> {
        self.keep_alive(py, socket, now)?;
        self.schedule(py, socket, now)
    }

    fn keep_alive(&mut self, py: Python<'_>, socket: &WebSocket, now: u64) -> PyResult<()> {
        let settings = &socket.runtime().websocket;
        let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
        connection.due_ns = None;
        if connection.close_by_ns.is_some_and(|by| by <= now) {
            return self.lose(py, socket, End::abnormal());
        }
        let Some(interval) = settings.ping_interval_ns else { return Ok(()) };
        let silent = now.saturating_sub(connection.heard_ns);
        if !connection.reads_on() {
            // The client's reply is behind messages that the application has not received.
            return Ok(());
        }
        if connection.keepalive.is_outstanding() {
            if settings.ping_timeout_ns.is_some_and(|limit| silent >= interval + limit) {
                return self.lose(py, socket, End::abnormal());
            }
        } else if silent >= interval && connection.close_by_ns.is_none() {
            let Connection { codec, keepalive, out, .. } = &mut **connection;
            let _ = keepalive.ping(&mut codec.sender, out);
            codec.shrink();
            return self.flush(py, socket).map(drop);
        }
        Ok(())
    }
}

/// Returns whether further messages can be kept for the application.
fn has_room(messages: &VecDeque<(GlobalRef, usize)>, queued: usize) -> bool {
    messages.len() < MESSAGES_MAX && queued < QUEUED_MAX
}

/// Removes the first `count` bytes of a buffer.
fn remove(buffer: &mut Vec<u8>, count: usize) {
    buffer.drain(..count);
    if buffer.is_empty() && buffer.capacity() > KEPT_MAX {
        *buffer = Vec::new();
    }
}

/// Creates `websocket.receive`.
fn to_python<'py>(
    py: Python<'py>,
    runtime: &AsgiRuntime,
    message: Message<'_>,
) -> PyResult<Object<'py>> {
    let names = &runtime.names;
    let made = py.dict()?;
    made.set_item(&names.kind.get(py), &names.websocket_receive.get(py))?;
    match message.kind {
        MessageKind::Text => {
            made.set_item(&names.text.get(py), &py.utf8(message.payload)?)?;
        }
        MessageKind::Binary => {
            made.set_item(&names.bytes.get(py), &py.bytes(message.payload)?)?;
        }
    }
    Ok(made)
}

/// Creates `websocket.disconnect`.
fn disconnect<'py>(py: Python<'py>, runtime: &AsgiRuntime, end: &End) -> PyResult<Object<'py>> {
    let names = &runtime.names;
    let made = py.dict()?;
    made.set_item(&names.kind.get(py), &py.name(b"websocket.disconnect")?)?;
    made.set_item(&names.code.get(py), &py.number(end.code.into())?)?;
    made.set_item(&names.reason.get(py), &py.text(&end.reason)?)?;
    Ok(made)
}

/// How long the peer may take to reply to a Close frame.
const CLOSE_NS: u64 = 10_000_000_000;
/// Messages that wait for the application; beyond that the client has to wait.
const MESSAGES_MAX: usize = 32;
/// Bytes of messages that wait for the application; beyond that the client has to wait.
const QUEUED_MAX: usize = 256 << 10;
/// Largest buffer that an idle connection keeps.
const KEPT_MAX: usize = 4 << 10;
