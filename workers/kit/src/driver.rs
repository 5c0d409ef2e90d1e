//! The interface between an exchange and the class that serves it: how to wait, and where a connection returns
//! to.

use std::os::fd::{BorrowedFd, RawFd};

use worker_api::{Failure, Interest, Result, Waker};

use crate::connection::Connection;
use crate::deadline::Deadline;

/// What a worker class provides for the exchanges that it passes to the application.
pub trait ConnectionDriver: Send + Sync {
    /// Blocks, as the class does, until the descriptor is ready for `interest`: either direction of
    /// [`Interest::READ_WRITE`] suffices. Fails with
    /// [`worker_api::FailureKind::TIMEOUT`] at the deadline, and with
    /// [`worker_api::FailureKind::INTERRUPTED`] if the greenlet or the process is being terminated.
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()>;

    /// Lets other work run. Called for an exchange that has not had to wait for a while; fails as
    /// [`ConnectionDriver::wait`] does. A class whose threads serve one request each does nothing.
    fn yield_now(&self) -> Result<()> {
        Ok(())
    }

    /// Registers a waker that fires once, when the descriptor is ready or at the deadline. Used by exchanges
    /// that an application has detached; a class that does not support this fails.
    fn register_waker(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Deadline,
        waker: Waker,
    ) -> Result<()> {
        let _ = (fd, interest, deadline, waker);
        Err(Failure::unsupported("this worker class does not support detached exchanges"))
    }

    /// Fires the waker once other work has had a chance to run. Called for an exchange that has not had to
    /// wait for a while. A class whose threads serve one request each fires it immediately.
    fn wake_soon(&self, waker: Waker) {
        waker.wake();
    }

    /// Registers a waker that fires when the client disconnects. A class that cannot detect this does
    /// nothing.
    fn on_disconnect(&self, fd: BorrowedFd<'_>, waker: Waker) {
        let _ = (fd, waker);
    }

    /// Reports that the deadline of the request on this connection was extended to `deadline`, or removed.
    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        let _ = (fd, deadline);
    }

    /// Takes the connection back at the end of the exchange, from any thread that had the exchange. The class
    /// then calls [`Connection::advance`].
    fn release(&self, connection: Box<Connection>);
}
