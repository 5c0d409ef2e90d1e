//! The application as seen by the host.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use worker_api::{
    App, AppContext, AppFactory, Engine, Exchange, Failure, FailureKind, Host, Requirements,
    Result, Runtime, fork,
};

use crate::drain;
use crate::faults;
use crate::guest::{self, Loop};
use crate::python::{self, GlobalRef, PyResult, Python, attach};
use crate::request::Requests;
use crate::runtime::PythonRuntime;
use crate::serve::serve;
use crate::setup::{self, Plan};

/// A WSGI application and the interpreter that it runs in.
pub struct Wsgi {
    runtime: &'static PythonRuntime,
    requests: &'static Requests,
    spec: String,
    /// Whether the application is loaded in the mold, before the workers are forked.
    preload: bool,
    hooks: OnceLock<GlobalRef>,
}

impl AppFactory for Wsgi {
    const NAME: &'static str = "wsgi";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        let host = &context.host;
        let guest = Loop::named(&context.guest_loop)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Failure::unsupported(
                "this process has already loaded a Python application",
            ));
        }
        // SAFETY: the check above makes it the first time; the mold has one thread.
        unsafe { python::adopt() }.map_err(|reason| Failure::new(FailureKind::LOAD, reason))?;
        let like_gevents = context.class == "pywsgi";
        let plan = Plan {
            host: host.clone(),
            multithread: context.class != "sync" && !like_gevents,
            gateway_interface: like_gevents.then_some("CGI/1.1"),
            guest,
        };
        let requests = attach(|py| {
            setup::create(py, plan)
                .map_err(|raised| Failure::new(FailureKind::LOAD, raised.take(py).to_text()))
        })?;
        let app = Self {
            runtime: requests.runtime,
            requests,
            spec: context.spec,
            preload: host.setting_bool("preload_app"),
            hooks: OnceLock::new(),
        };
        app.prepare(host)?;
        Ok(app)
    }
}

impl Wsgi {
    /// Prepares the interpreter for the import of the application's code.
    fn prepare(&self, host: &Host) -> Result<()> {
        let chdir = host.setting_text("chdir").unwrap_or_else(|| ".".to_owned());
        let mut directories = host.setting_list("pythonpath");
        directories.push(chdir);
        self.attached("cannot set up the interpreter", |py| {
            let paths = directories
                .iter()
                .map(|directory| py.text(&absolute(directory)))
                .collect::<PyResult<Vec<_>>>()?;
            self.runtime.helper(py, "prepare", [&py.list(paths)?])?;
            if host.setting_bool("capture_output") {
                self.runtime.helper(py, "capture_output", [])?;
            }
            faults::report_in_mold(self.runtime, py)
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
    fn attached<T>(&self, doing: &str, work: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
        attach(|py| {
            work(py).map_err(|raised| {
                let (line, traceback) = self.runtime.describe(py, raised);
                match line.strip_prefix("jimu.ApplicationError: ") {
                    Some(line) => Failure::new(FailureKind::LOAD, format!("{doing}: {line}")),
                    None => Failure::new(FailureKind::LOAD, format!("{doing}: {line}"))
                        .with_detail(traceback),
                }
            })
        })
    }
}

impl App for Wsgi {
    fn requirements(&self) -> Requirements {
        if self.runtime.guest.is_some() {
            Requirements::LOOP | Requirements::DEFERRED
        } else {
            Requirements::NONE
        }
    }

    fn load(&self) -> Result<()> {
        let name =
            if self.spec.is_empty() { "the project in the working directory" } else { &self.spec };
        let application = self.attached(&format!("cannot load {name}"), |py| {
            let before = std::process::id();
            let loaded = self.runtime.helper(py, "load", [&py.text(&self.spec)?]);
            if std::process::id() != before {
                self.runtime.end_child(py, loaded.err());
            }
            let mut application = loaded?;
            if self.preload {
                self.runtime.process.reset_mold(py)?;
            }
            if let Some(hooks) = self.hooks.get() {
                application = hooks.get(py).call_method("wrap", [&application])?;
            }
            Ok(application.store())
        })?;
        let _ = self.runtime.application.set(application);
        Ok(())
    }

    fn before_fork(&self) {
        if self.preload {
            attach(|py| {
                if let Err(raised) = self.runtime.helper(py, "freeze", []) {
                    self.runtime.report(py, raised, "cannot prepare Python for a fork");
                }
            });
        }
        python::before_fork();
    }

    fn after_fork(&self, in_child: bool) {
        python::after_fork(in_child);
        if in_child {
            attach(|py| {
                if let Err(raised) = self.runtime.process.reset_worker(py) {
                    self.runtime.report(py, raised, "cannot restore the server's signal handlers");
                }
                if let Err(raised) = faults::report(self.runtime, py, self.hooks.get()) {
                    self.runtime.report(py, raised, "cannot enable tracebacks for faults");
                }
            });
        }
        if let Some(guest) = self.runtime.guest.as_ref().filter(|_| in_child) {
            attach(|py| {
                if let Err(raised) = guest.after_fork(py) {
                    self.runtime.report(py, raised, "cannot restore the guest loop after a fork");
                }
            });
        }
    }

    fn init_worker(&self, _runtime: Runtime) -> Result<()> {
        let wakeup = self.runtime.host.signal_descriptor();
        self.attached("cannot set up the worker", |py| {
            self.runtime.process.start_worker(py, wakeup)
        })
    }

    fn run_signal_handlers(&self) {
        // A guest loop runs Python code after each turn, and the handlers with it.
        if self.runtime.guest.is_none() {
            self.runtime.process.run_handlers();
        }
    }

    fn wait_in_mold(&self, descriptor: i32) {
        // Python threads run while this thread is detached, but greenlets of a guest loop need the loop to
        // run.
        let Some(guest) = &self.runtime.guest else { return };
        attach(|py| {
            if let Err(raised) = guest.wait_in_mold(py, descriptor) {
                let doing = "error in a greenlet that the application started at import";
                self.runtime.report(py, raised, doing);
            }
        });
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        match &self.runtime.guest {
            None => serve(self.requests, exchange),
            Some(guest) => {
                guest.take(exchange.detach());
                Ok(())
            }
        }
    }

    fn run_loop(&self, engine: Engine) -> Result<()> {
        let (true, Some(application)) =
            (self.runtime.guest.is_some(), self.runtime.application.get())
        else {
            return Err(Failure::unsupported("this worker class does not use a guest loop"));
        };
        attach(|py| {
            let ran = guest::engine::run(py, self.requests, engine, &application.get(py));
            if fork::is_child() {
                self.runtime.end_child(py, ran.err());
            }
            ran.map_err(|raised| {
                let (line, traceback) = self.runtime.describe(py, raised);
                Failure::new(FailureKind::OTHER, format!("the guest loop failed: {line}"))
                    .with_detail(traceback)
            })
        })
    }

    fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
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
                self.runtime.end_child(py, called.err());
            }
            called.map(drop).map_err(|raised| {
                let (line, traceback) = self.runtime.describe(py, raised);
                Failure::application(format!("the hook {event} failed: {line}"))
                    .with_detail(traceback)
            })
        })
    }

    fn trace(&self) -> String {
        let threads = self.text_of("trace");
        let Some(guest) = &self.runtime.guest else { return threads };
        let greenlets = attach(|py| {
            guest.trace(py).unwrap_or_else(|raised| {
                self.runtime.report(py, raised, "cannot trace the greenlets");
                String::new()
            })
        });
        format!("{threads}\n{greenlets}")
    }

    fn files(&self) -> Vec<String> {
        self.text_of("files").lines().map(str::to_owned).collect()
    }

    fn shutdown(&self) {
        self.text_of("shut_down");
    }

    fn drain(&self) {
        drain::begin(self.runtime);
    }

    fn stack_size(&self) -> usize {
        self.text_of("stack_size").parse().unwrap_or_default()
    }
}

impl Wsgi {
    /// Returns the result of a function of `jimu.py` without arguments, as text.
    fn text_of(&self, function: &str) -> String {
        attach(|py| match self.runtime.helper(py, function, []) {
            Ok(text) => text.to_text(),
            Err(raised) => {
                self.runtime.report(py, raised, &format!("error in {function}()"));
                String::new()
            }
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

/// Whether this process has started the interpreter: CPython has one per process.
static STARTED: AtomicBool = AtomicBool::new(false);
