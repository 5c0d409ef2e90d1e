//! Accepting connections: the leader does it, the main thread or a thread of the pool.
//!
//! A thread accepts only as many connections as threads are free, and waits on the listeners only while it can accept: for
//! each new connection the kernel wakes only one of the threads, of all workers, that wait on the listener. Connections that
//! no worker has accepted for a while are accepted in any case ([`Entrance::accept_waiting`]).

use std::io;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jimu_kit::{
    AcceptQueue, AcceptResult, Acceptor, Connection, Deadline, ServerContext, WorkerBase,
};
use nix::sys::epoll::{Epoll, EpollEvent};
use worker_api::Counter;

/// The listeners of a worker.
pub(crate) struct Entrance {
    context: Arc<ServerContext>,
    acceptors: Vec<Acceptor>,
    queue: AcceptQueue,
    /// Locked while a thread accepts.
    is_open: Mutex<bool>,
    /// The end of a pause after an accept has failed, in monotonic nanoseconds; the greatest number if there is none.
    pause_ends_ns: AtomicU64,
}

impl Entrance {
    /// Creates the entrance, and adds the listeners to the epolls that are waited on for them.
    pub(crate) fn new(base: &WorkerBase, epolls: [&Epoll; 2]) -> io::Result<Self> {
        let queue = AcceptQueue::new(base);
        epolls.into_iter().try_for_each(|epoll| queue.register(epoll))?;
        Ok(Self {
            context: Arc::clone(&base.context),
            acceptors: base.acceptors.clone(),
            queue,
            is_open: Mutex::new(true),
            pause_ends_ns: AtomicU64::new(Deadline::NEVER.ns()),
        })
    }

    /// Returns whether connections are accepted.
    pub(crate) fn is_open(&self) -> bool {
        *self.lock()
    }

    /// Returns the end of the pause after an accept has failed; never if there is none.
    pub(crate) fn pause_ends(&self) -> Deadline {
        let pause_ends = Deadline::at_ns(self.pause_ends_ns.load(Ordering::Acquire));
        if pause_ends.is_past() { Deadline::NEVER } else { pause_ends }
    }

    /// Accepts from the listeners among `events` of `epoll` while there is room for one more than the number given to
    /// `has_room`; other workers accept the remaining connections. Calls `added` with each connection.
    pub(crate) fn accept(
        &self,
        epoll: &Epoll,
        events: &[EpollEvent],
        has_room: impl Fn(usize) -> bool,
        added: impl Fn(&Connection),
    ) -> Vec<Box<Connection>> {
        let mut accepted = Vec::new();
        for event in events {
            let Some(acceptor) = self.acceptors.iter().find(|a| a.fd() as u64 == event.data())
            else {
                continue;
            };
            let is_open = self.lock();
            let before = accepted.len();
            while *is_open
                && accepted.len() - before < ACCEPTS_MAX
                && has_room(accepted.len())
                && let Some(connection) = self.accept_one(acceptor)
            {
                added(&connection);
                accepted.push(connection);
            }
            if accepted.len() > before
                && let Err(error) = self.queue.requeue(epoll, acceptor)
            {
                self.context.host.retire_for(&format!("cannot watch a listener: {error}"));
            }
        }
        accepted
    }

    /// Accepts up to `count` connections without being woken for them. Calls `added` with each. For the main thread, which
    /// is also the one that closes the entrance.
    pub(crate) fn accept_waiting(
        &self,
        count: usize,
        added: impl Fn(&Connection),
    ) -> Vec<Box<Connection>> {
        let each = self.acceptors.iter().flat_map(|a| iter::from_fn(|| self.accept_one(a)));
        each.take(count).inspect(|connection| added(connection)).collect()
    }

    /// Accepts a connection; returns `None` if the listener has no other one for now.
    pub(crate) fn accept_one(&self, acceptor: &Acceptor) -> Option<Box<Connection>> {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.context.host.count(Counter::ACCEPTED, 1);
                Some(Connection::new(&self.context, accepted))
            }
            AcceptResult::Empty => None,
            AcceptResult::Rest(pause) => {
                self.pause_ends_ns.store(Deadline::from_now(pause).ns(), Ordering::Release);
                None
            }
        }
    }

    /// Ends accepting by threads of the pool, which wait on `lead`: when it returns, none of them uses a listener. Returns one
    /// connection more from each listener: the leader may have been woken for it, in which case no other worker was.
    pub(crate) fn close(&self, lead: &Epoll) -> Vec<Box<Connection>> {
        *self.lock() = false;
        self.queue.deregister(lead);
        if self.context.is_stuck() {
            return Vec::new();
        }
        self.acceptors.iter().filter_map(|acceptor| self.accept_one(acceptor)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of connections that are accepted from a listener before ready ones are served.
const ACCEPTS_MAX: usize = 16;
