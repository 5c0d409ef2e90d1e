//! The worker class's engine as a Python object, which `driver.py` holds: its descriptor and its turns. A turn starts a task
//! for each request that has arrived, and resolves the futures of operations that can be tried again.

use std::cell::OnceCell;
use std::ffi::CStr;
use std::thread::{self, ThreadId};

use python::clock::now_ns;
use python::{
    Arguments, Exception, GlobalRef, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, method, required,
};
use worker_api::{Engine, Exchange, Header};

use crate::http::{Http, HttpTypes};
use crate::runtime::{AsgiRuntime, Open, Target};
use crate::websocket::handshake::{is_upgrade, offer};
use crate::websocket::{WebSocket, WebSocketTypes};

/// Runs the loop until the engine has stopped.
pub(crate) fn run<'py>(
    py: Python<'py>,
    runtime: &'static AsgiRuntime,
    engine: Engine,
    application: &Object<'py>,
) -> PyResult<()> {
    let running = Running {
        runtime,
        http: HttpTypes::new(py, runtime)?,
        websocket: WebSocketTypes::new(py, runtime)?,
        engine,
        thread: thread::current().id(),
        callbacks: OnceCell::new(),
        drained_from_ns: std::cell::Cell::new(None),
    };
    let engine = NativeType::new(py)?.make(py, running)?;
    module(py)?.call_method("run", [&engine, application]).map(drop)
}

/// Returns the await stack of each task that serves a request.
pub(crate) fn trace(py: Python<'_>) -> PyResult<String> {
    Ok(module(py)?.call_method("trace", [])?.to_text())
}

/// Returns the module of `driver.py`, which is created on first use: it imports asyncio.
fn module(py: Python<'_>) -> PyResult<Object<'_>> {
    let modules = py.import("sys")?.attr_named("modules")?;
    match modules.dict_item(&py.name(b"_jimu_asgi")?)? {
        Some(module) => Ok(module),
        None => py.module("_jimu_asgi", include_str!("driver.py"), &[]),
    }
}

/// The value of the engine's object.
struct Running {
    runtime: &'static AsgiRuntime,
    http: &'static HttpTypes,
    websocket: &'static WebSocketTypes,
    engine: Engine,
    /// The only thread that may use the engine.
    thread: ThreadId,
    /// Set by `start()`.
    callbacks: OnceCell<Callbacks>,
    /// When the open requests were notified that the worker drains.
    drained_from_ns: std::cell::Cell<Option<u64>>,
}

/// Functions of `driver.py`.
struct Callbacks {
    /// Starts a task for a request: `start(request, scope, receive, send)` returns the task, or `None` if it has ended.
    start: GlobalRef,
    /// Called with the task of a request and whether its deadline has passed; otherwise the client has disconnected.
    gone: GlobalRef,
    /// Called once, when the engine has stopped, with the nanoseconds since the drain began.
    stopped: GlobalRef,
}

impl Native for Running {
    const NAME: &'static CStr = c"jimu.Engine";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"descriptor", entry: method!(descriptor) },
        Method { name: c"start", entry: method!(start) },
        Method { name: c"turn", entry: method!(turn) },
        Method { name: c"beat", entry: method!(beat) },
        Method { name: c"tick", entry: method!(tick) },
    ]];
}

impl Running {
    fn engine(&self, py: Python<'_>) -> PyResult<&Engine> {
        if thread::current().id() == self.thread {
            Ok(&self.engine)
        } else {
            Err(PyErrSet::new(py, Exception::Runtime, "the engine belongs to another thread"))
        }
    }

    /// Starts a task for each request that has arrived.
    fn start_tasks(&self, py: Python<'_>, callbacks: &Callbacks) -> PyResult<()> {
        while let Some(exchange) = self.runtime.next_ready() {
            if is_upgrade(exchange.head()) {
                self.open_websocket(py, callbacks, exchange)?;
            } else {
                self.serve(py, callbacks, exchange)?;
            }
        }
        Ok(())
    }

    /// Starts the task of an HTTP request.
    fn serve(&self, py: Python<'_>, callbacks: &Callbacks, exchange: Exchange) -> PyResult<()> {
        let http = Http::new(self.http, exchange);
        let number = http.number;
        let request = self.http.http.make(py, http)?;
        let http = self.http.http.value(&request)?;
        let start = || {
            let scope = http.scope(py)?;
            let (receive, send) = self.http.functions(&request)?;
            callbacks.start.get(py).call([&request, &scope, &receive, &send])
        };
        let task = match start() {
            Ok(task) => task,
            Err(raised) => {
                let exception = raised.take(py);
                return http.end_request(py, Some(&exception)).map(drop);
            }
        };
        if task.is_none() {
            return Ok(());
        }
        let waker = self.runtime.gone_waker(number);
        if http.with_exchange(py, |exchange| exchange.on_disconnect(waker))?.is_some() {
            self.keep(py, number, Target::Http, &request, task)?;
        }
        Ok(())
    }

    /// Starts the task of a WebSocket, or refuses its handshake.
    fn open_websocket(
        &self,
        py: Python<'_>,
        callbacks: &Callbacks,
        mut exchange: Exchange,
    ) -> PyResult<()> {
        if let Err(refused) = offer(exchange.head()) {
            let (status, reason) = (refused.status(), refused.to_string());
            let headers = refused.headers().iter().map(|(name, value)| Header::new(name, value));
            let headers: Vec<Header<'_>> = headers.collect();
            if let Err(failure) = exchange.respond(status, &headers, reason.as_bytes()) {
                exchange.fail(failure);
            }
            return Ok(());
        }
        let socket = WebSocket::new(self.websocket, exchange);
        let number = socket.number;
        let request = self.websocket.socket.make(py, socket)?;
        let socket = self.websocket.socket.value(&request)?;
        let start = || {
            let scope = socket.scope(py)?;
            let (receive, send) = self.websocket.functions(&request)?;
            callbacks.start.get(py).call([&request, &scope, &receive, &send])
        };
        let task = match start() {
            Ok(task) => task,
            Err(raised) => {
                let exception = raised.take(py);
                return socket.end_task(py, Some(&exception)).map(drop);
            }
        };
        let waker = self.runtime.gone_waker(number);
        if socket.with_exchange(py, |exchange| exchange.on_disconnect(waker))?.is_some() {
            self.keep(py, number, Target::WebSocket, &request, task)?;
        }
        Ok(())
    }

    /// Keeps a request for its wakers.
    fn keep(
        &self,
        py: Python<'_>,
        number: u64,
        target: Target,
        request: &Object<'_>,
        task: Object<'_>,
    ) -> PyResult<()> {
        let open = Open { target, request: request.clone().store(), task: task.store() };
        self.runtime.open(py)?.insert(number, open);
        Ok(())
    }

    /// Handles what the engine's turn has brought for requests whose task waits.
    fn wake_tasks(&self, py: Python<'_>, callbacks: &Callbacks) -> PyResult<()> {
        let runtime = self.runtime;
        for number in runtime.take_woken() {
            let Some((target, request, _)) = self.open_request(py, number)? else { continue };
            match target {
                Target::Http => self.http.http.value(&request)?.wake(py)?,
                Target::WebSocket => self.websocket.socket.value(&request)?.wake(py)?,
            }
        }
        for number in runtime.take_gone() {
            let Some((target, request, task)) = self.open_request(py, number)? else { continue };
            let is_late = match target {
                Target::Http => self.http.http.value(&request)?.set_gone(py)?,
                Target::WebSocket => {
                    self.websocket.socket.value(&request)?.set_gone(py)?;
                    Some(false)
                }
            };
            if let Some(is_late) = is_late
                && !task.is_none()
            {
                callbacks.gone.get(py).call([&task, &py.truth(is_late)?])?;
            }
        }
        if runtime.interpreter.drain.has_begun() && self.drained_from_ns.get().is_none() {
            self.drained_from_ns.set(Some(now_ns()));
            for (_, target, request) in self.all_open(py)? {
                match target {
                    Target::Http => self.http.http.value(&request)?.drain(py)?,
                    Target::WebSocket => self.websocket.socket.value(&request)?.drain(py)?,
                }
            }
        }
        Ok(())
    }

    /// Returns all requests that are open.
    fn all_open<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u64, Target, Object<'py>)>> {
        let open = self.runtime.open(py)?;
        let each = open.iter();
        Ok(each
            .map(|(number, open)| (*number, open.target, open.request.get(py).clone()))
            .collect())
    }

    /// Returns the request and the task of a number, unless the task has ended.
    fn open_request<'py>(
        &self,
        py: Python<'py>,
        number: u64,
    ) -> PyResult<Option<(Target, Object<'py>, Object<'py>)>> {
        let open = self.runtime.open(py)?;
        let Some(open) = open.get(&number) else { return Ok(None) };
        let (request, task) = (open.request.get(py).clone(), open.task.get(py).clone());
        Ok(Some((open.target, request, task)))
    }
}

/// `descriptor()` of the engine.
fn descriptor<'py>(
    py: Python<'py>,
    running: &Running,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(running.engine(py)?.descriptor().into())
}

/// `start(create_future, state, start, gone, stopped)`: sets the functions that a turn calls, and the state of the
/// application's lifespan, `None` without one.
fn start<'py>(
    py: Python<'py>,
    running: &Running,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let names = ["create_future", "state", "start", "gone", "stopped"];
    let [create_future, state, start, gone, stopped] = arguments.take(names)?;
    let stored = |argument, name| Ok(required(py, argument, name)?.store());
    let runtime = running.runtime;
    let _ = runtime.create_future.set(stored(create_future, "create_future")?);
    if let Some(state) = state.filter(|state| !state.is_none()) {
        runtime.scopes(py)?.set_state(state);
    }
    let callbacks = Callbacks {
        start: stored(start, "start")?,
        gone: stored(gone, "gone")?,
        stopped: stored(stopped, "stopped")?,
    };
    let _ = running.callbacks.set(callbacks);
    Ok(py.none())
}

/// `turn()`: runs a turn of the engine, and what follows from it.
fn turn<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let engine = running.engine(py)?;
    let Some(callbacks) = running.callbacks.get() else {
        return Err(PyErrSet::new(py, Exception::Runtime, "turn() was called before start()"));
    };
    if let Err(failure) = engine.turn() {
        return Err(PyErrSet::new(py, Exception::Runtime, &failure.to_string()));
    }
    running.wake_tasks(py, callbacks)?;
    running.start_tasks(py, callbacks)?;
    if engine.stopped() {
        let drained_ns =
            running.drained_from_ns.get().map_or(0, |from| now_ns().saturating_sub(from));
        callbacks.stopped.get(py).call([&py.number(drained_ns as i64)?])?;
    }
    Ok(py.none())
}

/// `beat()`: sends a heartbeat, while the application shuts down.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn beat<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    running.runtime.interpreter.host.notify();
    Ok(py.none())
}

/// `tick()`: does what is due for WebSockets: pings, and the end of connections that do not answer.
fn tick<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let (runtime, now) = (running.runtime, now_ns());
    for (number, target, request) in running.all_open(py)? {
        if let Target::WebSocket = target
            && running.websocket.socket.value(&request)?.tick(py, now)?
            && let Some(open) = runtime.forget(py, number)?
        {
            drop((open.request.take(py), open.task.take(py)));
        }
    }
    Ok(py.none())
}
