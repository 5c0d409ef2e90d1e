//! The base of a worker: what every class has in common, as in gunicorn's `workers/base.py`.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use worker_api::{AppHandle, Host, Result, WorkerContext};

use crate::accept::{AcceptState, Acceptor};
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::spool::Buffering;
use crate::{crowd, hung_request, threads};
use jimu_http1::ResponseStyle;

/// A worker's host, application, shared state and listeners.
#[derive(Debug)]
pub struct WorkerBase {
    /// The host's services.
    pub host: Host,
    /// The application.
    pub app: AppHandle,
    /// The state that its connections share.
    pub context: Arc<ServerContext>,
    /// The listening sockets.
    pub acceptors: Vec<Acceptor>,
    stack_size: OnceLock<usize>,
}

impl WorkerBase {
    /// Creates the base of a worker; `keep_alive` is whether its class serves several requests on a
    /// connection.
    pub fn new(worker: WorkerContext, keep_alive: bool) -> Result<Self> {
        Self::with_style(worker, keep_alive, ResponseStyle::GUNICORN)
    }

    /// Like [`WorkerBase::new`], for a class with its own response style.
    pub fn with_style(
        worker: WorkerContext,
        keep_alive: bool,
        style: ResponseStyle,
    ) -> Result<Self> {
        let context = ServerContext::with_style(worker.host.clone(), keep_alive, style)?;
        Ok(Self::of(worker, context))
    }

    /// Like [`WorkerBase::new`], for a class whose threads block: see [`ServerContext::with_buffers`].
    pub fn with_buffers(
        worker: WorkerContext,
        keep_alive: bool,
        buffering: Buffering,
    ) -> Result<Self> {
        let context = ServerContext::with_buffers(worker.host.clone(), keep_alive, buffering)?;
        Ok(Self::of(worker, context))
    }

    fn of(worker: WorkerContext, context: Arc<ServerContext>) -> Self {
        hung_request::answer_at_abort(&context);
        let state = AcceptState::new();
        // SAFETY: the host keeps its listeners open until the class, which has stopped accepting, calls
        // `close_listeners`.
        let acceptor = |listener: &_| unsafe { Acceptor::with_state(listener, &state) };
        let acceptors = worker.host.listeners().iter().map(acceptor).collect();
        Self { host: worker.host, app: worker.app, context, acceptors, stack_size: OnceLock::new() }
    }

    /// Returns the descriptor that becomes readable when a signal arrives: see [`Host::wake_descriptor`].
    pub fn wake_fd(&self) -> BorrowedFd<'static> {
        // SAFETY: the host opens it before it creates the worker, and never closes it.
        unsafe { BorrowedFd::borrow_raw(self.host.wake_descriptor()) }
    }

    /// Sends a heartbeat: call it at least once a second.
    pub fn tick(&self) {
        self.host.notify();
    }

    /// Returns how long to wait if nothing happens: until the next heartbeat, which is a second, or less so
    /// that there are two within `timeout`, as in gunicorn.
    pub fn pause(&self) -> Duration {
        self.context.config.timeout.map_or(TICK, |timeout| TICK.min(timeout / 2))
    }

    /// Waits in poll(2), on the main thread of a class that does nothing else there: for a client if the worker `accepts`,
    /// and for a signal, at most until the next heartbeat. A worker that does not accept waits for a tenth of a second: a
    /// connection may end, or give way ([`crate::WaitingConnections::make_room`]).
    pub fn wait_for_clients(&self, accepts: bool) {
        let pause = if accepts { self.pause() } else { self.pause().min(crowd::PAUSE) };
        let listeners = self.acceptors.iter().filter(|_| accepts).map(AsFd::as_fd);
        let watched = listeners.chain([self.wake_fd()]);
        let mut polled: Vec<PollFd<'_>> =
            watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // A signal interrupts it, and an error of poll(2) is a lack of memory: the caller looks at the listeners in any case.
        let _ = poll(&mut polled, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
    }

    /// Returns a builder for threads that call the application, with the stack size that the application
    /// requests or that of the main thread. Valid once `init_worker` has returned.
    pub fn thread(&self) -> thread::Builder {
        let size = *self.stack_size.get_or_init(|| threads::stack_size(&self.app));
        thread::Builder::new().stack_size(size)
    }

    /// Returns whether no other worker serves the same listeners.
    pub fn is_alone(&self) -> bool {
        self.host.setting_usize("workers").unwrap_or(1) == 1
    }

    /// Returns the listeners from which a stopping worker still accepts, each with the number of connections.
    ///
    /// Those are connections that no other worker would serve. Listeners that other workers serve are not
    /// included.
    pub fn remaining_backlog(&self) -> impl Iterator<Item = (&Acceptor, u64)> {
        self.acceptors
            .iter()
            .map(|acceptor| (acceptor, self.host.remaining_backlog(acceptor.fd())))
            .filter(|(_, connections)| *connections > 0)
    }

    /// Returns the deadline by which a worker that stops now has to finish its requests.
    pub fn graceful_deadline(&self) -> Deadline {
        Deadline::from_now(self.context.config.graceful_timeout)
    }

    /// Cuts the requests that have outlasted `graceful_timeout`, for a class that ends before them: each whose response
    /// has not begun receives a 500. Logs those with the application's stack traces, and the number of connections that
    /// end with the worker. Does nothing if there are none.
    pub fn cut_requests(&self, connections: usize) {
        if connections == 0 {
            return;
        }
        let mut requests = Vec::new();
        hung_request::answer_all(&self.context, |line| {
            if requests.len() < LISTED_MAX {
                requests.push(line.describe());
            }
        });
        let message = format!(
            "connections closed: {connections}; requests did not finish within graceful_timeout"
        );
        if requests.is_empty() {
            // Responses that have begun, or connections that the application has taken over.
            return tracing::warn!("{message}");
        }
        tracing::warn!("{message}: {}", requests.join(", "));
        let trace = self.app.trace();
        if !trace.is_empty() {
            tracing::warn!("stack traces of the application:\n{}", trace.trim_end());
        }
    }

    /// Returns when to check again for background work of the application, while a worker drains.
    pub fn look_again() -> Deadline {
        Deadline::from_now(BACKGROUND_POLL)
    }

    /// Returns the deadline of idle connections in a worker that stops now: a client that is just sending its
    /// next request on one still receives a response, which closes the connection.
    pub fn idle_drain_deadline() -> Deadline {
        Deadline::from_now(IDLE_DRAIN)
    }
}

/// The maximum number of requests that a log line names.
const LISTED_MAX: usize = 10;
/// The interval of heartbeats, and of flushing the access log.
const TICK: Duration = Duration::from_secs(1);
/// How often a draining worker checks for background work: nothing signals its end.
const BACKGROUND_POLL: Duration = Duration::from_millis(50);
/// How long an idle connection of a stopping worker waits for a last request.
const IDLE_DRAIN: Duration = Duration::from_secs(1);
