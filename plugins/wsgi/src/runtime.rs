//! Per-process state of this library. There is one interpreter per process, so there is one [`PythonRuntime`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use worker_api::{Host, LogLevel};

use crate::environ::{Constants, EnvironBuilder};
use crate::guest::Guest;
use crate::logged::LoggedVariables;
use crate::python::{Cell, GlobalRef, Object, PyErrSet, PyResult, Python};
use crate::request::{Request, RequestObjects, Types};

/// Everything that is created once per process.
pub(crate) struct PythonRuntime {
    /// Services of the host.
    pub(crate) host: Host,
    /// The types and functions that Python sees.
    pub(crate) types: Types,
    /// The module `jimu`, from `jimu.py`.
    module: GlobalRef,
    /// The module of `socket.py`.
    socket_module: OnceLock<GlobalRef>,
    /// Whether `wsgi.websocket` is offered: if gevent-websocket's worker would offer it and it works.
    pub(crate) offers_websocket: bool,
    /// The module `_jimu_process`, from `process.py`.
    pub(crate) process: GlobalRef,
    /// Environ builders: as many as threads have used at the same time.
    environ_builders: Cell<Vec<Box<EnvironBuilder>>>,
    /// The parts of an environ that are the same in all requests.
    pub(crate) constants: Constants,
    /// Objects of finished requests, for reuse.
    pub(crate) pool: Cell<Vec<RequestObjects>>,
    /// Objects of finished requests to which the greenlet that served them still refers.
    deferred: Cell<Vec<RequestObjects>>,
    /// The guest loop, if the worker class's engine is driven by one.
    pub(crate) guest: Option<Guest>,
    /// Number of the last request.
    last: AtomicU64,
    /// Whether the warning about a body longer than its `Content-Length` has been logged.
    warned_of_excess: AtomicBool,
    /// The application, once it is loaded.
    pub(crate) application: OnceLock<GlobalRef>,
    /// Returned by an application that has responded on the socket directly.
    pub(crate) already_handled: GlobalRef,
    /// The string `close`.
    pub(crate) close: GlobalRef,
    /// Variables of the environ that the access log uses.
    logged: LoggedVariables,
}

/// Arguments of [`PythonRuntime::install`].
pub(crate) struct Parts {
    /// See [`PythonRuntime::host`].
    pub(crate) host: Host,
    /// See [`PythonRuntime::types`].
    pub(crate) types: Types,
    /// The module `jimu`.
    pub(crate) module: GlobalRef,
    /// See [`PythonRuntime::process`].
    pub(crate) process: GlobalRef,
    /// See [`PythonRuntime::guest`].
    pub(crate) guest: Option<Guest>,
    /// See [`PythonRuntime::constants`].
    pub(crate) constants: Constants,
    /// See [`PythonRuntime::offers_websocket`].
    pub(crate) offers_websocket: bool,
}

impl PythonRuntime {
    /// Returns the runtime of this process, for callbacks that receive no reference to it: functions called
    /// by Python, signal handlers.
    ///
    /// # Panics
    /// Before [`PythonRuntime::install`]. No Python object that calls into this library exists before that.
    pub(crate) fn get() -> &'static Self {
        RUNTIME.get().expect("installed before any Python object of this library exists")
    }

    /// Returns the runtime of this process, if it is installed.
    pub(crate) fn installed() -> Option<&'static Self> {
        RUNTIME.get()
    }

    /// Installs the runtime. Calling it again in a process has no effect.
    pub(crate) fn install(py: Python<'_>, parts: Parts) -> PyResult<&'static Self> {
        let Parts { host, types, module, process, guest, constants, offers_websocket } = parts;
        let runtime = Self {
            environ_builders: Cell::new(Vec::new()),
            constants,
            pool: Cell::new(Vec::new()),
            deferred: Cell::new(Vec::new()),
            last: AtomicU64::new(0),
            warned_of_excess: AtomicBool::new(false),
            application: OnceLock::new(),
            already_handled: module.get(py).attr_named("ALREADY_HANDLED")?.store(),
            close: py.name(b"close")?.store(),
            logged: LoggedVariables::default(),
            socket_module: OnceLock::new(),
            host,
            types,
            module,
            process,
            guest,
            offers_websocket,
        };
        Ok(RUNTIME.get_or_init(|| runtime))
    }

    /// Calls a function of `jimu.py`.
    pub(crate) fn helper<'py, const N: usize>(
        &self,
        py: Python<'py>,
        name: &str,
        arguments: [&Object<'py>; N],
    ) -> PyResult<Object<'py>> {
        self.module.get(py).call_method(name, arguments)
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
        py: Python<'py>,
        environ: &Object<'py>,
        objects: &RequestObjects,
    ) -> PyResult<()> {
        let arguments = [environ, &*objects.socket.get(py), &*objects.request.get(py)];
        let made = self.socket_module(py)?.call_method("websocket", arguments)?;
        if made.is_none() {
            return Ok(());
        }
        environ.set_item(&py.name(b"wsgi.websocket")?, &made)
    }

    /// Returns a request number that is unique in this process.
    pub(crate) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes the objects for a request from the pool, or creates them.
    pub(crate) fn request_objects(&self, py: Python<'_>) -> PyResult<RequestObjects> {
        if self.guest.is_some()
            && let Some(objects) = self.take_deferred(py)
        {
            return Ok(objects);
        }
        let pooled = self.pool.borrow(py).and_then(|mut pool| pool.pop());
        pooled.map_or_else(|| RequestObjects::new(py, &self.types), Ok)
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

    /// Returns the objects of a request to the pool, unless the application still refers to one of them.
    pub(crate) fn recycle(&self, py: Python<'_>, objects: RequestObjects) {
        if objects.is_free(py)
            && let Some(mut pool) = self.pool.borrow(py)
            && pool.len() < POOL_MAX
        {
            pool.push(objects);
            return;
        }
        objects.release(py, &self.types);
    }

    /// Keeps the objects of a finished request until the greenlet that served it no longer refers to them.
    pub(crate) fn defer_recycling(&self, py: Python<'_>, objects: RequestObjects) {
        if let Some(mut deferred) = self.deferred.borrow(py) {
            deferred.push(objects);
        }
    }

    /// Takes the first deferred objects that are free by now: usually those deferred last.
    fn take_deferred(&self, py: Python<'_>) -> Option<RequestObjects> {
        let mut deferred = self.deferred.borrow(py)?;
        let free = deferred.iter().position(|objects| objects.is_free(py));
        let free = free.map(|at| deferred.remove(at));
        // The oldest ones are held by the application.
        let kept = deferred.len().saturating_sub(DEFERRED_MAX);
        let kept: Vec<RequestObjects> = deferred.drain(..kept).collect();
        // Dropping objects can run Python code.
        drop(deferred);
        for objects in kept {
            self.recycle(py, objects);
        }
        free
    }

    /// Logs once per worker that a body is longer than its `Content-Length`: further ones usually are, too.
    #[cold]
    pub(crate) fn warn_of_excess(&self) {
        if !self.warned_of_excess.swap(true, Ordering::Relaxed) {
            let message = "a response body is longer than its Content-Length: the rest is dropped (logged once per \
                           worker)";
            self.host.log(LogLevel::WARNING, "wsgi", message);
        }
    }

    /// Returns whether the access log uses variables of the environ. If so,
    /// [`State::environ`](crate::request::State) must be set.
    pub(crate) fn logs_variables(&self, py: Python<'_>) -> PyResult<bool> {
        self.logged.is_wanted(py, &self.host)
    }

    /// Passes the environ's variables to the access log. Must be called before the exchange ends.
    pub(crate) fn log_variables(&self, py: Python<'_>, request: &Request) {
        if let Err(raised) = self.logged.pass_on(py, &self.host, request) {
            self.report(py, raised, "cannot pass the environ's variables to the access log");
        }
    }

    /// Logs an exception and its traceback.
    pub(crate) fn report(&self, py: Python<'_>, raised: PyErrSet, doing: &str) {
        let (_, traceback) = self.describe(py, raised);
        self.host.log(LogLevel::ERROR, "wsgi", format!("{doing}\n{traceback}").trim_end());
    }

    /// Formats an exception as one line and as a traceback.
    pub(crate) fn describe(&self, py: Python<'_>, raised: PyErrSet) -> (String, String) {
        let exception = raised.take(py);
        let texts = self
            .helper(py, "describe", [&exception])
            .and_then(|pair| Ok((pair.tuple_item(0)?.to_text(), pair.tuple_item(1)?.to_text())));
        texts.unwrap_or_else(|second| {
            second.clear(py);
            let text = exception.to_text();
            (format!("{}: {text}", exception.type_name()), String::new())
        })
    }
}

static RUNTIME: OnceLock<PythonRuntime> = OnceLock::new();

/// Maximum number of deferred requests.
const DEFERRED_MAX: usize = 16;
/// Maximum number of pooled requests; beyond that, each request creates its objects.
const POOL_MAX: usize = 1024;
