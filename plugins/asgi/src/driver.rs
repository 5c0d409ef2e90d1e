//! The worker class's engine as a Python object, which `driver.py` holds: its descriptor and its turns. A turn starts a task
//! for each request that has arrived, and resolves the futures of operations that can be tried again.

use std::cell::OnceCell;
use std::ffi::CStr;

use python::clock::now_ns;
use python::engine::LoopEngine;
use python::{
    Arguments, Exception, GlobalRef, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, method, required,
};
use worker_api::Engine;

use crate::http::Http;
use crate::operation::Subject;
use crate::request::RequestTypes;
use crate::runtime::AsgiRuntime;
use crate::websocket::WebSocket;
use crate::websocket::handshake::{is_upgrade, refuse};

/// Runs the loop until the engine has stopped.
pub(crate) fn run<'py>(
    py: Python<'py>,
    runtime: &'static AsgiRuntime,
    engine: Engine,
    application: &Object<'py>,
) -> PyResult<()> {
    let running = Running {
        runtime,
        http: RequestTypes::new(py, runtime)?,
        websocket: RequestTypes::new(py, runtime)?,
        engine: LoopEngine::new(engine),
        callbacks: OnceCell::new(),
        drained_from_ns: std::cell::Cell::new(None),
    };
    let engine = NativeType::new(py)?.make(py, running)?;
    module(py)?.call_method("run", [&engine, application]).map(drop)
}

/// Returns the await stack of each task whose request's deadline has passed, once. The others have nothing to do with what
/// the log is about, and may be thousands.
pub(crate) fn trace_late(py: Python<'_>, runtime: &AsgiRuntime) -> PyResult<String> {
    let mut late = Vec::new();
    for open in runtime.open(py)?.values_mut().filter(|open| !open.is_traced) {
        if open.subject.is_late(py, &open.request.get(py))? && !open.task.get(py).is_none() {
            open.is_traced = true;
            late.push(open.task.get(py).clone());
        }
    }
    let module = module(py)?;
    let stack = |task: &Object<'_>| Ok(module.call_method("await_stack", [task])?.to_text());
    let stacks: PyResult<Vec<String>> = late.iter().map(stack).collect();
    Ok(stacks?.join("\n"))
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
    http: &'static RequestTypes<Http>,
    websocket: &'static RequestTypes<WebSocket>,
    engine: LoopEngine,
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

impl Callbacks {
    /// Handles in the task of a request, if it has not ended, that the client has disconnected or the deadline has passed.
    fn gone(&self, py: Python<'_>, task: &Object<'_>, is_late: bool) -> PyResult<()> {
        if task.is_none() {
            return Ok(());
        }
        self.gone.get(py).call([task, &py.truth(is_late)?]).map(drop)
    }
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
    /// Starts a task for each request that has arrived.
    fn start_tasks(&self, py: Python<'_>, callbacks: &Callbacks) -> PyResult<()> {
        let start = callbacks.start.get(py);
        while let Some(mut exchange) = self.runtime.next_ready() {
            if !is_upgrade(exchange.head()) {
                self.http.serve(py, &start, exchange)?;
            } else if !refuse(&mut exchange) {
                self.websocket.serve(py, &start, exchange)?;
            }
        }
        Ok(())
    }

    /// Handles what the engine's turn has brought for requests whose task waits.
    fn wake_tasks(&self, py: Python<'_>, callbacks: &Callbacks) -> PyResult<()> {
        let runtime = self.runtime;
        for number in runtime.take_woken() {
            if let Some((subject, request, task)) = self.open_request(py, number)?
                && subject.wake(py, &request)?
            {
                callbacks.gone(py, &task, false)?;
            }
        }
        for number in runtime.take_gone() {
            if let Some((subject, request, task)) = self.open_request(py, number)?
                && let Some(is_late) = subject.set_gone(py, &request)?
            {
                callbacks.gone(py, &task, is_late)?;
            }
        }
        if runtime.interpreter.drain.has_begun() && self.drained_from_ns.get().is_none() {
            self.drained_from_ns.set(Some(now_ns()));
            for (subject, request) in self.all_open(py)? {
                subject.drain(py, &request)?;
            }
        }
        Ok(())
    }

    /// Returns all requests that are open.
    fn all_open<'py>(&self, py: Python<'py>) -> PyResult<Vec<(&'static dyn Subject, Object<'py>)>> {
        let open = self.runtime.open(py)?;
        Ok(open.values().map(|open| (open.subject, open.request.get(py).clone())).collect())
    }

    /// Returns the request and the task of a number, unless the request is over.
    fn open_request<'py>(
        &self,
        py: Python<'py>,
        number: u64,
    ) -> PyResult<Option<(&'static dyn Subject, Object<'py>, Object<'py>)>> {
        let open = self.runtime.open(py)?;
        let Some(open) = open.get(&number) else { return Ok(None) };
        Ok(Some((open.subject, open.request.get(py).clone(), open.task.get(py).clone())))
    }
}

/// `descriptor()` of the engine.
fn descriptor<'py>(
    py: Python<'py>,
    running: &Running,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(running.engine.get(py)?.descriptor().into())
}

/// `start(create_future, arm, state, start, gone, stopped)`: sets the functions that a turn calls, `arm` that sets the timer
/// for `tick`, and the state of the application's lifespan, `None` without one.
fn start<'py>(
    py: Python<'py>,
    running: &Running,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let names = ["create_future", "arm", "state", "start", "gone", "stopped"];
    let [create_future, arm, state, start, gone, stopped] = arguments.take(names)?;
    let stored = |argument, name| Ok(required(py, argument, name)?.store());
    let runtime = running.runtime;
    let _ = runtime.create_future.set(stored(create_future, "create_future")?);
    let _ = runtime.arm.set(stored(arm, "arm")?);
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
    let Some(callbacks) = running.callbacks.get() else {
        return Err(PyErrSet::new(py, Exception::Runtime, "turn() was called before start()"));
    };
    let is_running = running.engine.turn(py)?;
    running.wake_tasks(py, callbacks)?;
    running.start_tasks(py, callbacks)?;
    if !is_running {
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

/// `tick()`: does what is due for WebSockets when the timer has fired: pings, and the end of connections that do not answer.
fn tick<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let now = now_ns();
    for number in running.runtime.take_due(py, now)? {
        if let Some((subject, request, _)) = running.open_request(py, number)? {
            subject.tick(py, &request, now)?;
        }
    }
    running.runtime.arm_timer(py)?;
    Ok(py.none())
}
