//! One WebSocket: the messages of `receive` and `send`, and how the connection ends. ASGI WebSocket specification 2.5.
//!
//! ```text
//!     Connecting ──accept──▶ Open ──close──▶ Closing ──▶ Over      the peer's Close frame, its end, or CLOSE_SECONDS
//!         │                    └──── the peer closes, or is gone ───▶ Over
//!         ├──close──▶ Over            a response with status 403
//!         └──response.start──▶ Denying ──response.body──▶ Denied ──sent──▶ Over
//! ```

mod connection;
pub(crate) mod handshake;
mod messages;

use std::ffi::CStr;

use jimu_websocket::CloseCode;
use python::{Cell, Exception, Method, Native, Object, PyErrSet, PyResult, Python, method};
use worker_api::{Exchange, Failure, FailureKind};

use crate::head::Head;
use crate::operation::{Operation, Step};
use crate::request::{self, Request, RequestTypes};
use crate::unsent::Unsent;
use crate::waiters::Waiters;
use connection::Connection;

/// A WebSocket. The value of the Python object to which `receive` and `send` are bound.
pub(crate) struct WebSocket {
    types: &'static RequestTypes<Self>,
    number: u64,
    state: Cell<State>,
}

struct State {
    /// The exchange, until the WebSocket is over.
    exchange: Option<Exchange>,
    phase: Phase,
    /// What of a response in place of the handshake was begun and could not be sent at once.
    unsent: Unsent,
    /// Whether the application has returned from such a response, which is complete and a part of which is unsent.
    has_returned: bool,
    /// The futures of tasks that wait for a message or for room.
    waiting: Waiters,
    /// How it ended: the content of `websocket.disconnect`.
    end: Option<End>,
    /// Whether the client has ended it, until [`Request::wake`] has returned that.
    is_lost: bool,
}

enum Phase {
    /// Before the application has accepted; whether `websocket.connect` was received.
    Connecting { told: bool },
    /// After `websocket.http.response.start`. The head is sent with the body.
    Denying(Option<Head>),
    /// After the last `websocket.http.response.body`.
    Denied,
    /// After the handshake.
    Connected(Box<Connection>),
    /// No message can be sent any more.
    Over,
}

/// The code and the reason of a disconnect.
struct End {
    code: u16,
    reason: String,
}

impl Native for WebSocket {
    const NAME: &'static CStr = c"jimu.WebSocket";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[&[Method { name: c"_end", entry: method!(request::end::<WebSocket>) }]];

    fn end(self, py: Python<'_>) {
        if let Some(mut state) = self.state.borrow(py) {
            state.unsent.release(py);
            state.waiting.take().release(py);
            if let Phase::Connected(connection) = &mut state.phase {
                connection.release(py);
            }
        }
    }
}

impl Request for WebSocket {
    const RECEIVE: Method<Self> =
        Method { name: c"receive", entry: method!(request::receive::<WebSocket>) };
    const SEND: Method<Self> = Method { name: c"send", entry: method!(request::send::<WebSocket>) };

    fn new(types: &'static RequestTypes<Self>, number: u64, exchange: Exchange) -> Self {
        let state = State {
            exchange: Some(exchange),
            phase: Phase::Connecting { told: false },
            unsent: Unsent::default(),
            has_returned: false,
            waiting: Waiters::default(),
            end: None,
            is_lost: false,
        };
        Self { types, number, state: Cell::new(state) }
    }

    fn types(&self) -> &'static RequestTypes<Self> {
        self.types
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn scope<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        let state = self.state(py)?;
        let Some(exchange) = &state.exchange else { return Err(over(py)) };
        self.runtime().scopes(py)?.websocket(py, &self.runtime().names, exchange.head())
    }

    fn with_exchange<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Exchange) -> T,
    ) -> PyResult<Option<T>> {
        Ok(self.state(py)?.exchange.as_mut().map(work))
    }

    fn begin<'py>(&self, py: Python<'py>, message: &Object<'py>) -> PyResult<Option<Operation>> {
        messages::begin(py, self, message)
    }

    fn step<'py>(&self, py: Python<'py>, operation: &mut Operation) -> PyResult<Step<'py>> {
        let mut state = self.state(py)?;
        match operation {
            Operation::Receive => state.receive(py, self),
            Operation::Flush if matches!(state.phase, Phase::Connected(_)) => state.flush(py, self),
            part => {
                if state.send_unsent(py, self)? && state.send_part(py, self, part)? {
                    return Ok(Step::Done);
                }
                state.unsent.push(py, std::mem::replace(part, Operation::Flush))?;
                Ok(Step::Wait)
            }
        }
    }

    fn future<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        self.state(py)?.waiting.create(py, self.runtime())
    }

    fn wake(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.state(py)?;
        if let Phase::Connected(connection) = &mut state.phase {
            connection.awaits_bytes = false;
        }
        state.pump(py, self)?;
        state.unsent.wake();
        if let Err(raised) = state.send_unsent(py, self) {
            // Tasks that wait for it receive the error.
            raised.clear(py);
            state.fail_if_returned();
        }
        let is_lost = std::mem::take(&mut state.is_lost);
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime())?;
        Ok(is_lost)
    }

    fn set_gone(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let was_open = self.state(py)?.exchange.is_some();
        // What it has sent before is still received.
        self.wake(py)?;
        let mut state = self.state(py)?;
        if !matches!(state.phase, Phase::Connected(_)) {
            state.end.get_or_insert_with(End::abnormal);
            state.fail_if_returned();
        }
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime())?;
        Ok(was_open.then_some(false))
    }

    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        // The client is to connect again.
        state.close(py, self, End::of(CloseCode::SERVICE_RESTART))?;
        let waiting = state.waiting.take();
        drop(state);
        waiting.resolve(py, self.runtime())
    }

    fn tick(&self, py: Python<'_>, now_ns: u64) -> PyResult<()> {
        self.state(py)?.tick(py, self, now_ns)
    }

    fn end_task(&self, py: Python<'_>, exception: Option<&Object<'_>>) -> PyResult<bool> {
        let mut state = self.state(py)?;
        if let Phase::Connected(_) = state.phase {
            let failed = exception.is_some();
            let code = if failed { CloseCode::INTERNAL_ERROR } else { CloseCode::NORMAL };
            state.close(py, self, End::of(code))?;
            return Ok(false);
        }
        if !state.unsent.is_empty() && matches!(state.phase, Phase::Denied) && state.end.is_none() {
            state.has_returned = true;
            return Ok(false);
        }
        let phase = std::mem::replace(&mut state.phase, Phase::Over);
        let Some(mut exchange) = state.exchange.take() else { return Ok(false) };
        let failure = match (exception, &state.end) {
            (_, Some(_)) => Failure::new(FailureKind::GONE, "the client has disconnected"),
            (Some(exception), None) => {
                drop(state);
                self.runtime().interpreter.to_failure(
                    py,
                    FailureKind::APPLICATION,
                    PyErrSet::restore(exception),
                )
            }
            (None, None) => Failure::application(match phase {
                Phase::Denying(None) | Phase::Denied => {
                    "the application returned without completing its response to the handshake"
                }
                _ => "the application returned without accepting or closing the WebSocket",
            }),
        };
        exchange.fail(failure);
        Ok(true)
    }
}

impl WebSocket {
    fn state<'a>(&'a self, py: Python<'_>) -> PyResult<std::cell::RefMut<'a, State>> {
        self.state.borrow(py).ok_or_else(|| {
            PyErrSet::new(py, Exception::Runtime, "the WebSocket is in use by another thread")
        })
    }
}

impl End {
    /// An end with this code.
    fn of(code: CloseCode) -> Self {
        Self { code: code.0, reason: String::new() }
    }

    /// The client's connection broke, or it was never accepted.
    fn abnormal() -> Self {
        Self::of(CloseCode::ABNORMAL)
    }
}

/// Creates the error for a WebSocket that is over: an `OSError`, as the specification demands of `send`.
#[cold]
fn over(py: Python<'_>) -> PyErrSet {
    PyErrSet::new(py, Exception::ConnectionReset, "the WebSocket is closed")
}
