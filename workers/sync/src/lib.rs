//! The sync worker class: serves one request at a time, and closes the connection after each.
//!
//! It follows gunicorn's sync worker, with one difference: a client that sends its head or its body slowly, that reads a
//! complete response slowly, or that is slow to close its connection does not delay other clients.
//!
//! | module | contents |
//! | --- | --- |
//! | `lib` | the class, as the host creates and runs it |
//! | `serve` | the loop: accept, serve, wait |
//! | `waiting` | connections that are not being served: idle, sending a head or a body, reading a response, or closing |
//! | `driver` | how the exchange of a sync worker waits: poll(2) on its connection |
//!
//! The application runs on the only thread. While it computes, this process does nothing else and sends no heartbeat, so
//! `timeout` limits the time that a request may compute.

#![forbid(unsafe_code)]

mod driver;
mod serve;
mod waiting;

use jimu_kit::config::Config;
use jimu_kit::{Buffering, WorkerBase, blocking};
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
        server
            .run()
            .map_err(|error| Failure::io("the event loop of the sync worker failed", &error))
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
        Ok(Self { base: WorkerBase::with_buffers(context, false, Buffering::All)? })
    }
}

worker_api::export_worker_class!(SyncWorker);
