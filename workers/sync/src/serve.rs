//! The loop, as in gunicorn's sync worker: accepts without waiting, serves and closes until the backlog is empty, then
//! waits.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use jimu_kit::clock::now_ns;
use jimu_kit::{
    AcceptQueue, AcceptResult, Acceptor, Advance, Connection, Deadline, RequestDeadlines,
    TimedOutRequest, WorkerBase,
};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use worker_api::{Counter, Host};

use crate::driver::SyncDriver;
use crate::waiting::WaitingConnections;

/// The state of the worker's loop.
pub(crate) struct Server<'a> {
    base: &'a WorkerBase,
    epoll: Epoll,
    waiting: WaitingConnections,
    deadlines: RequestDeadlines,
    accept_queue: AcceptQueue,
    /// Whether the listeners are in the epoll: not while accepting is paused.
    listening: bool,
    /// The end of a pause in accepting, in monotonic nanoseconds; 0 for none.
    pause_ends: Deadline,
    wake: RawFd,
}

impl<'a> Server<'a> {
    pub(crate) fn new(base: &'a WorkerBase) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = base.wake_fd();
        epoll.add(wake, EpollEvent::new(EpollFlags::EPOLLIN, wake.as_raw_fd() as u64))?;
        let host = base.host.clone();
        let deadlines = RequestDeadlines::start(base, move |requests| end_worker(&host, requests))?;
        let accept_queue = AcceptQueue::new(base);
        let waiting = WaitingConnections::default();
        let mut server = Self {
            base,
            epoll,
            waiting,
            deadlines,
            accept_queue,
            listening: false,
            pause_ends: Deadline::NEVER,
            wake: wake.as_raw_fd(),
        };
        server.listen()?;
        Ok(server)
    }

    /// Serves until the worker has to stop, then finishes the requests that have begun.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.base.host.alive() {
            self.base.tick();
            self.end_pause();
            let tick = Deadline::from_now(self.base.pause());
            self.turn(tick.min(self.pause_ends))?;
        }
        self.finish()
    }

    /// Waits until `until` at the latest, and handles the events.
    fn turn(&mut self, until: Deadline) -> io::Result<()> {
        for ready in self.wait(until)? {
            if ready == self.wake {
                self.base.host.deliver_signals();
            } else if let Some(connection) = self.waiting.take(ready) {
                self.advance(connection);
            } else if let Some(acceptor) = self.base.acceptors.iter().find(|a| a.fd() == ready)
                && self.accept_waiting(acceptor) > 0
                && self.listening
            {
                self.accept_queue.requeue(&self.epoll, acceptor)?;
            }
        }
        for mut late in self.waiting.take_expired() {
            let next = late.expire();
            self.settle(late, next);
        }
        Ok(())
    }

    fn wait(&mut self, until: Deadline) -> io::Result<Vec<RawFd>> {
        let until = until.min(self.waiting.deadline());
        let left_ms = until.left_ns_at(now_ns()).div_ceil(1_000_000).min(WAIT_MAX_MS);
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        match self.epoll.wait(&mut events, EpollTimeout::from(left_ms as u16)) {
            Ok(count) => Ok(events[..count].iter().map(|event| event.data() as RawFd).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Accepts and serves connections of the backlog. Returns their number.
    ///
    /// While connections are parked, it is at most one: the head of a parked connection may have arrived during the
    /// request, and that client has waited for longer than the next one in the backlog. The epoll reports parked
    /// connections in the order in which they became ready. While none is parked, skipping the epoll between two requests
    /// saves a system call.
    fn accept_waiting(&mut self, acceptor: &Acceptor) -> usize {
        let mut taken = 0;
        while taken < ACCEPTS_MAX && self.accept(acceptor) {
            taken += 1;
            if self.waiting.len() > 0 {
                break;
            }
        }
        taken
    }

    /// Accepts a connection, if there is one, and serves it. Returns whether there was one.
    fn accept(&mut self, acceptor: &Acceptor) -> bool {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.base.host.count(Counter::ACCEPTED, 1);
                self.make_room();
                self.advance(Connection::new(&self.base.context, accepted));
                self.base.tick();
                true
            }
            AcceptResult::Empty => false,
            AcceptResult::Rest(pause) => {
                self.pause(pause);
                false
            }
        }
    }

    /// Advances a connection: serves a complete request at once, parks the connection otherwise.
    fn advance(&mut self, mut connection: Box<Connection>) {
        let mut next = connection.advance();
        while next == Advance::Request {
            let driver = SyncDriver::new(&self.base.host, &self.deadlines);
            self.deadlines.call(connection, driver.clone());
            if let Some(released) = driver.take() {
                connection = released;
            } else {
                tracing::error!(
                    "the application detached an exchange, which a sync worker does not support"
                );
                return;
            }
            next = connection.advance();
        }
        self.settle(connection, next);
    }

    fn settle(&mut self, connection: Box<Connection>, next: Advance) {
        match next {
            Advance::Wait(interest) => {
                if let Err(error) = self.waiting.park(&self.epoll, connection, interest) {
                    tracing::warn!("cannot watch a connection: {error}");
                }
            }
            Advance::Request => self.advance(connection),
            Advance::Closed => self.close(connection),
        }
    }

    /// At `worker_connections`, closes the connection that has waited longest, or serves it if its request has arrived.
    fn make_room(&mut self) {
        while self.waiting.len() >= self.base.context.config.worker_connections {
            let Some(mut oldest) = self.waiting.take_oldest() else { return };
            match oldest.yield_now() {
                Advance::Wait(_) | Advance::Closed => {
                    self.base.context.note_crowd(1);
                    self.close(oldest);
                }
                Advance::Request => self.advance(oldest),
            }
        }
    }

    fn close(&self, connection: Box<Connection>) {
        if connection.is_duplicated() {
            // Fails if the connection was never parked, which needs no cleanup.
            let _ = self.epoll.delete(&*connection);
        }
        drop(connection);
    }

    /// Closes a parked connection and pauses accepting, after an accept has failed for want of resources, so that the loop
    /// does not spin.
    fn pause(&mut self, pause: Duration) {
        if let Some(oldest) = self.waiting.take_oldest() {
            self.close(oldest);
        }
        self.unlisten();
        self.pause_ends = Deadline::from_now(pause);
    }

    /// Listens again after a pause. If the epoll cannot take the listeners, the next turn tries again.
    fn end_pause(&mut self) {
        let pause_ended = self.pause_ends.is_never() || self.pause_ends.is_past();
        if !self.listening && pause_ended && self.base.host.alive() {
            self.pause_ends = Deadline::NEVER;
            let _ = self.listen();
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        self.accept_queue.register(&self.epoll)?;
        self.listening = true;
        Ok(())
    }

    fn unlisten(&mut self) {
        self.accept_queue.deregister(&self.epoll);
        self.listening = false;
    }

    /// Stops gracefully: serves the part of the backlog that no other worker would serve, closes the listeners, and keeps
    /// parked connections for the time that a request may already be on its way.
    fn finish(&mut self) -> io::Result<()> {
        self.base.context.drain();
        let deadline = self.base.graceful_deadline();
        self.unlisten();
        let base = self.base;
        for (acceptor, mut left) in base.remaining_backlog() {
            while left > 0 && !deadline.is_past() && self.accept(acceptor) {
                left -= 1;
                if self.waiting.len() > 0 {
                    self.turn(Deadline::PAST)?;
                }
            }
        }
        self.base.host.close_listeners();
        self.waiting.shorten_idle_deadline(WorkerBase::idle_drain_deadline());
        while (self.waiting.len() > 0 || !self.base.context.background.is_idle())
            && !deadline.is_past()
        {
            self.base.tick();
            self.turn(deadline.min(WorkerBase::look_again()))?;
        }
        Ok(())
    }
}

/// Ends this process: its only thread serves a request that has timed out, and nothing else can end that request. The
/// arbiter starts another worker.
fn end_worker(host: &Host, requests: &[TimedOutRequest]) {
    for request in requests {
        request.record(host);
    }
    tracing::error!("worker aborted: a sync worker cannot abandon a request that has timed out");
    // A process can always signal itself.
    let _ = kill(Pid::this(), Signal::SIGABRT);
}

/// The number of connections that are accepted and served, while none is parked, between two waits.
const ACCEPTS_MAX: usize = 16;
/// The number of events that one wait returns.
const EVENTS_MAX: usize = 64;
/// The longest wait in milliseconds.
const WAIT_MAX_MS: u64 = 1000;
