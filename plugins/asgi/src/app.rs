//! The application as seen by the host.

use python::application::Loader;
use python::{Application, application, attach};
use worker_api::{
    App, AppContext, AppFactory, Engine, Exchange, Failure, FailureKind, Requirements, Result,
    Runtime, fork,
};

use crate::driver;
use crate::runtime::AsgiRuntime;

/// How an ASGI application is loaded.
const LOADER: Loader = Loader { load: "load_asgi", wrap: "wrap_asgi" };

/// An ASGI application and the interpreter that it runs in.
pub struct Asgi {
    runtime: &'static AsgiRuntime,
    application: Application,
}

impl AppFactory for Asgi {
    const NAME: &'static str = "asgi";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(context: AppContext) -> Result<Self> {
        if context.guest_loop != "asyncio" {
            return Err(Failure::unsupported(format!(
                "the worker class {} cannot serve an ASGI application; use --worker-class asgi",
                context.class
            )));
        }
        application::adopt_interpreter()?;
        let runtime = attach(|py| {
            AsgiRuntime::new(py, context.host)
                .map_err(|raised| Failure::new(FailureKind::LOAD, raised.take(py).to_text()))
        })?;
        let application = Application::new(&runtime.interpreter, LOADER, context.spec)?;
        Ok(Self { runtime, application })
    }
}

impl App for Asgi {
    fn requirements(&self) -> Requirements {
        Requirements::LOOP | Requirements::DEFERRED
    }

    fn load(&self) -> Result<()> {
        self.application.load()
    }

    fn before_fork(&self) {
        self.application.before_fork();
    }

    fn after_fork(&self, in_child: bool) {
        self.application.after_fork(in_child);
    }

    fn init_worker(&self, _runtime: Runtime) -> Result<()> {
        self.application.init_worker()
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        self.runtime.take(exchange.detach());
        Ok(())
    }

    fn run_loop(&self, engine: Engine) -> Result<()> {
        let interpreter = &self.runtime.interpreter;
        let Some(application) = interpreter.application.get() else {
            return Err(Failure::application("the application is not loaded"));
        };
        attach(|py| {
            let ran = driver::run(py, self.runtime, engine, &application.get(py));
            if fork::is_child() {
                interpreter.end_child(py, ran.err());
            }
            ran.map_err(|raised| self.application.failure_of(py, "the event loop failed", raised))
        })
    }

    fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        self.application.hook(event, facts)
    }

    fn trace(&self) -> String {
        let threads = self.application.trace();
        let tasks = attach(|py| {
            let interpreter = &self.runtime.interpreter;
            interpreter.text_or_report(
                py,
                driver::trace_late(py, self.runtime),
                "cannot trace the tasks",
            )
        });
        format!("{threads}\n{tasks}")
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
