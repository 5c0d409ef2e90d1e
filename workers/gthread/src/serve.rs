//! The main thread's loop: it accepts while a thread is free, hands whole requests to the threads where none of these
//! looks for them itself, keeps the time, and gives the sign of life.
//!
//! While a thread is free it waits at the gate, which watches the listeners and everything else; while none is, for
//! everything else alone. For a connection that comes, the kernel wakes one worker of those that wait at their gates:
//! to watch the listeners always would be to be woken in vain, with a connection that an idle sibling then never hears of.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kit::clock::{earlier, nanoseconds, now_ns};
use kit::{AcceptQueue, AcceptResult, Acceptor, Connection, WorkerBase, crowd};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use worker_api::{Counter, Waker};

use crate::pollers::{Event, readable, wait};
use crate::pool::WAKE_DELAY_NS;
use crate::shared::Shared;

/// The main thread of a worker.
pub(crate) struct Server<'a> {
    base: &'a WorkerBase,
    shared: Arc<Shared>,
    /// Watches the listeners, and everything else as a whole.
    accept_epoll: Epoll,
    /// Until when nothing is accepted, after an accept has failed; monotonic nanoseconds.
    rest_until_ns: u64,
    /// When connections are to give way to new ones, monotonic nanoseconds; 0 while there is room.
    give_way_at_ns: u64,
    accept_queue: AcceptQueue,
}

impl<'a> Server<'a> {
    pub(crate) fn new(base: &'a WorkerBase, threads: usize) -> io::Result<Self> {
        let shared = Shared::new(base, threads)?;
        base.host.count(Counter::SLOTS, threads as i64);
        let accept_queue = AcceptQueue::new(base);
        let accept_epoll = accept_epoll(&accept_queue, &shared.queue.poller.base)?;
        Ok(Self { base, shared, accept_epoll, rest_until_ns: 0, give_way_at_ns: 0, accept_queue })
    }

    /// Serves until the worker is to end, then finishes what has been begun.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let pause = nanoseconds(self.base.pause());
        while self.base.host.alive() {
            self.base.tick();
            let now = now_ns();
            if now >= self.rest_until_ns {
                self.rest_until_ns = 0;
            }
            self.make_room(now);
            // Set first: a thread that leaves no room for more either sees it, or is seen here.
            self.shared.at_accept_epoll.store(true, Ordering::Release);
            let accepting = self.rest_until_ns == 0 && self.may_accept();
            self.shared.at_accept_epoll.store(accepting, Ordering::Release);
            let until_ns = earlier(now + pause, self.rest_until_ns);
            self.turn(accepting, earlier(until_ns, self.give_way_at_ns))?;
        }
        self.finish()
    }

    /// One wait, until `until_ns` at the latest, and what it brings.
    fn turn(&mut self, accepting: bool, until_ns: u64) -> io::Result<()> {
        let mut until_ns = earlier(until_ns, self.shared.table().deadline_ns());
        let now = now_ns();
        if self.shared.queue.is_to_be_watched() {
            until_ns = earlier(until_ns, now + WAKE_DELAY_NS);
        }
        let left_ms = until_ns.saturating_sub(now).div_ceil(1_000_000).min(WAIT_MAX_MS);
        let timeout = EpollTimeout::from(left_ms as u16);
        let mut events = [EpollEvent::empty(); EVENTS_A_TURN];
        let shared = Arc::clone(&self.shared);
        let pollers = &shared.queue.poller;
        let count = if accepting {
            let count = wait(&self.accept_epoll, &mut events, timeout)?;
            // Before the requests of this turn take the threads: nobody else was woken for these connections.
            self.accept(&events[..count])?;
            let has_more =
                events[..count].iter().any(|event| event.data() == number(&pollers.base));
            if has_more { wait(&pollers.base, &mut events, EpollTimeout::ZERO)? } else { 0 }
        } else {
            wait(&pollers.base, &mut events, timeout)?
        };
        let mut are_ready = false;
        for event in &events[..count] {
            match pollers.event(event) {
                Event::Connections => are_ready = true,
                Event::Timer => {
                    if let Some(after_ns) = shared.queue.take_over() {
                        pollers.set_timer(after_ns);
                    }
                }
                Event::Other(_) => self.base.host.deliver_signals(),
                Event::MainWakeup | Event::LeaderWakeup => {}
            }
        }
        if are_ready && shared.queue.is_mains() {
            shared.queue.push_watched(shared.take(&mut events, EpollTimeout::ZERO));
        }
        self.expire();
        shared.queue.wake_if_overdue();
        Ok(())
    }

    /// Takes connections from the listeners among `events` while a thread is free; another worker takes the rest.
    fn accept(&mut self, events: &[EpollEvent]) -> io::Result<()> {
        for event in events {
            let acceptors = &self.base.acceptors;
            let Some(acceptor) = acceptors.iter().find(|a| a.fd() as u64 == event.data()) else {
                continue;
            };
            let mut left = ACCEPTS_A_TURN;
            while left > 0 && self.may_accept() && self.accept_one(acceptor) {
                left -= 1;
            }
            if left < ACCEPTS_A_TURN {
                self.accept_queue.requeue(&self.accept_epoll, acceptor)?;
            }
        }
        Ok(())
    }

    /// Accepts a connection; whether it is worth while to try another.
    fn accept_one(&mut self, acceptor: &Acceptor) -> bool {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.base.host.count(Counter::ACCEPTED, 1);
                let connection = Connection::new(&self.base.context, accepted);
                self.shared.table().enter(connection.fd());
                self.shared.queue.push_watched(self.shared.carry_on(connection));
                true
            }
            AcceptResult::Empty => false,
            AcceptResult::Rest(pause) => {
                self.rest_until_ns = now_ns() + nanoseconds(pause);
                false
            }
        }
    }

    /// At `worker_connections`, and where no other worker takes them, has the connections that have waited longest for a
    /// request give way to those that wait to be accepted.
    fn make_room(&mut self, now_ns: u64) {
        if !self.is_full() {
            self.give_way_at_ns = 0;
            return;
        }
        if self.give_way_at_ns != 0 && now_ns >= self.give_way_at_ns {
            let needed = self.base.acceptors.iter().map(Acceptor::waiting).sum();
            let oldest = self.shared.table().take_oldest(needed);
            self.base.context.note_crowd(oldest.len());
            for mut connection in oldest {
                let next = connection.yield_now();
                self.shared.queue.push_watched(self.shared.settle(connection, next));
            }
        }
        self.give_way_at_ns = if self.is_full() { now_ns + nanoseconds(crowd::PAUSE) } else { 0 };
    }

    fn is_full(&self) -> bool {
        self.shared.table().len() >= self.base.context.config.worker_connections
    }

    /// Whether a connection that is accepted now would be served now.
    fn may_accept(&self) -> bool {
        if self.base.context.is_stuck() {
            return false;
        }
        let has_room = |shared: &Shared| {
            shared.queue.has_room()
                && shared.table().len() < shared.context.config.worker_connections
        };
        if has_room(&self.shared) {
            return true;
        }
        self.shared.wants_room.store(true, Ordering::Release);
        // A thread may have become free before it could know that somebody waits for that.
        has_room(&self.shared)
    }

    fn expire(&self) {
        let mut wakers = Vec::new();
        let late = self.shared.table().expire(now_ns(), &mut wakers);
        wakers.iter().for_each(Waker::wake);
        for mut connection in late {
            let next = connection.expire();
            self.shared.queue.push_watched(self.shared.settle(connection, next));
        }
    }

    /// A graceful end: takes those that wait to be accepted and that no other worker would serve, closes the listeners,
    /// has the threads finish, and gives idle connections the time that a client needs to send what it is about to send.
    fn finish(&mut self) -> io::Result<()> {
        let context = &self.base.context;
        context.drain();
        let deadline_ns = self.base.graceful_deadline_ns();
        for (acceptor, mut left) in self.base.remaining_backlog() {
            while left > 0
                && now_ns() < deadline_ns
                && !context.is_stuck()
                && self.accept_one(acceptor)
            {
                left -= 1;
            }
        }
        self.base.host.close_listeners();
        let idle_drain_ns = WorkerBase::idle_drain_deadline_ns();
        while (self.shared.table().len() > 0 || !context.background.is_idle())
            && now_ns() < deadline_ns
        {
            self.base.tick();
            // Each time: a thread may just have given one back that had not heard of the end.
            self.shared.table().shorten_idle_deadline(idle_drain_ns);
            self.turn(false, earlier(deadline_ns, WorkerBase::look_again_ns()))?;
        }
        self.shared.queue.close();
        if self.shared.table().len() == 0 {
            self.shared.join();
        }
        Ok(())
    }
}

/// Watches the listeners, and `rest` as a whole.
fn accept_epoll(accept_queue: &AcceptQueue, rest: &Epoll) -> io::Result<Epoll> {
    let accept_epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    accept_queue.register(&accept_epoll)?;
    accept_epoll.add(&rest.0, readable(rest.0.as_fd()))?;
    Ok(accept_epoll)
}

/// What an epoll is called at another one.
fn number(epoll: &Epoll) -> u64 {
    epoll.0.as_raw_fd() as u64
}

/// How many connections are accepted before those that are ready are looked at again.
const ACCEPTS_A_TURN: usize = 16;
/// How many ready descriptors one wait brings.
const EVENTS_A_TURN: usize = 256;
/// The longest wait in milliseconds.
const WAIT_MAX_MS: u64 = 1000;
