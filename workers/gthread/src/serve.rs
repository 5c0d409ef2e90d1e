//! The main thread's loop: accepts connections while a thread is free and polls the connections, both while it is the
//! leader, enforces deadlines, and sends the heartbeat.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jimu_kit::clock::now_ns;
use jimu_kit::{Acceptor, Deadline, WorkerBase, crowd};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use worker_api::{Counter, Waker};

use crate::pollers::{Event, wait};
use crate::pool::WAKE_DELAY_NS;
use crate::shared::Shared;

/// The state of the main thread of a worker.
pub(crate) struct Server<'a> {
    base: &'a WorkerBase,
    shared: Arc<Shared>,
    /// When idle connections are closed in favor of new ones; never while there is room.
    make_room_at: Deadline,
    /// When the backlog is looked at again; never while threads are free.
    look_at_backlog: Deadline,
    /// The number of connections in the backlog at the last look.
    waiting: usize,
}

impl<'a> Server<'a> {
    pub(crate) fn new(base: &'a WorkerBase, threads: usize) -> io::Result<Self> {
        let shared = Shared::new(base, threads)?;
        base.host.count(Counter::SLOTS, threads as i64);
        Ok(Self {
            base,
            shared,
            make_room_at: Deadline::NEVER,
            look_at_backlog: Deadline::NEVER,
            waiting: 0,
        })
    }

    /// Serves until the worker has to stop, then finishes the requests that have begun.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let pause = self.base.pause();
        while self.base.host.alive() {
            self.base.tick();
            let now = now_ns();
            let pause_ends = self.shared.entrance.pause_ends();
            self.make_room(now);
            self.accept_overdue(now);
            // Set before `may_accept`: a thread that takes the last room either sees the flag, or is seen by the check.
            self.shared.is_accepting.store(true, Ordering::Release);
            let accepting =
                self.shared.pool.main_is_leader() && pause_ends.is_never() && self.may_accept(0);
            self.shared.is_accepting.store(accepting, Ordering::Release);
            let until = Deadline::after(now, Some(pause)).min(pause_ends);
            self.turn(accepting, until.min(self.make_room_at).min(self.look_at_backlog))?;
        }
        self.finish()
    }

    /// Waits until `until` at the latest, and handles the events.
    fn turn(&mut self, accepting: bool, until: Deadline) -> io::Result<()> {
        let mut until = until.min(self.shared.table().deadline());
        let now = now_ns();
        if self.shared.pool.needs_overdue_check() {
            until = until.min(Deadline::at_ns(now + WAKE_DELAY_NS));
        }
        let left_ms = until.left_ns_at(now).div_ceil(1_000_000).min(WAIT_MAX_MS);
        let timeout = EpollTimeout::from(left_ms as u16);
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let shared = Arc::clone(&self.shared);
        let pollers = &shared.pool.poller;
        let count = if accepting {
            let count = wait(&pollers.main, &mut events, timeout)?;
            // Before the requests of this turn occupy the threads: no other worker was woken for these connections.
            let has_room = |accepted| self.may_accept(accepted);
            let requests = shared.accept(&pollers.main, &events[..count], has_room);
            shared.pool.push_and_wake_one(requests);
            let has_more =
                events[..count].iter().any(|event| event.data() == event_data(&pollers.base));
            if has_more { wait(&pollers.base, &mut events, EpollTimeout::ZERO)? } else { 0 }
        } else {
            wait(&pollers.base, &mut events, timeout)?
        };
        let mut are_ready = false;
        for event in &events[..count] {
            match pollers.event(event) {
                Event::Connections => are_ready = true,
                Event::Timer => {
                    if let Some(after_ns) = shared.pool.take_over_if_vacant() {
                        pollers.set_timer(after_ns);
                    }
                }
                Event::Other(_) => self.base.host.deliver_signals(),
                Event::MainWakeup | Event::LeaderWakeup => {}
            }
        }
        if are_ready && shared.pool.main_is_leader() {
            shared.pool.push_and_wake_one(shared.take_ready(&mut events, EpollTimeout::ZERO));
            if let Some(after_ns) = shared.pool.rest_if_saturated() {
                pollers.set_timer(after_ns);
            }
        }
        self.expire();
        shared.pool.wake_if_overdue();
        Ok(())
    }

    /// Closes the connections that have waited longest for a request, one for each connection in the backlog, if there
    /// are `worker_connections` and no other worker has accepted the new ones for [`crowd::PAUSE`].
    fn make_room(&mut self, now_ns: u64) {
        if !self.shared.is_full() {
            self.make_room_at = Deadline::NEVER;
            return;
        }
        if self.make_room_at.is_past_at(now_ns) {
            let needed = self.backlog();
            let oldest = self.shared.table().take_oldest(needed);
            self.base.context.note_crowd(oldest.len());
            for mut connection in oldest {
                let next = connection.yield_now();
                self.shared.pool.push_and_wake_one(self.shared.settle(connection, next));
            }
        }
        let pause = self.shared.is_full().then_some(crowd::PAUSE);
        self.make_room_at = Deadline::after(now_ns, pause);
    }

    /// Accepts the connections that have been in the backlog since the last look, [`LOOK_INTERVAL`] ago, if no thread is free.
    /// No other worker has accepted them either, and kept-alive connections may occupy all threads for as long as they like.
    fn accept_overdue(&mut self, now_ns: u64) {
        let lacks_room = !self.shared.pool.has_room(0) && self.shared.can_accept();
        if self.look_at_backlog.is_past_at(now_ns) {
            self.look_at_backlog = Deadline::NEVER;
            let waiting = if lacks_room { self.backlog() } else { 0 };
            let overdue = mem::replace(&mut self.waiting, waiting).min(waiting);
            self.shared.pool.push_and_wake_one(self.shared.accept_waiting(overdue));
        }
        if lacks_room && self.look_at_backlog.is_never() {
            self.look_at_backlog = Deadline::after(now_ns, Some(LOOK_INTERVAL));
        }
    }

    /// Returns the number of connections in the backlog.
    fn backlog(&self) -> usize {
        self.base.acceptors.iter().map(Acceptor::waiting).sum()
    }

    /// Returns whether a thread is free to serve another connection, besides `accepted` new ones.
    fn may_accept(&self, accepted: usize) -> bool {
        if self.base.context.is_stuck() {
            return false;
        }
        let has_room = || self.shared.pool.has_room(accepted) && !self.shared.is_full();
        if has_room() {
            return true;
        }
        self.shared.wants_room.store(true, Ordering::Release);
        // Check again: a thread may have become free before it could see the flag.
        has_room()
    }

    fn expire(&self) {
        let mut wakers = Vec::new();
        let expired = self.shared.table().expire(now_ns(), &mut wakers);
        wakers.iter().for_each(Waker::wake);
        for mut connection in expired {
            let next = connection.expire();
            self.shared.pool.push_and_wake_one(self.shared.settle(connection, next));
        }
    }

    /// Stops gracefully: accepts the part of the backlog that no other worker would serve, closes the listeners, waits for
    /// the requests that have begun, and keeps idle connections for the time that a request may already be on its way.
    fn finish(&mut self) -> io::Result<()> {
        let context = &self.base.context;
        context.drain();
        self.shared.close_entrance();
        let deadline = self.base.graceful_deadline();
        for (acceptor, mut left) in self.base.remaining_backlog() {
            while left > 0
                && !deadline.is_past()
                && !context.is_stuck()
                && let Some(connection) = self.shared.entrance.accept_one(acceptor)
            {
                self.shared.pool.push_and_wake_one(self.shared.start(connection));
                left -= 1;
            }
        }
        self.base.host.close_listeners();
        self.shared.table().drain(WorkerBase::idle_drain_deadline());
        while (self.shared.table().len() > 0 || !context.background.is_idle())
            && !deadline.is_past()
        {
            self.base.tick();
            self.turn(false, deadline.min(WorkerBase::look_again()))?;
        }
        self.shared.pool.close();
        let left = self.shared.table().len();
        if left == 0 {
            self.shared.join();
        }
        self.base.cut_requests(left);
        Ok(())
    }
}

/// Returns the data of an event that reports `epoll` as a member of another one.
fn event_data(epoll: &Epoll) -> u64 {
    epoll.0.as_raw_fd() as u64
}

/// How often the backlog is looked at while no thread is free: a worker with a free thread accepts a connection much sooner.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The number of events that one wait returns.
const EVENTS_MAX: usize = 256;
/// The longest wait in milliseconds.
const WAIT_MAX_MS: u64 = 1000;
