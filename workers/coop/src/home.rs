//! How an exchange waits in a greenlet, and where its connection goes afterwards. Used by any thread that an
//! application gives its exchange to: what concerns the hub is handed over to it.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use green::{Handle, Interrupt};
use kit::clock::now_ns;
use kit::{Connection, Home, poll};
use worker_api::{Failure, FailureKind, Interest, Result, Waker};

use crate::clients::Clients;
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
    fn on_hub(&self, work: impl FnOnce(&std::rc::Rc<Clients>) + Send + 'static) {
        match Clients::here() {
            Some(clients) => work(&clients),
            None => self.handle.call(move || {
                if let Some(clients) = Clients::here() {
                    work(&clients);
                }
            }),
        }
    }
}

impl Home for GreenHome {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        let Some(place) = Clients::here().and_then(|clients| clients.place(fd)) else {
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

    fn give_way(&self) -> Result<()> {
        if Clients::here().is_none() { Ok(()) } else { green::yield_now().map_err(interrupted) }
    }

    fn arm(&self, fd: RawFd, interest: Interest, deadline_ns: u64, waker: Waker) -> Result<()> {
        self.on_hub(move |clients| {
            if let Some(place) = clients.place(fd)
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

    fn watch_gone(&self, fd: RawFd, waker: Waker) {
        self.on_hub(move |clients| {
            if let Some(place) = clients.place(fd) {
                place.watch_gone(waker);
            }
        });
    }

    fn extended(&self, fd: RawFd, deadline_ns: u64) {
        self.on_hub(move |clients| clients.overtime().extend(fd, deadline_ns));
    }

    fn done(&self, connection: Box<Connection>) {
        self.on_hub(move |clients| clients.come_back(connection));
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
        Interrupt::Exit if crate::overtime::is_over() => {
            Failure::new(FailureKind::TIMEOUT, "the request ran over its time (request_timeout)")
        }
        Interrupt::Exit => Failure::new(FailureKind::INTERRUPTED, "the worker ends"),
        Interrupt::Outside => Failure::unsupported(
            "nothing may wait here: this is the loop's own call, or a guest loop's thread",
        ),
        other => Failure::new(FailureKind::INTERRUPTED, other.to_string()),
    }
}
