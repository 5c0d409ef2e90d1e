//! The base worker: what every class has in common, as in gunicorn's `workers/base.py`.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use worker_api::{AppHandle, Host, Result, WorkerContext};

use crate::accept::AcceptState;
use crate::clock::{deadline_after, nanoseconds, now_ns};
use crate::context::ServerContext;
use crate::socket::Acceptor;
use crate::threads;
use http1::ResponseStyle;

/// A worker's host, application, kit and listeners.
#[derive(Debug)]
pub struct WorkerBase {
    /// The host's services.
    pub host: Host,
    /// The application.
    pub app: AppHandle,
    /// What its connections share.
    pub context: Arc<ServerContext>,
    /// The listening sockets.
    pub acceptors: Vec<Acceptor>,
    stack_size: OnceLock<usize>,
}

impl WorkerBase {
    /// The base of a worker; `keep_alive` is whether its class serves several requests on a connection.
    pub fn new(worker: WorkerContext, keep_alive: bool) -> Result<Self> {
        Self::with_style(worker, keep_alive, ResponseStyle::GUNICORN)
    }

    /// As [`WorkerBase::new`], for a class with words of its own.
    pub fn with_style(
        worker: WorkerContext,
        keep_alive: bool,
        style: ResponseStyle,
    ) -> Result<Self> {
        let context = ServerContext::with_style(worker.host.clone(), keep_alive, style)?;
        Ok(Self::of(worker, context))
    }

    /// As [`WorkerBase::new`], for a class whose threads block: see [`ServerContext::with_buffers`].
    pub fn with_buffers(worker: WorkerContext, keep_alive: bool) -> Result<Self> {
        let context = ServerContext::with_buffers(worker.host.clone(), keep_alive)?;
        Ok(Self::of(worker, context))
    }

    fn of(worker: WorkerContext, context: Arc<ServerContext>) -> Self {
        let state = AcceptState::new();
        let acceptor = |listener| Acceptor::with_state(listener, &state);
        let acceptors = worker.host.listeners().iter().map(acceptor).collect();
        Self { host: worker.host, app: worker.app, context, acceptors, stack_size: OnceLock::new() }
    }

    /// The heartbeat: to be called at least once a second.
    pub fn tick(&self) {
        self.host.notify();
    }

    /// How long to wait where nothing happens: until the next sign of life, a second, or less where twice within
    /// `timeout` asks for it, as in gunicorn.
    pub fn pause(&self) -> Duration {
        self.context.config.timeout.map_or(TICK, |timeout| TICK.min(timeout / 2))
    }

    /// A thread that calls the application: with the stack that the application asks for, or with that of the main
    /// thread. Once `init_worker` has returned.
    pub fn thread(&self) -> thread::Builder {
        let size = *self.stack_size.get_or_init(|| threads::stack_size(&self.app));
        thread::Builder::new().stack_size(size)
    }

    /// Whether no other worker serves the same listeners.
    pub fn is_alone(&self) -> bool {
        self.host.setting_usize("workers").unwrap_or(1) == 1
    }

    /// Returns the listeners from which a worker that stops still accepts, each with the number of connections.
    ///
    /// Those are the connections that nobody else would serve. A listener that other workers serve is not among them.
    pub fn remaining_backlog(&self) -> impl Iterator<Item = (&Acceptor, u64)> {
        self.acceptors
            .iter()
            .map(|acceptor| (acceptor, self.host.remaining_backlog(acceptor.fd())))
            .filter(|(_, connections)| *connections > 0)
    }

    /// Until when a worker that stops now may finish what it has.
    pub fn graceful_deadline_ns(&self) -> u64 {
        deadline_after(now_ns(), self.context.config.graceful_timeout)
    }

    /// While a worker that ends waits for what the application does beside requests: when to look again.
    pub fn look_again_ns() -> u64 {
        now_ns() + nanoseconds(LOOK_AGAIN)
    }

    /// Until when a connection that is idle while the worker stops is kept: a client that is about to send its next
    /// request on it still gets its answer, and is told to close.
    pub fn idle_drain_deadline_ns() -> u64 {
        deadline_after(now_ns(), Some(FAREWELL))
    }
}

/// How often there is a sign of life, and the access log is flushed.
const TICK: Duration = Duration::from_secs(1);
/// How often a worker that ends looks whether its application still does something: nothing tells it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long an idle connection of a stopping worker waits for a last request.
const FAREWELL: Duration = Duration::from_secs(1);
