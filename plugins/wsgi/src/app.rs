//! The application as seen by the host.

use python::application::Loader;
use python::{Application, application, attach};
use worker_api::{
    App, AppContext, AppFactory, Engine, Exchange, Failure, FailureKind, Requirements, Result,
    Runtime, fork,
};

use crate::guest::{self, Loop};
use crate::request::Requests;
use crate::runtime::PythonRuntime;
use crate::serve::serve;
use crate::setup::{self, Plan};

/// How a WSGI application is loaded.
const LOADER: Loader = Loader { load: "load", wrap: "wrap" };

/// A WSGI application and the interpreter that it runs in.
pub struct Wsgi {
    runtime: &'static PythonRuntime,
    requests: &'static Requests,
    application: Application,
}

impl AppFactory for Wsgi {
    const NAME: &'static str = "wsgi";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        let host = &context.host;
        let guest = Loop::named(&context.guest_loop)?;
        application::adopt_interpreter()?;
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
        let application = Application::new(&requests.runtime.interpreter, LOADER, context.spec)?;
        Ok(Self { runtime: requests.runtime, requests, application })
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
        self.application.load()
    }

    fn before_fork(&self) {
        self.application.before_fork();
    }

    fn after_fork(&self, in_child: bool) {
        self.application.after_fork(in_child);
        if let Some(guest) = self.runtime.guest.as_ref().filter(|_| in_child) {
            attach(|py| {
                if let Err(raised) = guest.after_fork(py) {
                    self.runtime.interpreter.report(
                        py,
                        raised,
                        "cannot restore the guest loop after a fork",
                    );
                }
            });
        }
    }

    fn init_worker(&self, _runtime: Runtime) -> Result<()> {
        self.application.init_worker()
    }

    fn run_signal_handlers(&self) {
        // A guest loop runs Python code after each turn, and the handlers with it.
        if self.runtime.guest.is_none() {
            self.runtime.interpreter.process.run_handlers();
        }
    }

    fn wait_in_mold(&self, descriptor: i32) {
        // Python threads run while this thread is detached, but greenlets of a guest loop need the loop to
        // run.
        let Some(guest) = &self.runtime.guest else { return };
        attach(|py| {
            if let Err(raised) = guest.wait_in_mold(py, descriptor) {
                let doing = "error in a greenlet that the application started at import";
                self.runtime.interpreter.report(py, raised, doing);
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
            (self.runtime.guest.is_some(), self.runtime.interpreter.application.get())
        else {
            return Err(Failure::unsupported("this worker class does not use a guest loop"));
        };
        attach(|py| {
            let ran = guest::engine::run(py, self.requests, engine, &application.get(py));
            if fork::is_child() {
                self.runtime.interpreter.end_child(py, ran.err());
            }
            ran.map_err(|raised| {
                let (line, traceback) = self.runtime.interpreter.describe(py, raised);
                Failure::new(FailureKind::OTHER, format!("the guest loop failed: {line}"))
                    .with_detail(traceback)
            })
        })
    }

    fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        self.application.hook(event, facts)
    }

    fn trace(&self) -> String {
        let threads = self.application.trace();
        let Some(guest) = &self.runtime.guest else { return threads };
        let greenlets = attach(|py| {
            let interpreter = &self.runtime.interpreter;
            interpreter.text_or_report(py, guest.trace(py), "cannot trace the greenlets")
        });
        format!("{threads}\n{greenlets}")
    }

    fn files(&self) -> Vec<String> {
        self.application.files()
    }

    fn shutdown(&self) {
        self.application.shutdown();
    }

    fn drain(&self) {
        self.application.drain();
    }

    fn stack_size(&self) -> usize {
        self.application.stack_size()
    }
}
