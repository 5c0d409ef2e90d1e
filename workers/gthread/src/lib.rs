//! The gthread worker class: a main thread, and a pool of threads that call the application. One of them at a time accepts
//! connections and waits for requests: a thread of the pool while requests are short, otherwise the main thread.
//!
//! It follows gunicorn's gthread worker, with four differences:
//!
//! - It accepts a connection when a thread is free to serve it, or when no worker has accepted it for 50 ms.
//! - An incomplete head or body, the sending of a complete response, and an idle connection occupy no thread.
//! - While a thread is blocked on its client, another thread serves in its place.
//! - The thread that accepts never waits for a client to close its connection.
//!
//! | module | contents |
//! | --- | --- |
//! | `lib` | the class, as the host creates and runs it |
//! | `serve` | the main thread's loop: enforces deadlines, accepts and polls the connections while it is the leader |
//! | `entrance` | accepting, by the main thread or a thread of the pool |
//! | `pool` | the leader/followers pool of threads, and the queue of complete requests |
//! | `pollers` | the epolls, and the descriptors that wake the threads |
//! | `table` | the connections by descriptor: waiting in the table, or lent to a thread |
//! | `shared` | what the main thread and the pool share; how an exchange waits on a thread |
//!
//! The main thread sends the heartbeat, so a request that computes for long delays only its own thread.

#![forbid(unsafe_code)]

mod entrance;
mod pollers;
mod pool;
mod serve;
mod shared;
mod table;

use jimu_kit::config::Config;
use jimu_kit::{Buffering, WorkerBase, blocking};
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
            Failure::io("cannot start the threads of the gthread worker", &error)
        })?;
        server
            .run()
            .map_err(|error| Failure::io("the event loop of the gthread worker failed", &error))
    }
}

impl WorkerFactory for GthreadWorker {
    const NAME: &'static str = "gthread";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "a pool of threads, with keep-alive connections in an epoll";
    const CAPABILITIES: Capabilities =
        Capabilities(Capabilities::DEFERRED.0 | Capabilities::THREADS.0);

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let threads = context.host.setting_usize("threads").unwrap_or(1).max(1);
        Ok(Self { base: WorkerBase::with_buffers(context, true, Buffering::Slow)?, threads })
    }
}

worker_api::export_worker_class!(GthreadWorker);
