//! How an exchange waits in a greenlet, and what follows for its connection. An application may use its exchange on any
//! thread; calls that concern the hub are then sent to the hub's thread.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use jimu_green::{Handle, Interrupt};
use jimu_kit::{Connection, ConnectionDriver, Deadline, blocking, poll};
use worker_api::{Failure, FailureKind, Interest, Result, Waker};

use crate::connections::Connections;
use crate::entry::hub_interest;

/// Drives the connections of a cooperative worker.
pub(crate) struct GreenDriver {
    handle: Handle,
}

impl GreenDriver {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Runs `work` on the hub's thread: at once if that is the calling thread.
    fn on_hub(&self, work: impl FnOnce(&std::rc::Rc<Connections>) + Send + 'static) {
        match Connections::current() {
            Some(connections) => work(&connections),
            None => self.handle.call(move || {
                if let Some(connections) = Connections::current() {
                    work(&connections);
                }
            }),
        }
    }
}

impl ConnectionDriver for GreenDriver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        let Some(entry) = Connections::current().and_then(|connections| connections.entry(fd))
        else {
            // A thread that the application started blocks.
            let ready = poll::wait(fd, interest, deadline, || ());
            return to_result(ready);
        };
        let interest = hub_interest(interest);
        let timeout = deadline.left();
        to_result(match entry.source.take_ready(interest) {
            Ok(false) => entry.source.wait(interest, timeout).and_then(|ready| {
                entry.source.take_ready(interest)?;
                Ok(ready)
            }),
            result => result,
        })
    }

    fn yield_now(&self) -> Result<()> {
        if Connections::current().is_none() {
            Ok(())
        } else {
            jimu_green::yield_now().map_err(interrupted)
        }
    }

    fn register_waker(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Deadline,
        waker: Waker,
    ) -> Result<()> {
        let fd = fd.as_raw_fd();
        self.on_hub(move |connections| {
            if let Some(entry) = connections.entry(fd)
                && let Err(error) = entry.arm(interest, deadline, waker)
            {
                tracing::warn!("cannot watch a connection: {error}");
            }
        });
        Ok(())
    }

    fn wake_soon(&self, waker: Waker) {
        // In the hub's next turn, after the greenlets that wait for this one.
        self.handle.call(move || waker.wake());
    }

    fn on_disconnect(&self, fd: BorrowedFd<'_>, waker: Waker) {
        let fd = fd.as_raw_fd();
        self.on_hub(move |connections| {
            if let Some(entry) = connections.entry(fd)
                && let Err(error) = entry.on_disconnect(waker)
            {
                tracing::warn!("cannot watch a connection: {error}");
            }
        });
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.on_hub(move |connections| {
            if let Some(deadlines) = connections.deadlines() {
                deadlines.extend(fd, deadline);
            }
        });
    }

    fn release(&self, connection: Box<Connection>) {
        self.on_hub(move |connections| connections.release(connection));
    }
}

fn to_result(waited: io::Result<bool>) -> Result<()> {
    match waited.as_ref().err().and_then(Interrupt::of) {
        Some(interrupt) => Err(interrupted(interrupt)),
        None => blocking::in_time(waited),
    }
}

/// Converts what ended a greenlet's wait into the application's error.
pub(crate) fn interrupted(interrupt: Interrupt) -> Failure {
    match interrupt {
        Interrupt::Exit if Connections::current_request_has_timed_out() => {
            Failure::new(FailureKind::TIMEOUT, "the request timed out (request_timeout)")
        }
        Interrupt::Exit => Failure::new(FailureKind::INTERRUPTED, "the worker is stopping"),
        Interrupt::Outside => Failure::unsupported(
            "cannot wait outside of a greenlet: this is a callback of the hub, or the thread of a guest loop",
        ),
        other => Failure::new(FailureKind::INTERRUPTED, other.to_string()),
    }
}
