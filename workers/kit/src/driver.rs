//! The seam between an exchange and the class that serves it: how to wait, and where a connection goes afterwards.

use std::os::fd::RawFd;

use worker_api::{Failure, Interest, Result, Waker};

use crate::connection::Connection;

/// What a worker class does for the exchanges that it hands to the application.
pub trait ConnectionDriver: Send + Sync {
    /// Blocks in the class's way until the descriptor is ready. Fails with [`worker_api::FailureKind::TIMEOUT`] at the
    /// deadline (monotonic nanoseconds; 0 for none), and with [`worker_api::FailureKind::INTERRUPTED`] where the
    /// greenlet or the process is being ended.
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()>;

    /// Lets others have their turn, for an exchange that has not had to wait for long; fails as [`ConnectionDriver::wait`] does. A
    /// class whose threads serve one request each does nothing.
    fn yield_now(&self) -> Result<()> {
        Ok(())
    }

    /// Has the waker fire once when the descriptor is ready, or at the deadline. For exchanges that an application
    /// keeps; a class that does not allow this refuses.
    fn register_waker(
        &self,
        fd: RawFd,
        interest: Interest,
        deadline_ns: u64,
        waker: Waker,
    ) -> Result<()> {
        let _ = (fd, interest, deadline_ns, waker);
        Err(Failure::unsupported(
            "this worker class does not wait for exchanges that an application keeps",
        ))
    }

    /// Fires the waker once others have had the chance to run: for an exchange that has not had to wait for long. A class
    /// whose threads serve one request each fires it at once.
    fn wake_soon(&self, waker: Waker) {
        waker.wake();
    }

    /// Has the waker fire when the client hangs up. A class that cannot notice does nothing.
    fn on_disconnect(&self, fd: RawFd, waker: Waker) {
        let _ = (fd, waker);
    }

    /// The request on this connection has got more time: until when, in monotonic nanoseconds.
    fn deadline_extended(&self, fd: RawFd, deadline_ns: u64) {
        let _ = (fd, deadline_ns);
    }

    /// Takes the connection back when the exchange is over. May be called from any thread that had the exchange; goes
    /// on with [`Connection::advance`].
    fn release(&self, connection: Box<Connection>);
}
