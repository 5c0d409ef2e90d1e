//! The worker class's engine as a Python object, which `driver.py` holds: its descriptor and its turns. A turn starts a task
//! for each request that has arrived, and resolves the futures of operations that can be tried again.

use std::cell::OnceCell;
use std::ffi::CStr;
use std::thread::{self, ThreadId};

use python::{
    Arguments, Exception, GlobalRef, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, method, required,
};
use worker_api::Engine;

use crate::http::Http;
use crate::runtime::{AsgiRuntime, Open};

/// Runs the loop until the engine has stopped.
pub(crate) fn run<'py>(
    py: Python<'py>,
    runtime: &'static AsgiRuntime,
    engine: Engine,
    application: &Object<'py>,
) -> PyResult<()> {
    let running = Running {
        runtime,
        engine,
        thread: thread::current().id(),
        callbacks: OnceCell::new(),
        has_drained: std::cell::Cell::new(false),
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
    engine: Engine,
    /// The only thread that may use the engine.
    thread: ThreadId,
    /// Set by `start()`.
    callbacks: OnceCell<Callbacks>,
    has_drained: std::cell::Cell<bool>,
}

/// Functions of `driver.py`.
struct Callbacks {
    /// Starts a task for a request: `start(request, scope, receive, send)` returns the task, or `None` if it has ended.
    start: GlobalRef,
    /// Called with the task of a request and whether its deadline has passed; otherwise the client has disconnected.
    gone: GlobalRef,
    /// Called once, when the engine has stopped.
    stopped: GlobalRef,
}

impl Native for Running {
    const NAME: &'static CStr = c"jimu.Engine";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"descriptor", entry: method!(descriptor) },
        Method { name: c"start", entry: method!(start) },
        Method { name: c"turn", entry: method!(turn) },
        Method { name: c"beat", entry: method!(beat) },
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
            let http = Http::new(self.runtime, exchange);
            let number = http.number;
            let request = self.runtime.types.http.make(py, http)?;
            if let Err(raised) = self.start_task(py, callbacks, number, &request) {
                let exception = raised.take(py);
                self.runtime.types.http.value(&request)?.end_request(py, Some(&exception))?;
            }
        }
        Ok(())
    }

    fn start_task<'py>(
        &self,
        py: Python<'py>,
        callbacks: &Callbacks,
        number: u64,
        request: &Object<'py>,
    ) -> PyResult<()> {
        let runtime = self.runtime;
        let types = &runtime.types;
        let http = types.http.value(request)?;
        let scope = http.scope(py)?;
        let receive = types.http.bind(&types.receive, request)?;
        let send = types.http.bind(&types.send, request)?;
        let task = callbacks.start.get(py).call([request, &scope, &receive, &send])?;
        if task.is_none() {
            return Ok(());
        }
        let watched =
            http.with_exchange(py, |exchange| exchange.on_disconnect(runtime.gone_waker(number)))?;
        if watched.is_some() {
            let open = Open { request: request.clone().store(), task: task.store() };
            runtime.open(py)?.insert(number, open);
        }
        Ok(())
    }

    /// Handles what the engine's turn has brought for requests whose task waits.
    fn wake_tasks(&self, py: Python<'_>, callbacks: &Callbacks) -> PyResult<()> {
        let runtime = self.runtime;
        for number in runtime.take_woken() {
            if let Some((request, _)) = self.open_request(py, number)? {
                runtime.types.http.value(&request)?.wake(py)?;
            }
        }
        for number in runtime.take_gone() {
            if let Some((request, task)) = self.open_request(py, number)? {
                let is_late = runtime.types.http.value(&request)?.set_gone(py)?;
                callbacks.gone.get(py).call([&task, &py.truth(is_late)?])?;
            }
        }
        if runtime.interpreter.drain.has_begun() && !self.has_drained.replace(true) {
            let open: Vec<Object<'_>> =
                runtime.open(py)?.values().map(|open| open.request.get(py).clone()).collect();
            for request in open {
                runtime.types.http.value(&request)?.drain(py)?;
            }
        }
        Ok(())
    }

    /// Returns the request and the task of a number, unless the task has ended.
    fn open_request<'py>(
        &self,
        py: Python<'py>,
        number: u64,
    ) -> PyResult<Option<(Object<'py>, Object<'py>)>> {
        let open = self.runtime.open(py)?;
        Ok(open.get(&number).map(|open| (open.request.get(py).clone(), open.task.get(py).clone())))
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
        callbacks.stopped.get(py).call([])?;
    }
    Ok(py.none())
}

/// `beat()`: sends a heartbeat, while the application shuts down.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn beat<'py>(py: Python<'py>, running: &Running, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    running.runtime.interpreter.host.notify();
    Ok(py.none())
}
