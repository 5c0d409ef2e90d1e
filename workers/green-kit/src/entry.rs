//! One connection's registration in the hub, and what waits for it: nothing, the connection itself while it is parked, a
//! greenlet, or the wakers of an exchange that the application has detached.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::Instant;

use jimu_green::{Observer, Ready, Source};
use jimu_kit::{Advance, Connection, Deadline, poll};
use worker_api::{Interest, Waker};

/// What an entry belongs to: the worker's connections.
pub(crate) trait EntryOwner {
    /// Does what a connection asks for.
    fn settle(&self, connection: Box<Connection>, next: Advance);

    /// Fires a waker in the hub's next turn, and wakes a guest loop for it.
    fn wake_soon(&self, waker: Waker);

    /// Converts a deadline of the kit into the hub's type.
    fn instant(&self, deadline: Deadline) -> Instant;
}

/// The entry of one connection.
pub(crate) struct ConnectionEntry {
    pub(crate) source: Source<RawFd>,
    owner: Weak<dyn EntryOwner>,
    /// The connection, while it waits.
    parked: Cell<Option<Box<Connection>>>,
    interest: Cell<Interest>,
    /// Allocated with the first waker: most connections never have one.
    armed: Cell<Option<Box<Armed>>>,
    /// Whether the client had shut down its side when its connection was registered for `on_disconnect`.
    ended_before: Cell<bool>,
    /// When the source's timer expires. It may be earlier than the deadline: it is not moved with each request, and the
    /// deadline is checked when it expires, so that a request needs no timer operation.
    timer: Cell<Deadline>,
}

/// The wakers of an exchange that the application has detached.
#[derive(Default)]
struct Armed {
    read: Option<Waker>,
    /// Whether `read` also fires when the connection is writable: a read may have to send first.
    read_or_write: bool,
    write: Option<Waker>,
    on_disconnect: Option<Waker>,
    /// When `read` and `write` fire in any case.
    deadline: Deadline,
}

impl ConnectionEntry {
    /// Creates the entry of a connection that is about to be read for the first time. It must be removed before the
    /// connection is closed.
    pub(crate) fn new(
        owner: Weak<dyn EntryOwner>,
        connection: &Connection,
    ) -> io::Result<Rc<Self>> {
        let source = Source::of_raw_deferred(connection.fd())?;
        source.closes();
        let entry = Rc::new(Self {
            source,
            owner,
            parked: Cell::new(None),
            interest: Cell::new(Interest::READ),
            armed: Cell::new(None),
            ended_before: Cell::new(false),
            timer: Cell::default(),
        });
        let observer: Weak<dyn Observer> = Rc::<Self>::downgrade(&entry);
        entry.source.observe(observer);
        Ok(entry)
    }

    /// Parks the connection until its descriptor is ready for `interest`, or its deadline has passed.
    pub(crate) fn park(&self, connection: Box<Connection>, interest: Interest) {
        self.arm_timer(connection.deadline());
        self.interest.set(interest);
        self.parked.set(Some(connection));
    }

    /// Moves the deadline of a parked idle connection to `deadline` if it is later.
    pub(crate) fn shorten_idle_deadline(&self, deadline: Deadline) {
        if let Some(mut connection) = self.parked.take() {
            connection.shorten_idle_deadline(deadline);
            self.park(connection, self.interest.get());
        }
    }

    /// Returns since when the parked connection has waited for a request.
    pub(crate) fn waits_since_ns(&self) -> Option<u64> {
        let parked = self.parked.take();
        let since_ns = parked.as_ref().and_then(|connection| connection.waits_since_ns());
        self.parked.set(parked);
        since_ns
    }

    /// Closes the parked connection to make room for another one, unless its request has arrived.
    pub(crate) fn yield_now(&self) {
        if let (Some(mut connection), Some(owner)) = (self.parked.take(), self.owner.upgrade()) {
            let next = connection.yield_now();
            owner.settle(connection, next);
        }
    }

    /// Sets the waker to fire when the connection is ready for `interest`, or at the deadline.
    pub(crate) fn arm(
        &self,
        interest: Interest,
        deadline: Deadline,
        waker: Waker,
    ) -> io::Result<()> {
        if self.source.take_ready(hub_interest(interest))? {
            if let Some(owner) = self.owner.upgrade() {
                owner.wake_soon(waker);
            }
            return Ok(());
        }
        let mut armed = self.armed.take().unwrap_or_default();
        armed.deadline = match (&armed.read, &armed.write) {
            (None, None) => deadline,
            _ => armed.deadline.min(deadline),
        };
        if interest == Interest::WRITE {
            armed.write = Some(waker);
        } else {
            armed.read = Some(waker);
            armed.read_or_write = interest == Interest::READ_WRITE;
        }
        let deadline = armed.deadline;
        self.armed.set(Some(armed));
        self.arm_timer(deadline);
        Ok(())
    }

    /// Sets the waker to fire when the client disconnects, or in [`ConnectionEntry::fire_on_disconnect`].
    pub(crate) fn on_disconnect(&self, waker: Waker) -> io::Result<()> {
        if self.source.register()? {
            // Reported now, too, but it is no disconnect: the client has sent its request and waits for the response.
            self.ended_before.set(poll::has_ended(*self.source.get_ref()));
        }
        let mut armed = self.armed.take().unwrap_or_default();
        armed.on_disconnect = Some(waker);
        self.armed.set(Some(armed));
        Ok(())
    }

    /// Fires the waker for a disconnect: the client has disconnected, or the request has timed out.
    pub(crate) fn fire_on_disconnect(&self) {
        let Some(mut armed) = self.armed.take() else { return };
        let waker = armed.on_disconnect.take();
        self.armed.set(Some(armed));
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Makes the timer expire at `deadline` at the latest.
    fn arm_timer(&self, deadline: Deadline) {
        if self.timer.get() <= deadline {
            return;
        }
        if let Some(owner) = self.owner.upgrade() {
            self.timer.set(deadline);
            self.source.set_deadline(Some(owner.instant(deadline)));
        }
    }

    /// Handles an event of the parked connection.
    fn advance(&self, mut connection: Box<Connection>, ready: Ready) {
        let Some(owner) = self.owner.upgrade() else { return };
        let interest = self.interest.get();
        if ready.is_timed_out() {
            if !connection.deadline().is_past() {
                return self.park(connection, interest);
            }
            let next = connection.expire();
            return owner.settle(connection, next);
        }
        match self.source.take_ready(hub_interest(interest)) {
            Ok(true) => {
                let next = connection.advance();
                owner.settle(connection, next);
            }
            Ok(false) => self.parked.set(Some(connection)),
            Err(error) => {
                tracing::warn!("cannot watch a connection: {error}");
                owner.settle(connection, Advance::Closed);
            }
        }
    }

    /// Handles an event while an exchange has the connection: fires its wakers.
    fn fire(&self, ready: Ready) {
        let Some(mut armed) = self.armed.take() else { return };
        let deadline = armed.deadline;
        let late = ready.is_timed_out() && deadline.is_past();
        let is_gone = if self.ended_before.get() { ready.is_hangup() } else { ready.is_end() };
        let fires_read = ready.is_readable() || armed.read_or_write && ready.is_writable();
        let fires = [
            (late || fires_read).then(|| armed.read.take()).flatten(),
            (late || ready.is_writable()).then(|| armed.write.take()).flatten(),
            is_gone.then(|| armed.on_disconnect.take()).flatten(),
        ];
        let still_armed = armed.read.is_some() || armed.write.is_some();
        self.armed.set(Some(armed));
        if ready.is_timed_out() && still_armed {
            self.arm_timer(deadline);
        }
        let [read, write, _] = &fires;
        for (waker, interest) in
            [(read, jimu_green::Interest::Read), (write, jimu_green::Interest::Write)]
        {
            if waker.is_some()
                && let Err(error) = self.source.take_ready(interest)
            {
                tracing::warn!("cannot watch a connection: {error}");
            }
        }
        fires.into_iter().flatten().for_each(|waker| waker.wake());
    }
}

impl Observer for ConnectionEntry {
    fn notice(&self, ready: Ready) {
        if ready.is_timed_out() {
            self.timer.set(Deadline::NEVER);
        }
        match self.parked.take() {
            Some(connection) => self.advance(connection, ready),
            None => self.fire(ready),
        }
    }
}

/// Converts an interest of the ABI into one of the hub.
pub(crate) fn hub_interest(interest: Interest) -> jimu_green::Interest {
    match interest {
        Interest::READ => jimu_green::Interest::Read,
        Interest::READ_WRITE => jimu_green::Interest::Both,
        _ => jimu_green::Interest::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_an_idle_connection_is_small() {
        assert!(size_of::<ConnectionEntry>() <= 72, "{}", size_of::<ConnectionEntry>());
    }
}
