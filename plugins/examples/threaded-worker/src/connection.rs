//! A connection's thread, and what all of them share with the main thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kit::{Advance, WorkerBase, Connection, ConnectionDriver, ServerContext, RequestDeadlines, blocking, clock, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use worker_api::{Counter, Interest, Result};

/// What the threads of a worker share.
pub(crate) struct Shared {
    context: Arc<ServerContext>,
    open: AtomicUsize,
    bell: EventFd,
    deadlines: RequestDeadlines,
}

/// A connection's place among those that are open: given up when dropped.
pub(crate) struct Opened(Arc<Shared>);

impl Shared {
    pub(crate) fn new(base: &WorkerBase) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            context: Arc::clone(&base.context),
            open: AtomicUsize::new(0),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            // What runs over has its connection shut down: its thread finds that out, and ends.
            deadlines: RequestDeadlines::start(base, |_| ())?,
        }))
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// One more.
    pub(crate) fn enter(self: &Arc<Self>) -> Opened {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.context.host.count(Counter::CONNECTIONS, 1);
        Opened(Arc::clone(self))
    }

    /// Readable when a thread has ended that the main thread may be waiting for.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The bell has been heard.
    pub(crate) fn hear(&self) {
        // An empty bell has been heard already.
        let _ = self.bell.read();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let before = self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.context.host.count(Counter::CONNECTIONS, -1);
        if self.0.context.draining() || before == self.0.context.config.worker_connections {
            // A counter at its limit is a bell that rings already.
            let _ = self.0.bell.write(1);
        }
    }
}

impl Opened {
    /// The thread's life: requests, one after the other, until the connection ends.
    pub(crate) fn serve(self, mut connection: Box<Connection>) {
        let place = Arc::new(Place { shared: Arc::clone(&self.0), connection: Mutex::default() });
        let mut next = connection.advance();
        loop {
            next = match next {
                Advance::Request => {
                    self.0.context.host.count(Counter::BUSY_SLOTS, 1);
                    self.0.deadlines.call(connection, place.clone());
                    self.0.context.host.count(Counter::BUSY_SLOTS, -1);
                    let Some(back) = place.take() else { return };
                    connection = back;
                    connection.advance()
                }
                Advance::Wait(interest) => match self.wait(&mut connection, interest) {
                    Ok(true) => connection.advance(),
                    Ok(false) => connection.expire(),
                    Err(_) => return,
                },
                Advance::Closed => return,
            };
        }
    }

    /// Waits for the client; false when its time is up. Looks up each second: an idle connection of a worker that is
    /// to end is not waited for as long as otherwise.
    fn wait(&self, connection: &mut Connection, interest: Interest) -> io::Result<bool> {
        loop {
            if self.0.context.draining() {
                connection.shorten_idle_deadline(WorkerBase::idle_drain_deadline_ns());
            }
            let deadline_ns = connection.deadline_ns();
            let until_ns = clock::earlier(deadline_ns, clock::now_ns() + SLICE_NS);
            if poll::wait(connection.fd(), interest, until_ns, || ())? {
                return Ok(true);
            }
            if deadline_ns != 0 && clock::now_ns() >= deadline_ns {
                return Ok(false);
            }
        }
    }
}

/// Where a request's connection comes back to: its own thread, which waits for it in the application's call.
struct Place {
    shared: Arc<Shared>,
    connection: Mutex<Option<Box<Connection>>>,
}

impl Place {
    fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConnectionDriver for Place {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline_ns, || ()))
    }

    fn deadline_extended(&self, fd: RawFd, deadline_ns: u64) {
        self.shared.deadlines.extend(fd, deadline_ns);
    }

    fn release(&self, connection: Box<Connection>) {
        self.shared.deadlines.end(connection.fd());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

/// How long a wait lasts before the thread looks up.
const SLICE_NS: u64 = 1_000_000_000;
