//! Per-process state of this library, without that of its requests. There is one interpreter per process, so there is
//! one [`PythonRuntime`]. It is passed where it is used; native objects and functions that Python calls refer to it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use worker_api::LogLevel;

use crate::environ::{Constants, EnvironBuilder};
use crate::guest::Guest;
use crate::logged::LoggedVariables;
use python::{Cell, GlobalRef, Interpreter, Object, PyResult, Python};

/// Everything that is created once per process.
pub(crate) struct PythonRuntime {
    /// What does not depend on the interface that the application speaks.
    pub(crate) interpreter: Interpreter,
    /// The module of `socket.py`.
    socket_module: OnceLock<GlobalRef>,
    /// Whether `wsgi.websocket` is offered: if gevent-websocket's worker would offer it and it works.
    pub(crate) offers_websocket: bool,
    /// Environ builders: as many as threads have used at the same time.
    environ_builders: Cell<Vec<Box<EnvironBuilder>>>,
    /// The parts of an environ that are the same in all requests.
    pub(crate) constants: Constants,
    /// The guest loop, if the worker class's engine is driven by one.
    pub(crate) guest: Option<Guest>,
    /// Number of the last request.
    last: AtomicU64,
    /// Whether the warning about a body longer than its `Content-Length` has been logged.
    warned_of_excess: AtomicBool,
    /// Returned by an application that has responded on the socket directly.
    pub(crate) already_handled: GlobalRef,
    /// The string `close`.
    pub(crate) close: GlobalRef,
    /// Variables of the environ that the access log uses.
    pub(crate) logged: LoggedVariables,
}

/// Arguments of [`PythonRuntime::new`].
pub(crate) struct Parts {
    /// See [`PythonRuntime::interpreter`].
    pub(crate) interpreter: Interpreter,
    /// See [`PythonRuntime::guest`].
    pub(crate) guest: Option<Guest>,
    /// See [`PythonRuntime::constants`].
    pub(crate) constants: Constants,
    /// See [`PythonRuntime::offers_websocket`].
    pub(crate) offers_websocket: bool,
}

impl PythonRuntime {
    /// Creates the runtime. It is never freed: Python objects refer to it, and a worker exits without finalizing
    /// Python.
    pub(crate) fn new(py: Python<'_>, parts: Parts) -> PyResult<&'static Self> {
        let Parts { interpreter, guest, constants, offers_websocket } = parts;
        let runtime = Self {
            environ_builders: Cell::new(Vec::new()),
            constants,
            last: AtomicU64::new(0),
            warned_of_excess: AtomicBool::new(false),
            already_handled: interpreter.of_module(py, "ALREADY_HANDLED")?.store(),
            close: py.name(b"close")?.store(),
            logged: LoggedVariables::default(),
            socket_module: OnceLock::new(),
            interpreter,
            guest,
            offers_websocket,
        };
        Ok(Box::leak(Box::new(runtime)))
    }

    /// Returns the module of `socket.py`, created on first use.
    pub(crate) fn socket_module<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        if let Some(module) = self.socket_module.get() {
            return Ok(module.get(py).clone());
        }
        let made = py.module("_jimu_socket", include_str!("socket.py"), &[])?;
        // Another thread may have been faster; both modules are equivalent.
        let _ = self.socket_module.set(made.clone().store());
        Ok(made)
    }

    /// Sets `wsgi.websocket` if the request can be upgraded to a WebSocket.
    #[cold]
    pub(crate) fn websocket<'py>(
        &self,
        environ: &Object<'py>,
        socket: &Object<'py>,
        request: &Object<'py>,
    ) -> PyResult<()> {
        let py = environ.py();
        let made = self.socket_module(py)?.call_method("websocket", [environ, socket, request])?;
        if made.is_none() {
            return Ok(());
        }
        environ.set_item(&py.name(b"wsgi.websocket")?, &made)
    }

    /// Returns a request number that is unique in this process.
    pub(crate) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs `work` with an environ builder that no other thread uses: an allocation can start the garbage
    /// collector, which can run Python code, which can switch threads.
    pub(crate) fn with_environ_builder<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut EnvironBuilder, &Constants) -> T,
    ) -> PyResult<T> {
        let pooled = self.environ_builders.borrow(py).and_then(|mut builders| builders.pop());
        let mut builder = match pooled {
            Some(builder) => builder,
            None => Box::new(EnvironBuilder::new(py)?),
        };
        let result = work(&mut builder, &self.constants);
        if let Some(mut builders) = self.environ_builders.borrow(py) {
            builders.push(builder);
        }
        Ok(result)
    }

    /// Logs once per worker that a body is longer than its `Content-Length`: further ones usually are, too.
    #[cold]
    pub(crate) fn warn_of_excess(&self) {
        if !self.warned_of_excess.swap(true, Ordering::Relaxed) {
            let message = "a response body is longer than its Content-Length: the rest is dropped (logged once per \
                           worker)";
            self.interpreter.log(LogLevel::WARNING, message);
        }
    }

    /// Returns whether the access log uses variables of the environ. If so, the environ must be kept until
    /// [`LoggedVariables::pass_on`].
    pub(crate) fn logs_variables(&self, py: Python<'_>) -> PyResult<bool> {
        self.logged.is_wanted(py, &self.interpreter.host)
    }
}
