//! One WebSocket: the messages of `receive` and `send`, and how the connection ends. ASGI WebSocket specification 2.5.
//!
//! ```text
//!     Connecting ──accept──▶ Open ──close──▶ Closing ──▶ Over      the peer's Close frame, its end, or CLOSE_SECONDS
//!         │                    └──── the peer closes, or is gone ───▶ Over
//!         ├──close──▶ Over            a response with status 403
//!         └──response.start──▶ Denying ──response.body──▶ Over
//! ```

mod connection;
pub(crate) mod handshake;
mod messages;

use std::ffi::CStr;

use python::{
    Arguments, Cell, Definition, Exception, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, method, required,
};
use worker_api::{Exchange, Failure, FailureKind};

use crate::awaitable::Pending;
use crate::head::Head;
use crate::operation::{Operation, Step, Subject};
use crate::runtime::AsgiRuntime;
use crate::waiters::Waiters;
use connection::Connection;

/// The type and the functions of which the objects of a WebSocket are made.
pub(crate) struct WebSocketTypes {
    runtime: &'static AsgiRuntime,
    pub(crate) socket: NativeType<WebSocket>,
    receive: Definition<WebSocket>,
    send: Definition<WebSocket>,
}

/// A WebSocket. The value of the Python object to which `receive` and `send` are bound.
pub(crate) struct WebSocket {
    types: &'static WebSocketTypes,
    runtime: &'static AsgiRuntime,
    /// Unique in this process.
    pub(crate) number: u64,
    state: Cell<State>,
}

struct State {
    /// The exchange, until the WebSocket is over.
    exchange: Option<Exchange>,
    phase: Phase,
    /// The futures of tasks that wait for a message or for room.
    waiting: Waiters,
    /// How it ended: the content of `websocket.disconnect`.
    end: Option<End>,
}

enum Phase {
    /// Before the application has accepted; whether `websocket.connect` was received.
    Connecting { told: bool },
    /// After `websocket.http.response.start`. The head is sent with the body.
    Denying(Option<Head>),
    /// After the handshake.
    Connected(Box<Connection>),
    /// No message can be sent any more.
    Over,
}

/// The code and the reason of a disconnect.
#[derive(Clone)]
struct End {
    code: u16,
    reason: String,
}

impl Native for WebSocket {
    const NAME: &'static CStr = c"jimu.WebSocket";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[&[Method { name: c"_end", entry: method!(end) }]];

    fn end(self, py: Python<'_>) {
        if let Some(mut state) = self.state.borrow(py) {
            state.waiting.take().release(py);
            if let Phase::Connected(connection) = &mut state.phase {
                connection.release(py);
            }
        }
    }
}

impl WebSocketTypes {
    /// Creates the type. It is never freed: WebSockets refer to it.
    pub(crate) fn new(py: Python<'_>, runtime: &'static AsgiRuntime) -> PyResult<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            runtime,
            socket: NativeType::new(py)?,
            receive: Definition::new(&Method { name: c"receive", entry: method!(receive) }),
            send: Definition::new(&Method { name: c"send", entry: method!(send) }),
        })))
    }

    /// Returns `receive` and `send` of a WebSocket.
    pub(crate) fn functions<'py>(
        &self,
        request: &Object<'py>,
    ) -> PyResult<(Object<'py>, Object<'py>)> {
        Ok((self.socket.bind(&self.receive, request)?, self.socket.bind(&self.send, request)?))
    }

    fn pending<'py>(
        &'static self,
        request: &Object<'py>,
        operation: Operation,
    ) -> PyResult<Object<'py>> {
        self.runtime.pending.make(request.py(), Pending::new(self, request, operation))
    }
}

impl Subject for WebSocketTypes {
    fn step<'py>(
        &self,
        py: Python<'py>,
        request: &Object<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>> {
        self.socket.value(request)?.step(py, operation)
    }

    fn future<'py>(&self, py: Python<'py>, request: &Object<'py>) -> PyResult<Object<'py>> {
        let socket = self.socket.value(request)?;
        socket.state(py)?.waiting.create(py, self.runtime)
    }
}

impl WebSocket {
    /// Creates the value for a request that asks for an upgrade.
    pub(crate) fn new(types: &'static WebSocketTypes, exchange: Exchange) -> Self {
        let runtime = types.runtime;
        let state = State {
            exchange: Some(exchange),
            phase: Phase::Connecting { told: false },
            waiting: Waiters::default(),
            end: None,
        };
        Self { types, runtime, number: runtime.next_number(), state: Cell::new(state) }
    }

    /// Builds the scope.
    pub(crate) fn scope<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        let state = self.state(py)?;
        let Some(exchange) = &state.exchange else { return Err(over(py)) };
        self.runtime.scopes(py)?.websocket(py, &self.runtime.names, exchange.head())
    }

    /// Runs `work` on the exchange; `None` once the WebSocket is over.
    pub(crate) fn with_exchange<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Exchange) -> T,
    ) -> PyResult<Option<T>> {
        Ok(self.state(py)?.exchange.as_mut().map(work))
    }

    /// Tries an operation.
    pub(crate) fn step<'py>(
        &self,
        py: Python<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>> {
        let mut state = self.state(py)?;
        match operation {
            Operation::Receive => state.receive(py, self),
            Operation::Flush => state.flush(py, self),
            Operation::Send { data, at, more } => {
                let data = data.get(py);
                let bytes = data.as_bytes().unwrap_or_default();
                let sent = state.write_denial(py, self, bytes, *at)?;
                *at = sent;
                if sent < bytes.len() {
                    return Ok(Step::Wait);
                }
                if !*more {
                    state.finish(py, self.runtime, End::none())?;
                }
                Ok(Step::Done)
            }
            Operation::SendFile { .. } => Ok(Step::Done),
        }
    }

    /// After a waker has fired: reads and sends what can be, and lets tasks try their operations again.
    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        state.pump(py, self)?;
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime)
    }

    /// Records that the client has disconnected.
    pub(crate) fn set_gone(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        // What it has sent before is still received.
        state.pump(py, self)?;
        if !matches!(state.phase, Phase::Connected(_)) {
            state.end.get_or_insert_with(End::abnormal);
        }
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime)
    }

    /// Closes it because the worker drains: the client is to connect again.
    pub(crate) fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        if let Phase::Connected(_) = state.phase {
            state.close(py, self, connection::SERVICE_RESTART, "")?;
            state
                .end
                .get_or_insert(End { code: connection::SERVICE_RESTART, reason: String::new() });
        }
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime)
    }

    /// Does what is due at `now_ns`: a ping, or the end of a connection that does not answer. Returns whether the WebSocket
    /// is over.
    pub(crate) fn tick(&self, py: Python<'_>, now_ns: u64) -> PyResult<bool> {
        let mut state = self.state(py)?;
        state.tick(py, self, now_ns)?;
        let is_over = state.exchange.is_none();
        let waiting = if state.end.is_some() { state.waiting.take() } else { Waiters::default() };
        drop(state);
        waiting.resolve(py, self.runtime)?;
        Ok(is_over)
    }

    /// Ends the WebSocket after the application's task. `exception` is what it raised. Returns whether the exception was
    /// reported.
    pub(crate) fn end_task(
        &self,
        py: Python<'_>,
        exception: Option<&Object<'_>>,
    ) -> PyResult<bool> {
        let mut state = self.state(py)?;
        let code =
            if exception.is_some() { connection::INTERNAL_ERROR } else { connection::NORMAL };
        if let Phase::Connected(_) = state.phase {
            state.close(py, self, code, "")?;
            state.end.get_or_insert(End { code, reason: String::new() });
            return Ok(false);
        }
        state.phase = Phase::Over;
        let Some(mut exchange) = state.exchange.take() else { return Ok(false) };
        let failure = match (exception, &state.end) {
            (_, Some(_)) => Failure::new(FailureKind::GONE, "the client has disconnected"),
            (Some(exception), None) => {
                drop(state);
                self.runtime.interpreter.to_failure(
                    py,
                    FailureKind::APPLICATION,
                    PyErrSet::restore(exception),
                )
            }
            (None, None) => Failure::application(
                "the application returned without accepting or closing the WebSocket",
            ),
        };
        exchange.fail(failure);
        Ok(true)
    }

    fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.state.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the WebSocket is in use by another thread")
        })
    }
}

impl End {
    /// The client's connection broke, or it was never accepted.
    fn abnormal() -> Self {
        Self { code: connection::ABNORMAL, reason: String::new() }
    }

    /// A response in place of the handshake was sent.
    fn none() -> Self {
        Self::abnormal()
    }
}

/// `receive()`, bound to a WebSocket.
fn receive<'py>(
    _: Python<'py>,
    socket: &WebSocket,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [] = arguments.take([])?;
    socket.types.pending(&arguments.bound_to(), Operation::Receive)
}

/// `send(message)`, bound to a WebSocket.
fn send<'py>(
    py: Python<'py>,
    socket: &WebSocket,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [message] = arguments.take(["message"])?;
    let message = required(py, message, "message")?;
    let runtime = socket.runtime;
    let mut operation = messages::begin(py, socket, &message)?;
    match socket.step(py, &mut operation) {
        Ok(Step::Wait) => socket.types.pending(&arguments.bound_to(), operation),
        step => {
            operation.release(py);
            step.map(|_| runtime.completed.get(py).clone())
        }
    }
}

/// `_end(exception)`: ends the WebSocket after the application's task. Returns whether an exception was reported.
fn end<'py>(
    py: Python<'py>,
    socket: &WebSocket,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [exception] = arguments.take(["exception"])?;
    let exception = exception.filter(|exception| !exception.is_none());
    py.truth(socket.end_task(py, exception.as_ref())?)
}

/// Creates the error for a WebSocket that is over: an `OSError`, as the specification demands of `send`.
#[cold]
fn over(py: Python<'_>) -> PyErrSet {
    PyErrSet::new(py, Exception::ConnectionReset, "the WebSocket is closed")
}
