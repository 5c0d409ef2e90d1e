//! The sync worker class: one request at a time, then the connection is closed. gunicorn's sync worker, with two of
//! its faults left out: a client that is slow with its head or its body, to read a response that is
//! complete, or to close, delays no one else.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the class: what the host makes and runs |
//! | `serve` | the loop: accept, serve, wait |
//! | `waiting` | connections that are not being served: silent, slow with a head, a body or a response, or closing |
//! | `driver` | how the exchange of a sync worker waits: poll(2) on its connection |
//!
//! The application runs on the only thread. While it does, nothing else happens in this process, the heartbeat
//! included: `timeout` is the limit of a request that computes.

#![forbid(unsafe_code)]

mod driver;
mod serve;
mod waiting;

use kit::config::Config;
use kit::{WorkerBase, blocking};
use worker_api::{Capabilities, Failure, Host, Result, Worker, WorkerContext, WorkerFactory};

use crate::serve::Server;

/// A worker that serves one request at a time.
pub struct SyncWorker {
    base: WorkerBase,
}

impl Worker for SyncWorker {
    fn init_process(&self) -> Result<()> {
        self.base.app.init_worker(blocking::runtime(&self.base.context))
    }

    fn run(&self) -> Result<()> {
        let mut server = Server::new(&self.base)
            .map_err(|error| Failure::io("the sync worker cannot watch its sockets", &error))?;
        server.run().map_err(|error| Failure::io("the sync worker's wait failed", &error))
    }
}

impl WorkerFactory for SyncWorker {
    const NAME: &'static str = "sync";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "one request at a time, one connection for each";
    const CAPABILITIES: Capabilities = Capabilities::NONE;

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        Ok(Self { base: WorkerBase::with_buffers(context, false)? })
    }
}

worker_api::export_worker_class!(SyncWorker);
