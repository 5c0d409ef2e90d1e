//! The connections of a worker: each has a place, and is parked there or lent to an exchange.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use green::sync::Event;
use green::{Handle, Interrupt};
use kit::clock::now_ns;
use kit::socket::Accepted;
use kit::{Advance, Connection, ConnectionDriver, WorkerBase, crowd};
use worker_api::{Counter, Host, Waker};

use crate::driver::GreenHome;
use crate::place::{Place, hub_interest};
use crate::request_deadlines::RequestDeadlines;

/// How a class serves: the part of [`Connections`] that is the class's own.
pub trait Serve {
    /// A whole request has come: sees to it that [`Connections::serve_requests`] runs for it in a greenlet, or answers with the
    /// connection where there is no greenlet left for it. Must not block.
    fn start(&self, connection: Box<Connection>) -> Result<(), Box<Connection>>;

    /// A connection is gone: there is room for another. Must not block.
    fn gone(&self) {}
}

/// The connections of the worker that runs on this thread.
pub struct Connections {
    base: Rc<WorkerBase>,
    home: Arc<dyn ConnectionDriver>,
    handle: Handle,
    clock: Clock,
    guest: bool,
    serve: OnceCell<Weak<dyn Serve>>,
    /// By descriptor.
    places: RefCell<Vec<Option<Rc<Place>>>>,
    count: Cell<usize>,
    /// Requests that wait for a greenlet to end, or for the guest loop's turn.
    waiting: RefCell<VecDeque<Box<Connection>>>,
    deadlines: RequestDeadlines,
    /// Nobody is connected.
    empty: Event,
    /// Until when connections without a request are kept; 0 while the worker serves.
    idle_drain_ns: Cell<u64>,
    /// Requests that are in greenlets now, the guest's or our own.
    busy: Cell<usize>,
    /// A greenlet rests until `handover` is set, and then takes what is `handed` to it.
    resting: Cell<bool>,
    /// Whether it has begun to rest since the last sign of life.
    rests_anew: Cell<bool>,
    handover: Event,
    handed: Cell<Option<Box<Connection>>>,
}

impl Connections {
    /// The connections of the hub on this thread; `guest` is whether a guest loop drives it.
    pub(crate) fn new(base: &Rc<WorkerBase>, handle: Handle, guest: bool) -> Rc<Self> {
        let empty = Event::new();
        empty.set();
        let connections = Rc::new(Self {
            base: Rc::clone(base),
            home: Arc::new(GreenHome::new(handle.clone())),
            handle,
            clock: Clock { at: Instant::now(), ns: now_ns() },
            guest,
            serve: OnceCell::new(),
            places: RefCell::default(),
            count: Cell::new(0),
            waiting: RefCell::default(),
            deadlines: RequestDeadlines::new(base),
            empty,
            idle_drain_ns: Cell::new(0),
            busy: Cell::new(0),
            resting: Cell::new(false),
            rests_anew: Cell::new(false),
            handover: Event::new(),
            handed: Cell::new(None),
        });
        HERE.set(Some(Rc::clone(&connections)));
        connections
    }

    /// Those of this thread.
    pub(crate) fn here() -> Option<Rc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Has the thread forget them.
    pub(crate) fn forget() {
        drop(HERE.take());
    }

    /// Says who serves them: once, before the first is admitted.
    pub fn served_by(&self, serve: Weak<dyn Serve>) {
        let set = self.serve.set(serve);
        debug_assert!(set.is_ok(), "a worker has one way to serve");
    }

    /// Takes a connection in, and waits for its first request.
    pub fn admit(self: &Rc<Self>, accepted: Accepted) {
        let mut connection = Connection::new(&self.base.context, accepted);
        let place = match Place::new(self, &connection) {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!("cannot watch a connection: {error}");
                return;
            }
        };
        self.base.host.count(Counter::ACCEPTED, 1);
        self.base.host.count(Counter::CONNECTIONS, 1);
        let fd = connection.fd() as usize;
        let mut places = self.places.borrow_mut();
        if places.len() <= fd {
            places.resize_with(fd + 1, || None);
        }
        places[fd] = Some(Rc::clone(&place));
        drop(places);
        self.count.set(self.count.get() + 1);
        self.empty.clear();
        if self.idle_drain_ns.get() != 0 {
            connection.shorten_idle_deadline(self.idle_drain_ns.get());
        }
        // Its bytes are an event like any others: many connections share the wait for them.
        place.park_fresh(connection);
    }

    /// The host's services.
    pub fn host(&self) -> &Host {
        &self.base.host
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.count.get()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has the connections that have waited longest for a request give way to `needed` that wait to be accepted: where
    /// there are `worker_connections`, and no other worker has taken the new ones for [`crowd::PAUSE`].
    pub fn make_room(&self, needed: usize) {
        let oldest = {
            let places = self.places.borrow();
            let waits = |place: &Rc<Place>| Some((place.waits_since_ns()?, Rc::clone(place)));
            crowd::pick(places.iter().flatten().filter_map(waits), needed)
        };
        self.base.context.note_crowd(oldest.len());
        for place in oldest {
            place.yield_now();
        }
    }

    /// How many requests are with the application, in greenlets.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }

    /// Calls the application for a request, for those that waited for a greenlet, and for those that come while this
    /// one rests. In a greenlet.
    pub fn serve_requests(&self, connection: Box<Connection>) {
        let mut next = Some(connection);
        while let Some(connection) = next {
            self.busy.set(self.busy.get() + 1);
            self.call(connection);
            self.busy.set(self.busy.get() - 1);
            self.deadlines.absorb();
            // The queue is not held over the rest.
            let waiting = self.waiting.borrow_mut().pop_front();
            next = waiting.or_else(|| self.park_for_reuse());
        }
    }

    /// One greenlet that has nothing to do rests for a while instead of ending: as long as no request waits for
    /// anything, it serves them all, and none is made for each. How long is not timed for each request:
    /// [`Connections::end_rest`] sees to that.
    fn park_for_reuse(&self) -> Option<Box<Connection>> {
        if self.resting.get() || self.idle_drain_ns.get() != 0 {
            return None;
        }
        self.resting.set(true);
        self.rests_anew.set(true);
        // What was handed over is served, whatever else ended the wait; otherwise the greenlet ends.
        let _ = self.handover.wait(None);
        self.handover.clear();
        self.resting.set(false);
        self.handed.take()
    }

    /// Has the greenlet that rests end, so that its stack goes back, where it has had nothing to do since this was
    /// called last: with each sign of life.
    pub(crate) fn end_rest(&self) {
        if !self.rests_anew.replace(false) && self.resting.get() {
            self.handover.set();
        }
    }

    /// Calls a guest's application for the requests that have come.
    pub(crate) fn call_guest(&self) {
        // As many as there are now: what comes meanwhile is the next turn's.
        let came = self.waiting.borrow().len();
        for _ in 0..came {
            let next = self.waiting.borrow_mut().pop_front();
            if let Some(connection) = next {
                // Until it comes back, wherever the guest serves it.
                self.busy.set(self.busy.get() + 1);
                self.call(connection);
            }
        }
    }

    /// From now on every answer closes its connection, and one without a request is let go soon.
    pub fn drain(self: &Rc<Self>) {
        self.base.context.drain();
        self.idle_drain_ns.set(WorkerBase::idle_drain_deadline_ns());
        let places: Vec<Rc<Place>> = self.places.borrow().iter().flatten().cloned().collect();
        for place in places {
            place.shorten_idle_deadline(self.idle_drain_ns.get());
        }
        if self.resting.get() {
            self.handover.set();
        }
    }

    /// Waits until nobody is connected, until `deadline_ns` at the latest (0: for ever); answers whether nobody is.
    pub fn wait_empty(&self, deadline_ns: u64) -> Result<bool, Interrupt> {
        let left =
            (deadline_ns != 0).then(|| Duration::from_nanos(deadline_ns.saturating_sub(now_ns())));
        self.empty.wait(left)
    }

    /// Goes on with a connection that came back from its exchange.
    pub(crate) fn come_back(self: &Rc<Self>, mut connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        if self.guest {
            self.busy.set(self.busy.get().saturating_sub(1));
        }
        if self.idle_drain_ns.get() != 0 {
            connection.shorten_idle_deadline(self.idle_drain_ns.get());
        }
        let next = connection.advance();
        self.settle(connection, next);
    }

    /// Does with a connection what it asks for.
    pub(crate) fn settle(self: &Rc<Self>, mut connection: Box<Connection>, mut next: Advance) {
        loop {
            match next {
                Advance::Request => return self.start(connection),
                Advance::Closed => return self.leave(connection),
                Advance::Wait(interest) => {
                    let Some(place) = self.place(connection.fd()) else { return };
                    match place.source.take_ready(hub_interest(interest)) {
                        Ok(true) => next = connection.advance(),
                        Ok(false) => return place.park(connection, interest),
                        Err(error) => {
                            tracing::warn!("cannot watch a connection: {error}");
                            next = Advance::Closed;
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn place(&self, fd: RawFd) -> Option<Rc<Place>> {
        self.places.borrow().get(usize::try_from(fd).ok()?)?.clone()
    }

    /// A deadline of the kit's as the hub counts.
    pub(crate) fn instant(&self, deadline_ns: u64) -> Instant {
        self.clock.instant(deadline_ns)
    }

    /// Fires a waker in the hub's next turn, which a guest loop is made to take.
    pub(crate) fn wake_soon(&self, waker: Waker) {
        self.handle.call(move || waker.wake());
    }

    pub(crate) fn deadlines(&self) -> &RequestDeadlines {
        &self.deadlines
    }

    fn start(&self, connection: Box<Connection>) {
        let refused = if self.guest {
            // Outside a turn the guest's loop must come to know.
            self.handle.wake();
            Err(connection)
        } else {
            self.hand_over(connection).or_else(|connection| {
                match self.serve.get().and_then(Weak::upgrade) {
                    Some(serve) => serve.start(connection),
                    None => Ok(()),
                }
            })
        };
        if let Err(connection) = refused {
            self.waiting.borrow_mut().push_back(connection);
        }
    }

    /// Gives the request to the greenlet that rests, if one does.
    fn hand_over(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        if !self.resting.replace(false) {
            return Err(connection);
        }
        self.handed.set(Some(connection));
        self.handover.set();
        Ok(())
    }

    fn call(&self, connection: Box<Connection>) {
        let fd = connection.fd();
        let exchange = connection.into_exchange(Arc::clone(&self.home));
        self.deadlines.begin(fd, &exchange);
        self.base.app.call(exchange);
    }

    fn leave(&self, connection: Box<Connection>) {
        let place = match self.places.borrow_mut().get_mut(connection.fd() as usize) {
            Some(place) => place.take(),
            None => None,
        };
        if connection.is_duplicated()
            && let Some(place) = &place
            && let Err(error) = place.source.deregister()
        {
            tracing::warn!("a connection that was taken over is still watched: {error}");
        }
        drop(connection);
        drop(place);
        self.base.host.count(Counter::CONNECTIONS, -1);
        self.count.set(self.count.get() - 1);
        if self.is_empty() {
            self.empty.set();
        }
        if let Some(serve) = self.serve.get().and_then(Weak::upgrade) {
            serve.gone();
        }
    }
}

/// Turns the kit's deadlines into the hub's: both count the same clock.
struct Clock {
    at: Instant,
    ns: u64,
}

impl Clock {
    fn instant(&self, ns: u64) -> Instant {
        self.at + Duration::from_nanos(ns.saturating_sub(self.ns))
    }
}

thread_local! {
    static HERE: RefCell<Option<Rc<Connections>>> = const { RefCell::new(None) };
}
