//! The connections of a worker. Each has an entry, and is parked there or lent to an exchange.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jimu_green::sync::Event;
use jimu_green::{Handle, Interrupt};
use jimu_kit::accept::Accepted;
use jimu_kit::clock::now_ns;
use jimu_kit::{Advance, Connection, ConnectionDriver, Deadline, WorkerBase, crowd};
use worker_api::{Counter, Host, Waker};

use crate::entry::{ConnectionEntry, EntryOwner, hub_interest};
use crate::request_deadlines::RequestDeadlines;

/// How a class serves: the part of [`Connections`] that differs between classes.
pub trait Serve {
    /// Called with a complete request: runs [`Connections::serve_requests`] for it in a greenlet, or returns the connection
    /// if no greenlet is free. Must not block.
    fn start(&self, connection: Box<Connection>) -> Result<(), Box<Connection>>;

    /// Called after a connection was closed, which makes room for another one. Must not block.
    fn on_close(&self) {}
}

/// The connections of the worker that runs on this thread.
pub struct Connections {
    base: Rc<WorkerBase>,
    driver: Arc<dyn ConnectionDriver>,
    handle: Handle,
    clock: Clock,
    guest: bool,
    serve: OnceCell<Weak<dyn Serve>>,
    /// By descriptor.
    entries: RefCell<Vec<Option<Rc<ConnectionEntry>>>>,
    count: Cell<usize>,
    /// Connections that were accepted and not read yet.
    admitted: RefCell<VecDeque<Box<Connection>>>,
    /// Requests that wait for a free greenlet, or for the next turn of the guest loop.
    waiting: RefCell<VecDeque<Box<Connection>>>,
    /// The limits of the requests, if there is a `request_timeout`.
    deadlines: Option<Rc<RequestDeadlines>>,
    /// Set while there are no connections.
    empty: Event,
    /// When idle connections are closed while the worker stops; never while it serves.
    idle_drain: Cell<Deadline>,
    /// The number of requests in greenlets, the guest's or our own.
    busy: Cell<usize>,
    /// Whether the spare greenlet is parked: it waits for `spare_wakeup`, and then serves `spare_request`.
    spare_parked: Cell<bool>,
    /// Whether the spare greenlet has parked since the last heartbeat.
    spare_used: Cell<bool>,
    spare_wakeup: Event,
    spare_request: Cell<Option<Box<Connection>>>,
}

impl Connections {
    /// Creates the connections of the hub on this thread. `driver` is what their exchanges wait with; `guest`: a guest loop
    /// drives the hub.
    pub(crate) fn new(
        base: &Rc<WorkerBase>,
        handle: Handle,
        driver: Arc<dyn ConnectionDriver>,
        guest: bool,
    ) -> Rc<Self> {
        let empty = Event::new();
        empty.set();
        let connections = Rc::new(Self {
            base: Rc::clone(base),
            driver,
            handle,
            clock: Clock { at: Instant::now(), ns: now_ns() },
            guest,
            serve: OnceCell::new(),
            entries: RefCell::default(),
            count: Cell::new(0),
            admitted: RefCell::default(),
            waiting: RefCell::default(),
            deadlines: RequestDeadlines::new(base),
            empty,
            idle_drain: Cell::default(),
            busy: Cell::new(0),
            spare_parked: Cell::new(false),
            spare_used: Cell::new(false),
            spare_wakeup: Event::new(),
            spare_request: Cell::new(None),
        });
        CURRENT.set(Some(Rc::clone(&connections)));
        connections
    }

    /// Returns the connections of this thread, if it is a hub's.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Drops the connections of this thread.
    pub(crate) fn clear_current() {
        drop(CURRENT.take());
    }

    /// Sets how the class serves: once, before the first connection is admitted.
    pub fn set_serve(&self, serve: Weak<dyn Serve>) {
        let set = self.serve.set(serve);
        debug_assert!(set.is_ok(), "a worker has one way to serve");
    }

    /// Adds a connection. The caller then calls [`Connections::start_admitted`], once for all that it has accepted.
    pub fn admit(self: &Rc<Self>, accepted: Accepted) {
        let mut connection = Connection::new(&self.base.context, accepted);
        let owner: Weak<dyn EntryOwner> = Rc::<Self>::downgrade(self);
        let entry = match ConnectionEntry::new(owner, &connection) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!("cannot watch a connection: {error}");
                return;
            }
        };
        self.base.host.count(Counter::ACCEPTED, 1);
        self.base.host.count(Counter::CONNECTIONS, 1);
        let fd = connection.fd() as usize;
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= fd {
            entries.resize_with(fd + 1, || None);
        }
        entries[fd] = Some(entry);
        drop(entries);
        self.count.set(self.count.get() + 1);
        self.empty.clear();
        connection.shorten_idle_deadline(self.idle_drain.get());
        self.admitted.borrow_mut().push_back(connection);
    }

    /// Reads the connections that were admitted, and serves the requests that have arrived.
    ///
    /// A connection is read before it is watched, and after all of its batch have been accepted, which leaves its client
    /// time to send the request: one that is closed after this request then needs no `epoll_ctl`.
    pub fn start_admitted(&self) {
        loop {
            let first = self.admitted.borrow_mut().pop_front();
            let Some(mut connection) = first else { return };
            let next = connection.advance();
            self.settle(connection, next);
        }
    }

    /// Returns the host's services.
    pub fn host(&self) -> &Host {
        &self.base.host
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.count.get()
    }

    /// Returns whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes up to `needed` connections that have waited longest for a request, in favor of connections in the backlog. To
    /// be called if there are `worker_connections` and no other worker has accepted the new ones for [`crowd::PAUSE`].
    pub fn make_room(&self, needed: usize) {
        let oldest = {
            let entries = self.entries.borrow();
            let waits =
                |entry: &Rc<ConnectionEntry>| Some((entry.waits_since_ns()?, Rc::clone(entry)));
            crowd::pick(entries.iter().flatten().filter_map(waits), needed)
        };
        self.base.context.note_crowd(oldest.len());
        for entry in oldest {
            entry.yield_now();
        }
    }

    /// Returns the number of requests that the application serves, in greenlets.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }

    /// Calls the application for a request, then for the requests that wait for a greenlet, then for those that arrive
    /// while this greenlet is the spare one. To be called in a greenlet.
    pub fn serve_requests(&self, connection: Box<Connection>) {
        let mut next = Some(connection);
        while let Some(connection) = next {
            self.busy.set(self.busy.get() + 1);
            self.call(connection);
            self.busy.set(self.busy.get() - 1);
            if self.deadlines.is_some() {
                // Consumes the interrupt of a request that ended just when it timed out, so that it does not end the
                // next request.
                let _ = jimu_green::yield_now();
            }
            // Ends the borrow of the queue before the greenlet parks.
            let waiting = self.waiting.borrow_mut().pop_front();
            next = waiting.or_else(|| self.park_for_reuse());
        }
    }

    /// Parks the calling greenlet as the spare one, and returns the next request for it. Returns `None` if the greenlet has
    /// to end, for example because another one is parked already.
    ///
    /// As long as requests do not wait for anything, the spare greenlet serves them all, and no request needs a new one.
    /// No timer is set for each request to limit how long it stays parked:
    /// [`Connections::end_unused_spare`] does that.
    fn park_for_reuse(&self) -> Option<Box<Connection>> {
        if self.spare_parked.get() || !self.idle_drain.get().is_never() {
            return None;
        }
        self.spare_parked.set(true);
        self.spare_used.set(true);
        // A request that was passed to it is served, even if something else ended the wait.
        let _ = self.spare_wakeup.wait(None);
        self.spare_wakeup.clear();
        self.spare_parked.set(false);
        self.spare_request.take()
    }

    /// Ends the spare greenlet, which frees its stack, if it has served nothing since the last call. Called with each
    /// heartbeat.
    pub(crate) fn end_unused_spare(&self) {
        if !self.spare_used.replace(false) && self.spare_parked.get() {
            self.spare_wakeup.set();
        }
    }

    /// Calls a guest's application for the requests that wait.
    pub(crate) fn call_guest(&self) {
        // Those that wait now: later ones are served in the next turn.
        let count = self.waiting.borrow().len();
        for _ in 0..count {
            let next = self.waiting.borrow_mut().pop_front();
            if let Some(connection) = next {
                // Counts as busy until it is released, wherever the guest serves it.
                self.busy.set(self.busy.get() + 1);
                self.call(connection);
            }
        }
    }

    /// Stops keeping connections alive: every response closes its connection from now on, and idle ones are closed soon.
    pub fn drain(self: &Rc<Self>) {
        self.base.context.drain();
        self.idle_drain.set(WorkerBase::idle_drain_deadline());
        let entries: Vec<Rc<ConnectionEntry>> =
            self.entries.borrow().iter().flatten().cloned().collect();
        for entry in entries {
            entry.shorten_idle_deadline(self.idle_drain.get());
        }
        if self.spare_parked.get() {
            self.spare_wakeup.set();
        }
    }

    /// Waits until there are no connections, until `deadline` at the latest. Returns whether there are none.
    pub fn wait_empty(&self, deadline: Deadline) -> Result<bool, Interrupt> {
        self.empty.wait(deadline.left())
    }

    /// Takes back a connection whose exchange is over, and advances it.
    pub(crate) fn release(self: &Rc<Self>, mut connection: Box<Connection>) {
        if let Some(deadlines) = &self.deadlines {
            deadlines.end(connection.fd());
        }
        if self.guest {
            self.busy.set(self.busy.get().saturating_sub(1));
        }
        connection.shorten_idle_deadline(self.idle_drain.get());
        let next = connection.advance();
        self.settle(connection, next);
    }

    /// Does what a connection asks for.
    fn settle(&self, mut connection: Box<Connection>, mut next: Advance) {
        loop {
            match next {
                Advance::Request => return self.start(connection),
                Advance::Closed => return self.close(connection),
                Advance::Wait(interest) => {
                    let Some(entry) = self.entry(connection.fd()) else { return };
                    match entry.source.take_ready(hub_interest(interest)) {
                        Ok(true) => next = connection.advance(),
                        Ok(false) => return entry.park(connection, interest),
                        Err(error) => {
                            tracing::warn!("cannot watch a connection: {error}");
                            next = Advance::Closed;
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn entry(&self, fd: RawFd) -> Option<Rc<ConnectionEntry>> {
        self.entries.borrow().get(usize::try_from(fd).ok()?)?.clone()
    }

    /// Returns the limits of the requests, if there is a `request_timeout`.
    pub(crate) fn deadlines(&self) -> Option<&RequestDeadlines> {
        self.deadlines.as_deref()
    }

    /// Returns whether the request that the current greenlet serves has timed out.
    pub(crate) fn current_request_has_timed_out() -> bool {
        let connections = Self::current();
        let deadlines = connections.as_ref().and_then(|connections| connections.deadlines());
        deadlines.is_some_and(RequestDeadlines::current_has_timed_out)
    }

    fn start(&self, connection: Box<Connection>) {
        let refused = if self.guest {
            // Outside of a turn, the guest loop must be woken.
            self.handle.wake();
            Err(connection)
        } else {
            self.pass_to_spare(connection).or_else(|connection| {
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

    /// Passes the request to the spare greenlet, if it is parked; returns it otherwise.
    fn pass_to_spare(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        if !self.spare_parked.replace(false) {
            return Err(connection);
        }
        self.spare_request.set(Some(connection));
        self.spare_wakeup.set();
        Ok(())
    }

    fn call(&self, connection: Box<Connection>) {
        let fd = connection.fd();
        let exchange = connection.into_exchange(Arc::clone(&self.driver));
        if let Some(deadlines) = &self.deadlines {
            deadlines.begin(fd, &exchange, self.entry(fd).as_ref());
        }
        self.base.app.call(exchange);
    }

    fn close(&self, connection: Box<Connection>) {
        let entry = match self.entries.borrow_mut().get_mut(connection.fd() as usize) {
            Some(entry) => entry.take(),
            None => None,
        };
        if connection.is_duplicated()
            && let Some(entry) = &entry
            && let Err(error) = entry.source.deregister()
        {
            tracing::warn!("cannot stop watching a connection that was taken over: {error}");
        }
        drop(connection);
        drop(entry);
        self.base.host.count(Counter::CONNECTIONS, -1);
        self.count.set(self.count.get() - 1);
        if self.is_empty() {
            self.empty.set();
        }
        if let Some(serve) = self.serve.get().and_then(Weak::upgrade) {
            serve.on_close();
        }
    }
}

impl EntryOwner for Connections {
    fn settle(&self, connection: Box<Connection>, next: Advance) {
        Self::settle(self, connection, next);
    }

    fn wake_soon(&self, waker: Waker) {
        self.handle.call(move || waker.wake());
    }

    fn instant(&self, deadline: Deadline) -> Instant {
        self.clock.instant(deadline.ns())
    }
}

/// Converts the kit's times into the hub's: both are of the monotonic clock.
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
    static CURRENT: RefCell<Option<Rc<Connections>>> = const { RefCell::new(None) };
}
