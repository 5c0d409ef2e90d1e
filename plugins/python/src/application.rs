//! The application as seen by the host, as far as the interface that it speaks does not matter: importing it, forks, hooks,
//! signals, exiting. The plugins' implementations of [`worker_api::App`] delegate to it.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use worker_api::{Failure, FailureKind, Host, Result, fork};

use crate::{GlobalRef, Interpreter, PyErrSet, PyResult, Python, arenas, attach, faults};

/// Makes the interpreter that this process is usable. Called once, in the mold, before anything else of this crate.
///
/// # Errors
/// This process has loaded a Python application before, or it is not a Python interpreter.
pub fn adopt_interpreter() -> Result<()> {
    if STARTED.swap(true, Ordering::AcqRel) {
        return Err(Failure::unsupported("this process has already loaded a Python application"));
    }
    // SAFETY: the check above makes it the first time; the mold has one thread.
    unsafe { crate::adopt() }.map_err(|reason| Failure::new(FailureKind::LOAD, reason))
}

/// An application: the callable that [`Application::load`] imports, and its hooks.
pub struct Application {
    interpreter: &'static Interpreter,
    /// How an application of this interface is loaded.
    loader: Loader,
    spec: String,
    /// Whether the application is loaded in the mold, before the workers are forked.
    preload: bool,
    hooks: OnceLock<GlobalRef>,
}

/// How an application is loaded: functions of Python modules, by name.
#[derive(Clone, Copy, Debug)]
pub struct Loader {
    /// The function of `jimu.py` that imports the application.
    pub load: &'static str,
    /// The method of the hooks that returns the application with those around each request.
    pub wrap: &'static str,
}

impl Application {
    /// Prepares the interpreter for the import of the application's code. `spec` names the application.
    pub fn new(interpreter: &'static Interpreter, loader: Loader, spec: String) -> Result<Self> {
        let preload = interpreter.host.setting_bool("preload_app");
        let app = Self { interpreter, loader, spec, preload, hooks: OnceLock::new() };
        app.prepare(&interpreter.host)?;
        Ok(app)
    }

    fn prepare(&self, host: &Host) -> Result<()> {
        let chdir = host.setting_text("chdir").unwrap_or_else(|| ".".to_owned());
        let mut directories = host.setting_list("pythonpath");
        directories.push(chdir);
        self.attached("cannot set up the interpreter", |py| {
            let paths = directories
                .iter()
                .map(|directory| py.text(&absolute(directory)))
                .collect::<PyResult<Vec<_>>>()?;
            self.interpreter.helper(py, "prepare", [&py.list(paths)?])?;
            if host.setting_bool("capture_output") {
                self.interpreter.helper(py, "capture_output", [])?;
            }
            faults::report_in_mold(self.interpreter, py)
        })?;
        self.load_hooks(host)
    }

    fn load_hooks(&self, host: &Host) -> Result<()> {
        let Some(name) = host.setting_text("hooks_module").filter(|name| !is_library(name)) else {
            return Ok(());
        };
        let hooks = self.attached(&format!("cannot load the hooks module {name}"), |py| {
            let module = py.module("_jimu_hooks", include_str!("hooks.py"), &[])?;
            Ok(module.call_method("Hooks", [&py.text(&name)?])?.store())
        })?;
        let _ = self.hooks.set(hooks);
        Ok(())
    }

    /// Runs `work` attached. An exception becomes a failure of kind LOAD, with the traceback as its detail.
    pub fn attached<T>(
        &self,
        doing: &str,
        work: impl FnOnce(Python<'_>) -> PyResult<T>,
    ) -> Result<T> {
        attach(|py| work(py).map_err(|raised| self.failure_of(py, doing, raised)))
    }

    /// Converts an exception to a failure of kind LOAD, with the traceback as its detail, unless the message says
    /// everything.
    pub fn failure_of(&self, py: Python<'_>, doing: &str, raised: PyErrSet) -> Failure {
        let (line, traceback) = self.interpreter.describe(py, raised);
        let complete = [
            ("jimu.ApplicationError: ", FailureKind::LOAD),
            ("jimu.InterfaceError: ", FailureKind::INTERFACE),
        ];
        for (prefix, kind) in complete {
            if let Some(line) = line.strip_prefix(prefix) {
                return Failure::new(kind, format!("{doing}: {line}"));
            }
        }
        Failure::new(FailureKind::LOAD, format!("{doing}: {line}")).with_detail(traceback)
    }

    /// Imports the application's callable. See [`worker_api::App::load`].
    pub fn load(&self) -> Result<()> {
        let name =
            if self.spec.is_empty() { "the project in the working directory" } else { &self.spec };
        let application = self.attached(&format!("cannot load {name}"), |py| {
            let before = std::process::id();
            let loaded = self.interpreter.helper(py, self.loader.load, [&py.text(&self.spec)?]);
            if std::process::id() != before {
                self.interpreter.end_child(py, loaded.err());
            }
            let mut application = loaded?;
            if self.preload {
                self.interpreter.process.reset_mold(py)?;
            }
            if let Some(hooks) = self.hooks.get() {
                application = hooks.get(py).call_method(self.loader.wrap, [&application])?;
            }
            if !self.preload {
                self.freeze(py);
            }
            Ok(application.store())
        })?;
        let _ = self.interpreter.application.set(application);
        Ok(())
    }

    /// See [`worker_api::App::before_fork`].
    pub fn before_fork(&self) {
        if self.preload {
            attach(|py| self.freeze(py));
        }
        crate::before_fork();
    }

    /// Excludes what is loaded from garbage collection: pages that workers share stay shared, and collections take no
    /// longer with a large application than with a small one.
    fn freeze(&self, py: Python<'_>) {
        if let Err(raised) = self.interpreter.helper(py, "freeze", []) {
            self.interpreter.report(py, raised, "cannot freeze what is loaded");
        }
    }

    /// See [`worker_api::App::after_fork`].
    pub fn after_fork(&self, in_child: bool) {
        crate::after_fork(in_child);
        if !in_child {
            return;
        }
        let interpreter = self.interpreter;
        attach(|py| {
            if let Err(raised) = interpreter.process.reset_worker(py) {
                interpreter.report(py, raised, "cannot restore the server's signal handlers");
            }
            if let Err(raised) = faults::report(interpreter, py, self.hooks.get()) {
                interpreter.report(py, raised, "cannot enable tracebacks for faults");
            }
        });
    }

    /// See [`worker_api::App::init_worker`].
    pub fn init_worker(&self) -> Result<()> {
        let wakeup = self.interpreter.host.signal_descriptor();
        self.attached("cannot set up the worker", |py| {
            arenas::keep_freed(py);
            self.interpreter.process.start_worker(py, wakeup)
        })
    }

    /// See [`worker_api::App::hook`].
    pub fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        let Some(hooks) = self.hooks.get() else { return Ok(()) };
        if event == "worker_abort" && faults::is_handed_to_python() {
            return Ok(());
        }
        attach(|py| {
            let call = || {
                let facts = facts.iter().map(|f| py.number(*f)).collect::<PyResult<Vec<_>>>()?;
                hooks.get(py).call_method("call", [&py.text(event)?, &py.list(facts)?])
            };
            let called = call();
            if fork::is_child() {
                self.interpreter.end_child(py, called.err());
            }
            called.map(drop).map_err(|raised| {
                let (line, traceback) = self.interpreter.describe(py, raised);
                Failure::application(format!("the hook {event} failed: {line}"))
                    .with_detail(traceback)
            })
        })
    }

    /// Returns the stack of each thread. See [`worker_api::App::trace`].
    pub fn trace(&self) -> String {
        self.text_of("trace")
    }

    /// See [`worker_api::App::files`].
    pub fn files(&self) -> Vec<String> {
        self.text_of("files").lines().map(str::to_owned).collect()
    }

    /// See [`worker_api::App::shutdown`].
    pub fn shutdown(&self) {
        self.text_of("shut_down");
    }

    /// See [`worker_api::App::drain`].
    pub fn drain(&self) {
        // Takes the interpreter's lock only if there are functions to call, because a hung thread may hold it.
        if self.interpreter.drain.begin() {
            self.text_of("run_drain_functions");
        }
    }

    /// See [`worker_api::App::stack_size`].
    pub fn stack_size(&self) -> usize {
        self.text_of("stack_size").parse().unwrap_or_default()
    }

    /// Returns the result of a function of `jimu.py` without arguments, as text.
    fn text_of(&self, function: &str) -> String {
        attach(|py| {
            let text = self.interpreter.helper(py, function, []).map(|text| text.to_text());
            self.interpreter.text_or_report(py, text, &format!("error in {function}()"))
        })
    }
}

fn absolute(directory: &str) -> String {
    std::path::absolute(directory)
        .map_or_else(|_| directory.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn is_library(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "so")
}

/// Whether this process has adopted the interpreter: CPython has one per process.
static STARTED: AtomicBool = AtomicBool::new(false);
