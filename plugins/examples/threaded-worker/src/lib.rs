//! A worker class with one thread for each connection: simple, and a good choice if a few hundred clients talk to an
//! application that computes or blocks.
//!
//! The main thread accepts, sends the heartbeat and receives signals. The thread of a connection does everything else,
//! waits included, so no request waits for another. `worker_connections` limits the threads: a further client takes the
//! place of the one that has sent no request for longest.

mod connection;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jimu_kit::config::Config;
use jimu_kit::{AcceptResult, Acceptor, Connection, WorkerBase, blocking, clock};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use worker_api::{
    Capabilities, Counter, Failure, Host, Result, Worker, WorkerContext, WorkerFactory,
};

use crate::connection::Shared;

worker_api::export_worker_class!(Threaded);

/// The worker: one per process, used on its main thread.
pub struct Threaded {
    base: WorkerBase,
    shared: Arc<Shared>,
    /// The end of a pause after an accept has failed, in monotonic nanoseconds.
    rest_until_ns: Cell<u64>,
}

impl WorkerFactory for Threaded {
    const NAME: &'static str = "threaded";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "a thread for each connection";
    const CAPABILITIES: Capabilities = Capabilities::THREADS;

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let base = WorkerBase::new(context, true)?;
        let shared = Shared::new(&base)
            .map_err(|error| Failure::io("cannot start the threaded worker", &error))?;
        Ok(Self { base, shared, rest_until_ns: Cell::new(0) })
    }
}

impl Worker for Threaded {
    fn init_process(&self) -> Result<()> {
        self.base.host.count(Counter::SLOTS, self.base.context.config.worker_connections as i64);
        self.base.app.init_worker(blocking::runtime(&self.base.context))
    }

    fn run(&self) -> Result<()> {
        while self.base.host.alive() {
            self.base.tick();
            let accepts =
                clock::now_ns() >= self.rest_until_ns.get() && !self.base.context.is_stuck();
            let acceptors = if accepts { &self.base.acceptors[..] } else { &[] };
            self.turn(acceptors).map_err(|error| Failure::io("cannot wait", &error))?;
        }
        self.finish().map_err(|error| Failure::io("cannot wait for the remaining requests", &error))
    }
}

impl Threaded {
    /// Waits once, and handles signals, the end of a thread, and new connections.
    fn turn(&self, acceptors: &[Acceptor]) -> io::Result<()> {
        let rest_ns = self.rest_until_ns.get().saturating_sub(clock::now_ns());
        let rest = if rest_ns == 0 { Duration::MAX } else { Duration::from_nanos(rest_ns) };
        let pause = self.base.pause().min(rest);
        let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        let ready = wait(self.base.wake_fd(), self.shared.wakeup(), acceptors, pause)?;
        self.base.host.deliver_signals();
        for acceptor in acceptors.iter().filter(|acceptor| ready.contains(&acceptor.fd())) {
            if self.shared.open() < self.base.context.config.worker_connections {
                self.accept(acceptor);
            } else {
                // The end of a thread, or a while, makes room: until then the listeners would be reported again and again.
                self.shared.waiting.make_room(acceptor.waiting());
                self.rest_until_ns.set(clock::now_ns() + clock::nanoseconds(CROWDED));
            }
        }
        if self.shared.clear_wakeup() {
            self.rest_until_ns.set(0);
        }
        Ok(())
    }

    /// Accepts one connection; returns whether there may be another one. One at a time, so that workers share the load.
    fn accept(&self, acceptor: &Acceptor) -> bool {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.base.host.count(Counter::ACCEPTED, 1);
                self.start(Connection::new(&self.base.context, accepted));
                true
            }
            AcceptResult::Empty => false,
            AcceptResult::Rest(pause) => {
                self.rest_until_ns.set(clock::now_ns() + clock::nanoseconds(pause));
                false
            }
        }
    }

    fn start(&self, connection: Box<Connection>) {
        let opened = self.shared.opened();
        let body = move || opened.serve(connection);
        if let Err(error) = self.base.thread().name("connection".to_owned()).spawn(body) {
            tracing::warn!("connection closed: cannot start a thread: {error}");
        }
    }

    /// Stops gracefully: accepts the part of the backlog that no other worker would serve, closes the listeners, and waits
    /// for the threads.
    fn finish(&self) -> io::Result<()> {
        self.base.context.drain();
        let deadline = self.base.graceful_deadline();
        let in_time = || !deadline.is_past();
        for (acceptor, mut left) in self.base.remaining_backlog() {
            while left > 0 && in_time() && !self.base.context.is_stuck() && self.accept(acceptor) {
                left -= 1;
            }
        }
        self.base.host.close_listeners();
        while self.shared.open() > 0 && in_time() {
            self.base.tick();
            self.turn(&[])?;
        }
        while !self.base.context.background.is_idle() && in_time() {
            self.base.tick();
            thread::sleep(LOOK_AGAIN);
        }
        self.base.cut_requests(self.shared.open());
        Ok(())
    }
}

/// Waits, and returns the descriptors that are ready.
fn wait(
    wake: BorrowedFd<'_>,
    wakeup: impl AsFd,
    acceptors: &[Acceptor],
    pause: PollTimeout,
) -> io::Result<Vec<RawFd>> {
    let wakeup = wakeup.as_fd();
    let descriptors = [wake, wakeup].into_iter().chain(acceptors.iter().map(AsFd::as_fd));
    let mut polled: Vec<PollFd<'_>> =
        descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
    match poll(&mut polled, pause) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let ready = polled.iter().filter(|descriptor| descriptor.any().unwrap_or(false));
    Ok(ready.map(|descriptor| descriptor.as_fd().as_raw_fd()).collect())
}

/// How long a worker without room for a connection does not look at its listeners, unless a thread ends.
const CROWDED: Duration = Duration::from_millis(100);
/// How often a worker that stops checks whether the application still runs background tasks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
