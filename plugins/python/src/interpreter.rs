//! Per-process state of a plugin, without that of its requests. There is one interpreter per process, so there is one
//! [`Interpreter`]. It is passed where it is used; native objects and functions that Python calls refer to it.

use std::sync::{Arc, OnceLock};

use worker_api::{Failure, FailureKind, Host, LogLevel};

use crate::process::Process;
use crate::server::{Drain, Server};
use crate::{GlobalRef, NativeType, Object, PyErrSet, PyResult, Python, jimu};

/// What is created once per process.
pub struct Interpreter {
    /// Services of the host.
    pub host: Host,
    /// Whether this worker drains.
    pub drain: Arc<Drain>,
    /// The object whose methods are the native functions of modules.
    pub server: GlobalRef,
    /// The module `jimu`, from `jimu.py`.
    module: GlobalRef,
    /// The module `_jimu_process`, from `process.py`.
    pub process: Process,
    /// The application, once it is loaded.
    pub application: OnceLock<GlobalRef>,
    /// The plugin's name: the target of its records in the log.
    target: &'static str,
    /// Whether the threads of a child that the application forked are joined before it exits.
    joins_threads: bool,
}

impl Interpreter {
    /// Creates the state for the plugin with the name `target`. `joins_threads` tells whether a child that the application
    /// forked joins its threads before it exits: not under a guest loop.
    pub fn new(
        py: Python<'_>,
        host: Host,
        target: &'static str,
        joins_threads: bool,
    ) -> PyResult<Self> {
        let drain = Arc::new(Drain::default());
        let server = Server { host: host.clone(), drain: Arc::clone(&drain) };
        let server = NativeType::new(py)?.make(py, server)?;
        let module = jimu::module(&server, target)?;
        let process = Process::install(&server)?;
        Ok(Self {
            host,
            drain,
            server: server.store(),
            module: module.store(),
            process,
            application: OnceLock::new(),
            target,
            joins_threads,
        })
    }

    /// Returns an attribute of the module `jimu`.
    pub fn of_module<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Object<'py>> {
        self.module.get(py).attr_named(name)
    }

    /// Calls a function of `jimu.py`.
    pub fn helper<'py, const N: usize>(
        &self,
        py: Python<'py>,
        name: &str,
        arguments: [&Object<'py>; N],
    ) -> PyResult<Object<'py>> {
        self.module.get(py).call_method(name, arguments)
    }

    /// Ends a process that the application has forked, after the application's code has returned or raised
    /// `raised`.
    pub fn end_child(&self, py: Python<'_>, raised: Option<PyErrSet>) -> ! {
        self.process.end_child(py, self.joins_threads, raised)
    }

    /// Logs a message under the plugin's name.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.host.log(level, self.target, message);
    }

    /// Logs an exception and its traceback.
    pub fn report(&self, py: Python<'_>, raised: PyErrSet, doing: &str) {
        let (_, traceback) = self.describe(py, raised);
        self.log(LogLevel::ERROR, format!("{doing}\n{traceback}").trim_end());
    }

    /// Returns the text; empty for an exception, which is logged.
    pub fn text_or_report(&self, py: Python<'_>, text: PyResult<String>, doing: &str) -> String {
        text.unwrap_or_else(|raised| {
            self.report(py, raised, doing);
            String::new()
        })
    }

    /// Formats an exception as one line and as a traceback.
    pub fn describe(&self, py: Python<'_>, raised: PyErrSet) -> (String, String) {
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

    /// Converts an exception to a failure, with the traceback for the log.
    #[cold]
    pub fn to_failure(&self, py: Python<'_>, kind: FailureKind, raised: PyErrSet) -> Failure {
        let (line, traceback) = self.describe(py, raised);
        let failure = Failure::new(kind, line);
        // A traceback without frames of the application adds nothing.
        if traceback.trim_end() == failure.message.as_str() {
            failure
        } else {
            failure.with_detail(traceback)
        }
    }
}
