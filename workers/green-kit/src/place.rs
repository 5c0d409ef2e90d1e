//! One connection's registration in the hub, and who waits for it: nobody, the connection itself while it is parked,
//! a greenlet, or the wakers of an exchange that the application keeps.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};

use green::{Observer, Ready, Source, Trigger};
use kit::clock::{earlier, now_ns};
use kit::{Advance, Connection};
use worker_api::{Interest, Waker};

use crate::connections::Connections;

/// The place of one connection.
pub(crate) struct Place {
    pub(crate) source: Source<RawFd>,
    connections: Weak<Connections>,
    /// The connection, while nothing is to be done with it.
    parked: Cell<Option<Box<Connection>>>,
    interest: Cell<Interest>,
    armed: RefCell<Armed>,
    /// When the source's timer runs out; 0 where it is not set. It may be early: a timer that is not put off with every
    /// request, but looked at when it runs out, costs a request nothing.
    timer_ns: Cell<u64>,
}

/// The wakers of an exchange that the application keeps.
#[derive(Default)]
struct Armed {
    read: Option<Waker>,
    write: Option<Waker>,
    gone: Option<Waker>,
    /// When the first two fire in any case; 0 for never.
    deadline_ns: u64,
}

impl Place {
    /// A place for a connection. It must leave it before it is closed.
    pub(crate) fn new(
        connections: &Rc<Connections>,
        connection: &Connection,
    ) -> io::Result<Rc<Self>> {
        let mut source = Source::of_raw(connection.fd(), Trigger::Edge)?;
        source.closes();
        let place = Rc::new(Self {
            source,
            connections: Rc::downgrade(connections),
            parked: Cell::new(None),
            interest: Cell::new(Interest::READ),
            armed: RefCell::default(),
            timer_ns: Cell::new(0),
        });
        let observer: Weak<dyn Observer> = Rc::<Self>::downgrade(&place);
        place.source.observe(observer);
        Ok(place)
    }

    /// Parks a connection of which nothing has been read yet: the registration itself tells what has come already.
    pub(crate) fn park_fresh(&self, connection: Box<Connection>) {
        // Only the interest in reading is forgotten, which needs no system call that could fail.
        let _ = self.source.clear_ready(green::Interest::Read);
        self.park(connection, Interest::READ);
    }

    /// Parks the connection until its descriptor is ready for `interest`, or its deadline has passed.
    pub(crate) fn park(&self, connection: Box<Connection>, interest: Interest) {
        self.arm_timer(connection.deadline_ns());
        self.interest.set(interest);
        self.parked.set(Some(connection));
    }

    /// Shortens the wait of a parked connection that has sent nothing.
    pub(crate) fn shorten_idle_deadline(&self, deadline_ns: u64) {
        if let Some(mut connection) = self.parked.take() {
            connection.shorten_idle_deadline(deadline_ns);
            self.park(connection, self.interest.get());
        }
    }

    /// Since when the parked connection has been waiting for a request.
    pub(crate) fn waits_since_ns(&self) -> Option<u64> {
        let parked = self.parked.take();
        let since_ns = parked.as_ref().and_then(|connection| connection.waits_since_ns());
        self.parked.set(parked);
        since_ns
    }

    /// Closes the parked connection, to make room for another, unless its request has come.
    pub(crate) fn yield_now(&self) {
        if let (Some(mut connection), Some(connections)) =
            (self.parked.take(), self.connections.upgrade())
        {
            let next = connection.yield_now();
            connections.settle(connection, next);
        }
    }

    /// Has the waker fire when it is worth while to try again.
    pub(crate) fn arm(&self, interest: Interest, deadline_ns: u64, waker: Waker) -> io::Result<()> {
        if self.source.take_ready(hub_interest(interest))? {
            if let Some(connections) = self.connections.upgrade() {
                connections.wake_soon(waker);
            }
            return Ok(());
        }
        let mut armed = self.armed.borrow_mut();
        armed.deadline_ns = match (&armed.read, &armed.write) {
            (None, None) => deadline_ns,
            _ => earlier(armed.deadline_ns, deadline_ns),
        };
        let slot = if interest == Interest::READ { &mut armed.read } else { &mut armed.write };
        *slot = Some(waker);
        let deadline_ns = armed.deadline_ns;
        drop(armed);
        self.arm_timer(deadline_ns);
        Ok(())
    }

    /// Has the waker fire when the client is gone, or by [`Place::fire_gone`].
    pub(crate) fn on_disconnect(&self, waker: Waker) {
        self.armed.borrow_mut().gone = Some(waker);
    }

    /// The client is gone, or the request's time is up.
    pub(crate) fn fire_gone(&self) {
        let gone = self.armed.borrow_mut().gone.take();
        if let Some(waker) = gone {
            waker.wake();
        }
    }

    /// Has the timer run out at `deadline_ns` at the latest; 0 stands for never.
    fn arm_timer(&self, deadline_ns: u64) {
        let set_ns = self.timer_ns.get();
        if deadline_ns == 0 || (set_ns != 0 && set_ns <= deadline_ns) {
            return;
        }
        if let Some(connections) = self.connections.upgrade() {
            self.timer_ns.set(deadline_ns);
            self.source.set_deadline(Some(connections.instant(deadline_ns)));
        }
    }

    /// Something happened to the parked connection.
    fn carry_on(&self, mut connection: Box<Connection>, ready: Ready) {
        let Some(connections) = self.connections.upgrade() else { return };
        let interest = self.interest.get();
        if ready.is_timed_out() {
            let deadline_ns = connection.deadline_ns();
            if deadline_ns == 0 || now_ns() < deadline_ns {
                return self.park(connection, interest);
            }
            let next = connection.expire();
            return connections.settle(connection, next);
        }
        match self.source.take_ready(hub_interest(interest)) {
            Ok(true) => {
                let next = connection.advance();
                connections.settle(connection, next);
            }
            Ok(false) => self.parked.set(Some(connection)),
            Err(error) => {
                tracing::warn!("cannot watch a connection: {error}");
                connections.settle(connection, Advance::Closed);
            }
        }
    }

    /// Something happened while an exchange has the connection.
    fn fire(&self, ready: Ready) {
        let mut armed = self.armed.borrow_mut();
        let deadline_ns = armed.deadline_ns;
        let late = ready.is_timed_out() && deadline_ns != 0 && now_ns() >= deadline_ns;
        let fires = [
            (late || ready.is_readable()).then(|| armed.read.take()).flatten(),
            (late || ready.is_writable()).then(|| armed.write.take()).flatten(),
            ready.is_end().then(|| armed.gone.take()).flatten(),
        ];
        let still_armed = armed.read.is_some() || armed.write.is_some();
        drop(armed);
        if ready.is_timed_out() && still_armed {
            self.arm_timer(deadline_ns);
        }
        let [read, write, _] = &fires;
        for (waker, interest) in [(read, green::Interest::Read), (write, green::Interest::Write)] {
            if waker.is_some()
                && let Err(error) = self.source.take_ready(interest)
            {
                tracing::warn!("cannot watch a connection: {error}");
            }
        }
        fires.into_iter().flatten().for_each(|waker| waker.wake());
    }
}

impl Observer for Place {
    fn notice(&self, ready: Ready) {
        if ready.is_timed_out() {
            self.timer_ns.set(0);
        }
        match self.parked.take() {
            Some(connection) => self.carry_on(connection, ready),
            None => self.fire(ready),
        }
    }
}

/// The hub's word for what an exchange waits for.
pub(crate) fn hub_interest(interest: Interest) -> green::Interest {
    if interest == Interest::READ { green::Interest::Read } else { green::Interest::Write }
}
