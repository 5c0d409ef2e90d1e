//! The thread of a connection, and what these threads share with the main thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jimu_kit::{
    Advance, Connection, ConnectionDriver, Deadline, RequestDeadlines, ServerContext,
    WaitingConnections, WorkerBase, blocking, poll,
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use worker_api::{Counter, Interest, Result};

/// The state that the threads of a worker share.
pub(crate) struct Shared {
    context: Arc<ServerContext>,
    open: AtomicUsize,
    wakeup: EventFd,
    deadlines: RequestDeadlines,
    /// The connections that wait for their clients.
    pub(crate) waiting: WaitingConnections,
}

/// Counts an open connection until it is dropped.
pub(crate) struct OpenConnection(Arc<Shared>);

impl Shared {
    pub(crate) fn new(base: &WorkerBase) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            context: Arc::clone(&base.context),
            open: AtomicUsize::new(0),
            wakeup: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            // The connection of a request that times out is shut down; its thread notices that and ends.
            deadlines: RequestDeadlines::start(base, |_| ())?,
            waiting: WaitingConnections::new(&base.context),
        }))
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Counts one more connection.
    pub(crate) fn opened(self: &Arc<Self>) -> OpenConnection {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.context.host.count(Counter::CONNECTIONS, 1);
        OpenConnection(Arc::clone(self))
    }

    /// Returns a descriptor that becomes readable when a thread ends that the main thread may be waiting for.
    pub(crate) fn wakeup(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// Clears the wake-up, and returns whether there was one.
    pub(crate) fn clear_wakeup(&self) -> bool {
        self.wakeup.read().is_ok()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let before = self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.context.host.count(Counter::CONNECTIONS, -1);
        if self.0.context.draining() || before >= self.0.context.config.worker_connections {
            // A counter at its limit is readable already.
            let _ = self.0.wakeup.write(1);
        }
    }
}

impl OpenConnection {
    /// Runs the thread: serves one request after the other, until the connection ends.
    pub(crate) fn serve(self, mut connection: Box<Connection>) {
        let driver =
            Arc::new(ThreadDriver { shared: Arc::clone(&self.0), connection: Mutex::default() });
        let mut next = connection.advance();
        loop {
            next = match next {
                Advance::Request => {
                    self.0.context.host.count(Counter::BUSY_SLOTS, 1);
                    self.0.deadlines.call(connection, driver.clone());
                    self.0.context.host.count(Counter::BUSY_SLOTS, -1);
                    let Some(released) = driver.take() else { return };
                    connection = released;
                    connection.advance()
                }
                Advance::Wait(interest) => self.0.waiting.wait(&mut connection, interest),
                Advance::Closed => return,
            };
        }
    }
}

/// Drives the connection of a request, and returns it to its thread, which is inside the application's call.
struct ThreadDriver {
    shared: Arc<Shared>,
    connection: Mutex<Option<Box<Connection>>>,
}

impl ThreadDriver {
    fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConnectionDriver for ThreadDriver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline, || ()))
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.shared.deadlines.extend(fd, deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        self.shared.deadlines.end(connection.fd());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
