//! The thread of a connection, and what these threads share with the main thread.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jimu_kit::{
    Advance, Connection, ConnectionDriver, Deadline, RequestDeadlines, ServerContext, WorkerBase,
    blocking, crowd, poll,
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Shutdown, shutdown};
use worker_api::{Counter, Interest, Result};

/// The state that the threads of a worker share.
pub(crate) struct Shared {
    context: Arc<ServerContext>,
    open: AtomicUsize,
    wakeup: EventFd,
    deadlines: RequestDeadlines,
    /// The connections that wait for their clients, by descriptor, each with the time since which it waits.
    waiting: Mutex<HashMap<RawFd, u64>>,
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
            waiting: Mutex::default(),
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

    /// Closes the connection that has waited longest for a request, so that a client in the backlog gets its place: its
    /// thread reads the end of the client's bytes. Returns whether there is one.
    pub(crate) fn make_room(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = crowd::pick(waiting.iter().map(|(fd, since)| (*since, *fd)), 1);
        for fd in &longest {
            // Its thread removes it before it closes it. A client that has disconnected needs no shutdown.
            let _ = shutdown(*fd, Shutdown::Read);
        }
        self.context.note_crowd(longest.len());
        !longest.is_empty()
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
                Advance::Wait(interest) => match self.wait(&mut connection, interest) {
                    Ok(true) => connection.advance(),
                    Ok(false) => connection.expire(),
                    Err(_) => return,
                },
                Advance::Closed => return,
            };
        }
    }

    /// Waits for the client; returns false at the deadline. Checks each second whether the worker is stopping, which
    /// shortens the deadline of an idle connection.
    fn wait(&self, connection: &mut Connection, interest: Interest) -> io::Result<bool> {
        let fd = connection.fd();
        let waiting = || self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = connection.waits_since_ns() {
            waiting().insert(fd, since);
        }
        let waited = self.wait_until_ready(connection, interest);
        waiting().remove(&fd);
        waited
    }

    fn wait_until_ready(
        &self,
        connection: &mut Connection,
        interest: Interest,
    ) -> io::Result<bool> {
        loop {
            if self.0.context.draining() {
                connection.shorten_idle_deadline(WorkerBase::idle_drain_deadline());
            }
            let deadline = connection.deadline();
            let until = deadline.min(Deadline::from_now(SLICE));
            if poll::wait(connection.fd(), interest, until, || ())? {
                return Ok(true);
            }
            if deadline.is_past() {
                return Ok(false);
            }
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

/// How long a wait lasts before the thread checks whether the worker is stopping.
const SLICE: Duration = Duration::from_secs(1);
