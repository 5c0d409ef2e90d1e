//! The loop, as in gunicorn's sync worker: accept without waiting, serve, close, until nobody waits; then wait.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use kit::clock::{earlier, nanoseconds, now_ns};
use kit::{
    AcceptQueue, AcceptResult, Acceptor, Advance, Connection, RequestDeadlines, TimedOutRequest,
    WorkerBase,
};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use worker_api::{Counter, Host};

use crate::driver::Place;
use crate::waiting::WaitingConnections;

/// The worker's loop with what it waits for.
pub(crate) struct Server<'a> {
    base: &'a WorkerBase,
    epoll: Epoll,
    waiting: WaitingConnections,
    deadlines: RequestDeadlines,
    accept_queue: AcceptQueue,
    /// Whether the listeners are watched: not while accepting rests.
    listening: bool,
    /// Until when accepting rests; 0 where it does not.
    rest_until_ns: u64,
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
            rest_until_ns: 0,
            wake: wake.as_raw_fd(),
        };
        server.listen()?;
        Ok(server)
    }

    /// Serves until the worker is to end, then finishes what has been begun.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.base.host.alive() {
            self.base.tick();
            self.end_rest();
            let pause_ends_ns = now_ns() + nanoseconds(self.base.pause());
            self.turn(earlier(pause_ends_ns, self.rest_until_ns))?;
        }
        self.finish()
    }

    /// One wait, until `until_ns` at the latest, and what it brings.
    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        for ready in self.wait(until_ns)? {
            if ready == self.wake {
                self.base.host.deliver_signals();
            } else if let Some(connection) = self.waiting.take(ready) {
                self.carry_on(connection);
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

    fn wait(&mut self, until_ns: u64) -> io::Result<Vec<RawFd>> {
        let until_ns = earlier(until_ns, self.waiting.deadline_ns());
        let left_ms = until_ns.saturating_sub(now_ns()).div_ceil(1_000_000).min(WAIT_MAX_MS);
        let mut events = [EpollEvent::empty(); EVENTS_A_TURN];
        match self.epoll.wait(&mut events, EpollTimeout::from(left_ms as u16)) {
            Ok(count) => Ok(events[..count].iter().map(|event| event.data() as RawFd).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Accepts and serves those that wait. Returns how many they were.
    ///
    /// It is one where a connection is parked: its head may have come during the request, and it has waited for longer
    /// than the next in the listener's queue. The poller reports parked connections in the order in which they became
    /// ready. Only where none is parked is there nothing to look at between two requests, which saves a system call.
    fn accept_waiting(&mut self, acceptor: &Acceptor) -> usize {
        let mut taken = 0;
        while taken < ACCEPTS_A_TURN && self.accept(acceptor) {
            taken += 1;
            if self.waiting.len() > 0 {
                break;
            }
        }
        taken
    }

    /// Accepts one connection and serves it, where one waits.
    fn accept(&mut self, acceptor: &Acceptor) -> bool {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.base.host.count(Counter::ACCEPTED, 1);
                self.make_room();
                self.carry_on(Connection::new(&self.base.context, accepted));
                self.base.tick();
                true
            }
            AcceptResult::Empty => false,
            AcceptResult::Rest(pause) => {
                self.rest(pause);
                false
            }
        }
    }

    /// Goes on with a connection: a whole head is served at once, anything else is parked.
    fn carry_on(&mut self, mut connection: Box<Connection>) {
        let mut next = connection.advance();
        while next == Advance::Request {
            let place = Place::new(&self.base.host, &self.deadlines);
            self.deadlines.call(connection, place.clone());
            if let Some(back) = place.take() {
                connection = back;
            } else {
                tracing::error!(
                    "the application kept an exchange, which a sync worker does not wait for"
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
            Advance::Request => self.carry_on(connection),
            Advance::Closed => self.close(connection),
        }
    }

    /// At `worker_connections`, the connection that has waited longest gives way, unless its request has come.
    fn make_room(&mut self) {
        while self.waiting.len() >= self.base.context.config.worker_connections {
            let Some(mut oldest) = self.waiting.take_oldest() else { return };
            match oldest.yield_now() {
                Advance::Wait(_) | Advance::Closed => {
                    self.base.context.note_crowd(1);
                    self.close(oldest);
                }
                Advance::Request => self.carry_on(oldest),
            }
        }
    }

    fn close(&self, connection: Box<Connection>) {
        if connection.is_duplicated() {
            // One that was never parked is as good as one that is watched no more.
            let _ = self.epoll.delete(&*connection);
        }
        drop(connection);
    }

    /// No connection can be accepted for now: one that is parked gives way, and accepting rests, so that the loop does
    /// not spin.
    fn rest(&mut self, pause: Duration) {
        if let Some(oldest) = self.waiting.take_oldest() {
            self.close(oldest);
        }
        self.unlisten();
        self.rest_until_ns = now_ns() + nanoseconds(pause);
    }

    /// Listens again, once the rest is over. Where the poller is at its limit, the next turn tries again.
    fn end_rest(&mut self) {
        if !self.listening && now_ns() >= self.rest_until_ns && self.base.host.alive() {
            self.rest_until_ns = 0;
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

    /// A graceful end: serves the clients in the backlog that no other worker would serve, closes the listeners, and gives
    /// the parked ones the time that a client needs to send what it is about to send.
    fn finish(&mut self) -> io::Result<()> {
        self.base.context.drain();
        let deadline_ns = self.base.graceful_deadline_ns();
        self.unlisten();
        let base = self.base;
        for (acceptor, mut left) in base.remaining_backlog() {
            while left > 0 && now_ns() < deadline_ns && self.accept(acceptor) {
                left -= 1;
                if self.waiting.len() > 0 {
                    self.turn(now_ns())?;
                }
            }
        }
        self.base.host.close_listeners();
        self.waiting.shorten_idle_deadline(WorkerBase::idle_drain_deadline_ns());
        while (self.waiting.len() > 0 || !self.base.context.background.is_idle())
            && now_ns() < deadline_ns
        {
            self.base.tick();
            self.turn(earlier(deadline_ns, WorkerBase::look_again_ns()))?;
        }
        Ok(())
    }
}

/// Ends this process: its only thread is with a request whose time is over, and nothing else ends that. The arbiter
/// makes another worker.
fn end_worker(host: &Host, requests: &[TimedOutRequest]) {
    for request in requests {
        request.record(host);
    }
    tracing::error!("a sync worker cannot leave a request: this worker ends");
    // A process may always send a signal to itself.
    let _ = kill(Pid::this(), Signal::SIGABRT);
}

/// How many connections are served, while none is parked, before the poller is looked at.
const ACCEPTS_A_TURN: usize = 16;
/// How many ready descriptors one wait brings.
const EVENTS_A_TURN: usize = 64;
/// The longest wait in milliseconds.
const WAIT_MAX_MS: u64 = 1000;
