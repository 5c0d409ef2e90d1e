//! Accepting connections: the leader does it, the main thread or a thread of the pool.
//!
//! A thread accepts only as many connections as threads are free, and waits on the listeners only while it can accept: for
//! each new connection the kernel wakes only one of the threads, of all workers, that wait on the listener.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jimu_kit::{AcceptQueue, AcceptResult, Acceptor, Connection, Deadline, WorkerBase};
use nix::sys::epoll::{Epoll, EpollEvent};
use worker_api::Counter;

use crate::shared::Shared;

/// The listeners of a worker.
pub(crate) struct Entrance {
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

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Accepts from the listeners among `events` of `epoll` while there is room for one more than the number given to
    /// `has_room`; other workers accept the remaining connections. Returns the requests that have arrived.
    ///
    /// Each connection is read after all have been accepted, which leaves its client time to send the request: a connection
    /// whose request has arrived needs no entry in the epoll.
    pub(crate) fn accept(
        &self,
        epoll: &Epoll,
        events: &[EpollEvent],
        has_room: impl Fn(usize) -> bool,
    ) -> io::Result<Vec<Box<Connection>>> {
        let mut accepted = Vec::new();
        for event in events {
            let acceptors = &self.entrance.acceptors;
            let Some(acceptor) = acceptors.iter().find(|a| a.fd() as u64 == event.data()) else {
                continue;
            };
            let is_open = self.entrance.lock();
            let before = accepted.len();
            while *is_open
                && accepted.len() - before < ACCEPTS_MAX
                && has_room(accepted.len())
                && let Some(connection) = self.accept_one(acceptor)
            {
                accepted.push(connection);
            }
            if accepted.len() > before {
                self.entrance.queue.requeue(epoll, acceptor)?;
            }
        }
        Ok(accepted.into_iter().filter_map(|connection| self.advance(connection)).collect())
    }

    /// Ends accepting by other threads: when it returns, none of them uses a listener. Accepts one connection more from each
    /// listener: the leader may have been woken for it, in which case no other worker was.
    pub(crate) fn close_entrance(&self) {
        *self.entrance.lock() = false;
        self.entrance.queue.deregister(&self.pool.poller.lead);
        let last: Vec<_> = self
            .entrance
            .acceptors
            .iter()
            .filter_map(|acceptor| self.accept_one(acceptor))
            .collect();
        self.pool.push(last.into_iter().filter_map(|connection| self.advance(connection)));
    }

    /// Accepts a connection; returns `None` if the listener has no other one for now.
    pub(crate) fn accept_one(&self, acceptor: &Acceptor) -> Option<Box<Connection>> {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.context.host.count(Counter::ACCEPTED, 1);
                let connection = Connection::new(&self.context, accepted);
                self.table().insert_lent(connection.fd());
                Some(connection)
            }
            AcceptResult::Empty => None,
            AcceptResult::Rest(pause) => {
                let ends = Deadline::from_now(pause);
                self.entrance.pause_ends_ns.store(ends.ns(), Ordering::Release);
                None
            }
        }
    }

    /// Returns whether a thread that is free can accept a connection: the application responds, the table has room, and
    /// there is no pause.
    pub(crate) fn can_accept(&self) -> bool {
        !self.context.is_stuck()
            && self.entrance.pause_ends().is_never()
            && self.table().len() < self.context.config.worker_connections
    }
}

/// The number of connections that are accepted from a listener before ready ones are served.
const ACCEPTS_MAX: usize = 16;
