//! The gthread worker class: a poller on the main thread, and a pool of threads that call the application.
//! gunicorn's gthread worker, with four of its faults left out: it takes a connection only when a thread is free to
//! serve it, holds no thread for a head or a body that is not whole, a complete response or a connection that is idle, has
//! another thread serve in the place of one whose client keeps it waiting, and does not wait for a client to close on the
//! thread that accepts.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the class: what the host makes and runs |
//! | `serve` | the main thread's loop: accept, keep the time, notice what is ready where no thread of the pool does |
//! | `pollers` | the descriptors for which the worker waits, and who waits for them |
//! | `table` | the connections: in the poller, or with somebody |
//! | `pool` | the threads and the queue of whole requests before them |
//! | `shared` | how an exchange waits on a thread, and where its connection goes afterwards |
//!
//! The heartbeat is the main thread's: a request that computes for long holds up its own thread alone.

#![forbid(unsafe_code)]

mod pollers;
mod pool;
mod serve;
mod shared;
mod table;

use kit::config::Config;
use kit::{WorkerBase, blocking};
use worker_api::{Capabilities, Failure, Host, Result, Worker, WorkerContext, WorkerFactory};

use crate::serve::Server;

/// A worker with a pool of threads.
pub struct GthreadWorker {
    base: WorkerBase,
    threads: usize,
}

impl Worker for GthreadWorker {
    fn init_process(&self) -> Result<()> {
        self.base.app.init_worker(blocking::runtime(&self.base.context))
    }

    fn run(&self) -> Result<()> {
        let mut server = Server::new(&self.base, self.threads).map_err(|error| {
            Failure::io("the gthread worker cannot start its poller and threads", &error)
        })?;
        server.run().map_err(|error| Failure::io("the gthread worker's wait failed", &error))
    }
}

impl WorkerFactory for GthreadWorker {
    const NAME: &'static str = "gthread";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "a pool of threads, connections kept alive in a poller";
    const CAPABILITIES: Capabilities =
        Capabilities(Capabilities::DEFERRED.0 | Capabilities::THREADS.0);

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let threads = context.host.setting_usize("threads").unwrap_or(1).max(1);
        Ok(Self { base: WorkerBase::with_buffers(context, true)?, threads })
    }
}

worker_api::export_worker_class!(GthreadWorker);
