//! The eventlet worker class: an acceptor greenlet for each listener, and a green pool.
//!
//! It follows gunicorn's eventlet worker, with three differences:
//!
//! - It accepts a connection only when it can serve it.
//! - An idle connection occupies no greenlet.
//! - A worker that stops serves the connections in the backlog that no other worker would serve.
//!
//! | module | contents |
//! | --- | --- |
//! | `lib` | the class, as the host creates and runs it |
//! | `acceptor` | the acceptor greenlet |
//! | `serve` | the green pool, and the main greenlet: heartbeat and stop |

#![forbid(unsafe_code)]

mod acceptor;
mod serve;

use std::rc::Rc;

use jimu_green_kit::{CAPABILITIES, ProcessCell};
use jimu_kit::WorkerBase;
use jimu_kit::config::Config;
use worker_api::{Capabilities, Host, Result, Worker, WorkerContext, WorkerFactory};

/// A worker that accepts in greenlets and serves in a green pool.
pub struct EventletWorker {
    base: Rc<WorkerBase>,
    process: ProcessCell,
}

impl Worker for EventletWorker {
    fn init_process(&self) -> Result<()> {
        self.process.init(&self.base)
    }

    fn run(&self) -> Result<()> {
        let process = self.process.get()?;
        let state = Rc::clone(process.state());
        let pool = serve::Pool::new(&state, process.greenlets_max());
        process.run(move || serve::main(&state, &pool))
    }

    fn handle_exit(&self) {
        self.process.handle_exit();
    }

    fn handle_quit(&self) {
        self.process.handle_quit();
    }
}

impl WorkerFactory for EventletWorker {
    const NAME: &'static str = "eventlet";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "an acceptor greenlet for each listener, and a green pool";
    const CAPABILITIES: Capabilities = CAPABILITIES;
    const GUEST_LOOP: &'static str = "eventlet";

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        Ok(Self { base: Rc::new(WorkerBase::new(context, true)?), process: ProcessCell::default() })
    }
}

worker_api::export_worker_class!(EventletWorker);
