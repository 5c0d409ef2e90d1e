//! Per-process state of this library. There is one interpreter per process, so there is one [`PythonRuntime`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use worker_api::raw::Value;
use worker_api::{Host, LogLevel};

use crate::drain;
use crate::environ::{Constants, EnvironBuilder};
use crate::function;
use crate::guest::{Guest, Loop};
use crate::logged::LoggedVariables;
use crate::python::{
    Arguments, Cell, Definition, Exception, Function, GlobalRef, NativeType, Object, PyErrSet,
    PyResult, Python, required,
};
use crate::request::{self, Request, RequestObjects, Socket};

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
    constants: Constants,
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
    /// Type of `wsgi.file_wrapper`.
    pub(crate) file_wrapper: GlobalRef,
    /// Returned by an application that has responded on the socket directly.
    pub(crate) already_handled: GlobalRef,
    /// The string `close`.
    pub(crate) close: GlobalRef,
    /// Variables of the environ that the access log uses.
    logged: LoggedVariables,
}

/// The types and functions that Python sees.
pub(crate) struct Types {
    pub(crate) request: NativeType<Request>,
    pub(crate) socket: NativeType<Socket>,
    pub(crate) start_response: Definition,
    pub(crate) write: Definition,
    pub(crate) early_hints: Definition,
}

/// Arguments of [`PythonRuntime::install`].
pub(crate) struct Plan {
    /// Services of the host.
    pub(crate) host: Host,
    /// Whether several threads or greenlets serve at once.
    pub(crate) multithread: bool,
    /// `GATEWAY_INTERFACE`, which gevent's server sets and gunicorn does not.
    pub(crate) gateway_interface: Option<&'static str>,
    /// Guest loop to drive the worker class's engine.
    pub(crate) guest: Option<Loop>,
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

    /// Returns whether the runtime is installed.
    pub(crate) fn is_installed() -> bool {
        RUNTIME.get().is_some()
    }

    /// Installs the runtime. Calling it again in a process has no effect.
    pub(crate) fn install(py: Python<'_>, plan: Plan) -> PyResult<&'static Self> {
        let runtime = Self::new(py, plan)?;
        Ok(RUNTIME.get_or_init(|| runtime))
    }

    fn new(py: Python<'_>, plan: Plan) -> PyResult<Self> {
        // Must precede every import of something that the loop patches.
        let patched = plan.guest.map(|guest| guest.patch(py)).transpose()?;
        let log = Definition::new(Function { name: c"_log", entry: function!(log) });
        let setting = Definition::new(Function { name: c"_setting", entry: function!(setting) });
        let write = Definition::new(Function { name: c"_write", entry: function!(write_log) });
        let [draining, watch] = drain::natives(py)?;
        let log = ("_log", log.bind(&py.none())?);
        let write = ("_write", write.bind(&py.none())?);
        let natives = [log, write, ("_setting", setting.bind(&py.none())?), draining, watch];
        let module = py.module("jimu", include_str!("jimu.py"), &natives)?;
        let process = crate::process::module(py)?.store();
        crate::process::install(py, &process)?;
        let limited = plan.host.setting_duration("request_timeout").is_some();
        let file_wrapper = module.attr_named("FileWrapper")?;
        let constants = Constants {
            multithread: plan.multithread,
            gateway_interface: plan.gateway_interface,
            multiprocess: plan.host.setting_int("workers").is_some_and(|workers| workers > 1),
            software: format!("jimu/{}", env!("CARGO_PKG_VERSION")),
            errors: module.attr_named("errors")?.store(),
            file_wrapper: file_wrapper.clone().store(),
            script_name: OnceLock::new(),
        };
        Ok(Self {
            types: Types {
                request: NativeType::new(py)?,
                socket: NativeType::new(py)?,
                start_response: Definition::new(Function {
                    name: c"start_response",
                    entry: function!(request::start_response),
                }),
                write: Definition::new(Function {
                    name: c"write",
                    entry: function!(request::write),
                }),
                early_hints: Definition::new(Function {
                    name: c"early_hints",
                    entry: function!(request::early_hints),
                }),
            },
            environ_builders: Cell::new(Vec::new()),
            constants,
            pool: Cell::new(Vec::new()),
            deferred: Cell::new(Vec::new()),
            guest: patched.map(|module| Guest::new(py, module, limited)).transpose()?,
            last: AtomicU64::new(0),
            warned_of_excess: AtomicBool::new(false),
            application: OnceLock::new(),
            file_wrapper: file_wrapper.store(),
            already_handled: module.attr_named("ALREADY_HANDLED")?.store(),
            close: py.name(b"close")?.store(),
            logged: LoggedVariables::default(),
            module: module.store(),
            socket_module: OnceLock::new(),
            offers_websocket: plan.guest == Some(Loop::Gevent),
            process,
            host: plan.host,
        })
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
        pooled.map_or_else(|| RequestObjects::new(py, self), Ok)
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
        objects.release(py, self);
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
        describe(py, &self.module.get(py), raised)
    }
}

/// Does the work of [`PythonRuntime::describe`], also before the runtime exists.
fn describe(py: Python<'_>, module: &Object<'_>, raised: PyErrSet) -> (String, String) {
    let exception = raised.take(py);
    let texts = module.attr_named("describe").and_then(|describe| {
        let pair = describe.call([&exception])?;
        Ok((pair.tuple_item(0)?.to_text(), pair.tuple_item(1)?.to_text()))
    });
    texts.unwrap_or_else(|second| {
        second.clear(py);
        let text = exception.to_text();
        (format!("{}: {text}", exception.type_name()), String::new())
    })
}

/// `_log(level, target, message)`, for `jimu.py`. The level is a number of the module `logging`.
fn log<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [level, target, message] = arguments.take(["level", "target", "message"])?;
    let level = match required(py, level, "level")?.as_number()? {
        50.. => LogLevel::CRITICAL,
        40..50 => LogLevel::ERROR,
        30..40 => LogLevel::WARNING,
        20..30 => LogLevel::INFO,
        _ => LogLevel::DEBUG,
    };
    let (target, message) = (required(py, target, "target")?, required(py, message, "message")?);
    let Some(runtime) = RUNTIME.get() else {
        return Err(PyErrSet::new(py, Exception::Runtime, "the log is not yet available"));
    };
    runtime.host.log(level, target.as_str()?, message.as_str()?);
    Ok(py.none())
}

/// `_write(target, text)`, for `jimu.py`: writes `text`, which is `bytes`, to the error log unchanged.
fn write_log<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [target, text] = arguments.take(["target", "text"])?;
    let (target, text) = (required(py, target, "target")?, required(py, text, "text")?);
    let (Some(runtime), Some(text)) = (RUNTIME.get(), text.as_bytes()) else {
        return Err(PyErrSet::new(py, Exception::Type, "_write() takes bytes"));
    };
    runtime.host.write_log(target.as_str()?, text);
    Ok(py.none())
}

/// `_setting(name)`: returns the value of a setting; `None` if it is not set.
fn setting<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [name] = arguments.take(["name"])?;
    let name = required(py, name, "name")?;
    let value = RUNTIME.get().and_then(|runtime| runtime.host.setting(name.as_str().ok()?));
    match value {
        None => Ok(py.none()),
        Some(Value::Bool(truth)) => py.truth(truth),
        Some(Value::Int(number)) => py.number(number),
        Some(Value::Text(text)) => py.text(&text),
        // Times are integers in gunicorn.
        Some(Value::Float(number)) if number.fract() == 0.0 => py.number(number as i64),
        Some(Value::Float(number)) => {
            let text = py.text(&number.to_string())?;
            py.import("builtins")?.call_method("float", [&text])
        }
        Some(Value::List(items)) => {
            let items = items.iter().map(|item| py.text(item)).collect::<PyResult<Vec<_>>>()?;
            py.list(items)
        }
    }
}

static RUNTIME: OnceLock<PythonRuntime> = OnceLock::new();

/// Maximum number of deferred requests.
const DEFERRED_MAX: usize = 16;
/// Maximum number of pooled requests; beyond that, each request creates its objects.
const POOL_MAX: usize = 1024;
