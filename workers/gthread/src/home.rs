//! What the main thread and the pool share: how an exchange waits, and where a connection goes when it is over.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kit::{Advance, Base, Connection, Home, Kit, Overtime, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use worker_api::{AppHandle, Counter, Failure, FailureKind, Interest, Result, Waker};

use crate::pool::{PATIENCE_NS, Queue};
use crate::table::Table;

/// What the threads of a worker share.
pub(crate) struct Shared {
    pub(crate) kit: Arc<Kit>,
    pub(crate) app: AppHandle,
    pub(crate) epoll: Epoll,
    pub(crate) queue: Queue<Box<Connection>>,
    /// Wakes the main thread out of its wait.
    pub(crate) bell: EventFd,
    /// Whether the main thread wants to hear of a thread that is free.
    pub(crate) wants_room: AtomicBool,
    /// Watches the requests that the threads serve, where these have a limit.
    overtime: Option<Arc<Overtime>>,
    table: Mutex<Table>,
}

impl Shared {
    pub(crate) fn new(base: &Base) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            kit: Arc::clone(&base.kit),
            app: base.app.clone(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            queue: Queue::new(PATIENCE_NS),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            wants_room: AtomicBool::new(false),
            // The thread goes on with what it does; what it writes fails, and so the request ends.
            overtime: Overtime::start(base, |_| ())?,
            table: Mutex::new(Table::default()),
        }))
    }

    /// The connections.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread's life: requests, one after the other.
    pub(crate) fn serve(self: &Arc<Self>) {
        while let Some(connection) = self.queue.next(|| self.ring_if_wanted()) {
            self.kit.host.count(Counter::BUSY_SLOTS, 1);
            let fd = connection.fd();
            let exchange = connection.into_exchange(Arc::<Self>::clone(self));
            if let Some(overtime) = &self.overtime {
                overtime.begin(fd, &exchange);
            }
            self.app.call(exchange);
            self.kit.host.count(Counter::BUSY_SLOTS, -1);
        }
    }

    /// Goes on with a connection until it waits, ends, or has a whole request, which it gives back.
    pub(crate) fn carry_on(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let mut next = connection.advance();
        loop {
            match next {
                Advance::Request => return Some(connection),
                Advance::Wait(interest) => {
                    match self.table().wait(&self.epoll, connection, interest) {
                        Ok(None) => return None,
                        Ok(Some(ready)) => connection = ready,
                        Err(error) => {
                            tracing::warn!("cannot watch a connection: {error}");
                            return None;
                        }
                    }
                    next = connection.advance();
                }
                Advance::Closed => {
                    self.close(connection);
                    return None;
                }
            }
        }
    }

    /// Ends a connection.
    pub(crate) fn close(&self, connection: Box<Connection>) {
        let mut table = self.table();
        table.leave(connection.fd());
        // Closed while the table is locked: the next connection with this descriptor finds its place free.
        drop(connection);
    }

    fn ring_if_wanted(&self) {
        if self.wants_room.swap(false, Ordering::AcqRel) {
            self.ring();
        }
    }

    /// Wakes the main thread.
    pub(crate) fn ring(&self) {
        // A counter at its limit is a bell that rings already.
        let _ = self.bell.write(1);
    }
}

impl Home for Shared {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        match poll::wait(fd, interest, deadline_ns, || ()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(FailureKind::TIMEOUT, "the deadline passed")),
            Err(error) => Err(Failure::io("cannot wait for the client", &error)),
        }
    }

    fn arm(&self, fd: RawFd, interest: Interest, deadline_ns: u64, waker: Waker) -> Result<()> {
        self.table()
            .arm(&self.epoll, fd, interest, deadline_ns, waker)
            .map_err(|error| Failure::io("cannot watch the connection", &error))
    }

    fn watch_gone(&self, fd: RawFd, waker: Waker) {
        if let Err(error) = self.table().watch_gone(&self.epoll, fd, waker) {
            tracing::warn!("cannot watch a connection: {error}");
        }
    }

    fn extended(&self, fd: RawFd, deadline_ns: u64) {
        if let Some(overtime) = &self.overtime {
            overtime.extend(fd, deadline_ns);
        }
    }

    fn done(&self, connection: Box<Connection>) {
        if let Some(overtime) = &self.overtime {
            overtime.end(connection.fd());
        }
        if let Some(request) = self.carry_on(connection) {
            self.queue.push([request]);
        }
        if self.kit.draining() {
            self.ring();
        }
    }
}
