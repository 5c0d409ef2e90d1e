//! The eventlet worker class: a greenlet for each listener that blocks in accept, and a green pool. gunicorn's
//! eventlet worker, with three of its faults left out: it takes a connection only when it can serve it, an idle
//! connection holds no greenlet, and nobody who waits to be accepted is lost when it stops.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the class: what the host makes and runs |
//! | `acceptor` | the greenlet that blocks in accept |
//! | `serve` | the green pool, and the main greenlet: heartbeat and stop |

#![forbid(unsafe_code)]

mod acceptor;
mod serve;

use std::cell::OnceCell;
use std::rc::Rc;

use green_kit::Process;
use kit::WorkerBase;
use kit::config::Config;
use worker_api::{Capabilities, Failure, Host, Result, Worker, WorkerContext, WorkerFactory};

/// A worker that accepts in greenlets and serves in a green pool.
pub struct EventletWorker {
    base: Rc<WorkerBase>,
    process: OnceCell<Process>,
}

impl Worker for EventletWorker {
    fn init_process(&self) -> Result<()> {
        let process = Process::new(Rc::clone(&self.base))?;
        self.process
            .set(process)
            .map_err(|_| Failure::application("the worker's process is prepared once"))
    }

    fn run(&self) -> Result<()> {
        let Some(process) = self.process.get() else {
            return Err(Failure::application("a worker is run after its init_process"));
        };
        let state = Rc::clone(process.state());
        let pool = serve::Pool::new(&state, process.greenlets_max());
        process.run(move || serve::main(&state, &pool))
    }

    fn handle_exit(&self) {
        if let Some(process) = self.process.get() {
            process.handle_exit();
        }
    }

    fn handle_quit(&self) {
        if let Some(process) = self.process.get() {
            process.handle_quit();
        }
    }
}

impl WorkerFactory for EventletWorker {
    const NAME: &'static str = "eventlet";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "an acceptor greenlet for each listener, and a green pool";
    const CAPABILITIES: Capabilities =
        Capabilities(Capabilities::DEFERRED.0 | Capabilities::LOOP.0 | Capabilities::COOPERATIVE.0);
    const GUEST_LOOP: &'static str = "eventlet";

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        Ok(Self { base: Rc::new(WorkerBase::new(context, true)?), process: OnceCell::new() })
    }
}

worker_api::export_worker_class!(EventletWorker);
