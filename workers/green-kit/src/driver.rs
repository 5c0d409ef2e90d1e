//! How an exchange waits in a greenlet, and where its connection goes afterwards. Used by any thread that an
//! application gives its exchange to: what concerns the hub is handed over to it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use green::{Handle, Interrupt};
use kit::clock::now_ns;
use kit::{Connection, ConnectionDriver, poll};
use worker_api::{Failure, FailureKind, Interest, Result, Waker};

use crate::connections::Connections;
use crate::place::hub_interest;

/// The home of a cooperative worker's connections.
pub(crate) struct GreenHome {
    handle: Handle,
}

impl GreenHome {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Does `work` on the hub's thread, at once where this is it.
    fn on_hub(&self, work: impl FnOnce(&std::rc::Rc<Connections>) + Send + 'static) {
        match Connections::here() {
            Some(connections) => work(&connections),
            None => self.handle.call(move || {
                if let Some(connections) = Connections::here() {
                    work(&connections);
                }
            }),
        }
    }
}

impl ConnectionDriver for GreenHome {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        let Some(place) = Connections::here().and_then(|connections| connections.place(fd)) else {
            // A thread of the application's own blocks in the ordinary way.
            let ready = poll::wait(fd, interest, deadline_ns, || ());
            return answer(ready);
        };
        let interest = hub_interest(interest);
        let timeout =
            (deadline_ns != 0).then(|| Duration::from_nanos(deadline_ns.saturating_sub(now_ns())));
        answer(match place.source.take_ready(interest) {
            Ok(false) => place.source.wait(interest, timeout).and_then(|ready| {
                place.source.take_ready(interest)?;
                Ok(ready)
            }),
            result => result,
        })
    }

    fn yield_now(&self) -> Result<()> {
        if Connections::here().is_none() { Ok(()) } else { green::yield_now().map_err(interrupted) }
    }

    fn register_waker(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline_ns: u64,
        waker: Waker,
    ) -> Result<()> {
        let fd = fd.as_raw_fd();
        self.on_hub(move |connections| {
            if let Some(place) = connections.place(fd)
                && let Err(error) = place.arm(interest, deadline_ns, waker)
            {
                tracing::warn!("cannot watch a connection: {error}");
            }
        });
        Ok(())
    }

    fn wake_soon(&self, waker: Waker) {
        // In the hub's next turn, which comes after those that wait for this one to end.
        self.handle.call(move || waker.wake());
    }

    fn on_disconnect(&self, fd: BorrowedFd<'_>, waker: Waker) {
        let fd = fd.as_raw_fd();
        self.on_hub(move |connections| {
            if let Some(place) = connections.place(fd) {
                place.on_disconnect(waker);
            }
        });
    }

    fn deadline_extended(&self, fd: RawFd, deadline_ns: u64) {
        self.on_hub(move |connections| connections.deadlines().extend(fd, deadline_ns));
    }

    fn release(&self, connection: Box<Connection>) {
        self.on_hub(move |connections| connections.come_back(connection));
    }
}

fn answer(waited: io::Result<bool>) -> Result<()> {
    match waited {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(FailureKind::TIMEOUT, "the deadline passed")),
        Err(error) => Err(match Interrupt::of(&error) {
            Some(interrupt) => interrupted(interrupt),
            None => Failure::io("cannot wait for the client", &error),
        }),
    }
}

/// What ended a greenlet's wait, as the application sees it.
pub(crate) fn interrupted(interrupt: Interrupt) -> Failure {
    match interrupt {
        Interrupt::Exit if crate::request_deadlines::is_over() => {
            Failure::new(FailureKind::TIMEOUT, "the request timed out (request_timeout)")
        }
        Interrupt::Exit => Failure::new(FailureKind::INTERRUPTED, "the worker ends"),
        Interrupt::Outside => Failure::unsupported(
            "nothing may wait here: this is the loop's own call, or a guest loop's thread",
        ),
        other => Failure::new(FailureKind::INTERRUPTED, other.to_string()),
    }
}
