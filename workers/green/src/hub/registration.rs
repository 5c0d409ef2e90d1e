//! The hub's side of a [`Source`](super::source::Source): its epoll entry, its known readiness, its waiters, and
//! how an event reaches them.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::ready::{Interest, Ready, Trigger};
use super::timers::TimerKey;
use super::{Action, Core, Task, call_back};
use crate::greenlet::Greenlet;

/// Ties a descriptor to its [`State`] while the source exists.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) state: Rc<State>,
    pub(super) core: Rc<Core>,
}

impl Registration {
    pub(super) fn new(core: Rc<Core>, fd: RawFd, trigger: Trigger) -> io::Result<Self> {
        let registration = Self::deferred(core, fd, trigger);
        registration.register_reads()?;
        Ok(registration)
    }

    /// Creates a registration that is not in the epoll yet.
    pub(super) fn deferred(core: Rc<Core>, fd: RawFd, trigger: Trigger) -> Self {
        let state = core.new_state(fd, trigger);
        Self { state, core }
    }

    /// Adds an edge-triggered source to the epoll, unless it is there; returns whether it was added. What has arrived
    /// before is reported.
    pub(super) fn register_reads(&self) -> io::Result<bool> {
        let state = &self.state;
        let is_new = state.trigger == Trigger::Edge && state.registered.get().is_empty();
        if is_new {
            self.register(EpollFlags::EPOLLIN)?;
        }
        Ok(is_new)
    }

    pub(super) fn deregister(&self) -> io::Result<()> {
        if self.state.registered.replace(EpollFlags::empty()).is_empty() {
            return Ok(());
        }
        self.core.poller.delete(self.state.fd)
    }

    /// Registers for writability, too. Left out at first: on a unix socket each read of the peer would be an
    /// event.
    pub(super) fn register_writes(&self) -> io::Result<()> {
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        if self.state.registered.get() == wanted { Ok(()) } else { self.register(wanted) }
    }

    /// Updates a level-triggered registration to the current interests.
    pub(super) fn update(&self) -> io::Result<()> {
        if self.state.trigger == Trigger::Edge {
            return Ok(());
        }
        let wanted = self.state.wanted();
        if self.state.registered.get() == wanted { Ok(()) } else { self.register(wanted) }
    }

    fn register(&self, wanted: EpollFlags) -> io::Result<()> {
        let state = &self.state;
        let mut flags = wanted;
        match state.trigger {
            Trigger::Edge => flags |= EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET,
            Trigger::Level => {}
            Trigger::Exclusive => flags |= EpollFlags::EPOLLEXCLUSIVE,
        }
        let poller = &self.core.poller;
        let registered = state.registered.replace(EpollFlags::empty());
        // An exclusive registration cannot be modified.
        let modifiable = state.trigger != Trigger::Exclusive && !wanted.is_empty();
        if !registered.is_empty() && !modifiable {
            poller.delete(state.fd)?;
        }
        if registered.is_empty() || state.trigger == Trigger::Exclusive {
            if !wanted.is_empty() {
                poller.add(state.fd, flags, state.token())?;
            }
        } else if modifiable {
            poller.modify(state.fd, flags, state.token())?;
        }
        state.registered.set(wanted);
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.state.closes.get() {
            // The descriptor may already have been removed explicitly.
            let _ = self.deregister();
        }
        self.core.forget_source(&self.state);
    }
}

/// State that the hub keeps for a source. An idle connection is little more.
pub(crate) struct State {
    fd: RawFd,
    key: u32,
    generation: u32,
    /// Whether the descriptor is closed right after its registration is dropped.
    pub(super) closes: Cell<bool>,
    pub(super) trigger: Trigger,
    pub(super) ready: Cell<Ready>,
    registered: Cell<EpollFlags>,
    /// Allocated when something waits: a source with an observer never needs it.
    waits: OnceCell<Box<Waits>>,
    /// Observer that is notified instead of a callback.
    pub(super) observer: OnceCell<Weak<dyn Observer>>,
    /// Whether to run the callback when ready for `watched`.
    pub(super) active: Cell<bool>,
    pub(super) watched: Cell<Interest>,
    /// Whether it is in the ready queue.
    queued: Cell<bool>,
    expired: Cell<bool>,
    pub(super) timer: Cell<Option<TimerKey>>,
}

/// Notified of every event of a source; keeps its own state. See
/// [`Source::observe`](super::source::Source::observe).
pub trait Observer {
    /// Called on an event or when the source's deadline has passed. Runs on the hub: it must not block, and
    /// may spawn.
    fn notice(&self, ready: Ready);
}

/// What waits for a source.
#[derive(Default)]
struct Waits {
    reader: Waiter,
    writer: Waiter,
    callback: Cell<Option<Callback>>,
}

/// The greenlet that waits for one direction of a source, if there is one.
#[derive(Default)]
struct Waiter(Cell<Option<Greenlet>>);

impl Waiter {
    fn get(&self) -> Option<Greenlet> {
        let greenlet = self.0.take();
        self.0.set(greenlet.clone());
        greenlet
    }

    fn is_some(&self) -> bool {
        self.get().is_some()
    }
}

pub(super) enum Callback {
    Once(Box<dyn FnOnce(Ready)>),
    Many(Box<dyn FnMut(Ready)>),
}

impl State {
    /// Why it was put into the ready queue; `None` if that no longer applies.
    pub(crate) fn queued_reason(&self) -> Option<Ready> {
        self.queued.set(false);
        if self.expired.take() {
            return Some(Ready::EXPIRED);
        }
        let ready = self.ready.get();
        ready.satisfies(self.watched.get()).then_some(ready)
    }

    /// Drops everything that could keep the hub alive.
    pub(crate) fn disconnect(&self) {
        if let Some(Waits { reader, writer, callback }) = self.waits.get().map(|waits| &**waits) {
            drop((reader.0.take(), writer.0.take(), callback.take()));
        }
    }

    pub(super) fn set_callback(&self, callback: Callback) {
        self.waits.get_or_init(Box::default).callback.set(Some(callback));
    }

    fn take_callback(&self) -> Option<Callback> {
        self.waits.get()?.callback.take()
    }

    fn has_reader(&self) -> bool {
        self.waits.get().is_some_and(|waits| waits.reader.is_some())
    }

    fn has_writer(&self) -> bool {
        self.waits.get().is_some_and(|waits| waits.writer.is_some())
    }

    fn token(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.key)
    }

    pub(super) fn occupy(&self, interest: Interest, greenlet: &Greenlet) -> io::Result<()> {
        if interest.wants_read() && self.has_reader() || interest.wants_write() && self.has_writer()
        {
            let text = "another greenlet waits for this descriptor already";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        let waits = self.waits.get_or_init(Box::default);
        if interest.wants_read() {
            waits.reader.0.set(Some(greenlet.clone()));
        }
        if interest.wants_write() {
            waits.writer.0.set(Some(greenlet.clone()));
        }
        Ok(())
    }

    pub(super) fn vacate(&self, interest: Interest) {
        let Some(waits) = self.waits.get() else { return };
        if interest.wants_read() {
            waits.reader.0.take();
        }
        if interest.wants_write() {
            waits.writer.0.take();
        }
    }

    fn wanted(&self) -> EpollFlags {
        let watched = self.active.get().then(|| self.watched.get());
        let mut wanted = EpollFlags::empty();
        if self.has_reader() || watched.is_some_and(Interest::wants_read) {
            wanted |= EpollFlags::EPOLLIN;
        }
        if self.has_writer() || watched.is_some_and(Interest::wants_write) {
            wanted |= EpollFlags::EPOLLOUT;
        }
        wanted
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("key", &self.key)
            .field("trigger", &self.trigger)
            .field("ready", &self.ready)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Core {
    fn new_state(&self, fd: RawFd, trigger: Trigger) -> Rc<State> {
        let mut sources = self.sources.borrow_mut();
        let entry = sources.vacant_entry();
        let ready = match trigger {
            // Unknown yet: the first operation finds out.
            Trigger::Edge => Interest::Both.ready(),
            Trigger::Level | Trigger::Exclusive => Ready::NONE,
        };
        let state = Rc::new(State {
            fd,
            key: u32::try_from(entry.key()).expect("there are fewer sources than descriptors"),
            generation: self.next_serial(),
            closes: Cell::new(false),
            trigger,
            ready: Cell::new(ready),
            registered: Cell::new(EpollFlags::empty()),
            waits: OnceCell::new(),
            observer: OnceCell::new(),
            active: Cell::new(false),
            watched: Cell::new(Interest::Read),
            queued: Cell::new(false),
            expired: Cell::new(false),
            timer: Cell::new(None),
        });
        entry.insert(Rc::clone(&state));
        state
    }

    fn forget_source(&self, state: &Rc<State>) {
        state.active.set(false);
        if self.knows(state) {
            self.sources.borrow_mut().remove(state.key as usize);
        }
        if let Some(key) = state.timer.take() {
            self.remove_timer(key);
        }
        state.disconnect();
    }

    fn knows(&self, state: &Rc<State>) -> bool {
        self.sources.borrow().get(state.key as usize).is_some_and(|found| Rc::ptr_eq(found, state))
    }

    /// Handles an event from epoll. The token may belong to a source that no longer exists.
    pub(super) fn dispatch(&self, events: EpollFlags, token: u64) {
        let state = self.sources.borrow().get((token & 0xffff_ffff) as usize).cloned();
        let Some(state) = state.filter(|state| state.token() == token) else { return };
        let ready = Ready::from(events);
        state.ready.set(state.ready.get().with(ready));
        if let Some(waits) = state.waits.get() {
            if ready.is_readable() {
                self.wake_waiter(&waits.reader);
            }
            if ready.is_writable() {
                self.wake_waiter(&waits.writer);
            }
        }
        if state.observer.get().is_some() {
            self.call_source(&state, ready);
        } else if ready.satisfies(state.watched.get()) {
            self.call_source(&state, state.ready.get());
        }
    }

    /// Sets or cancels the source's own timer.
    pub(super) fn set_deadline(&self, state: &Rc<State>, at: Option<Instant>) {
        match (at, state.timer.get()) {
            (None, None) => {}
            (None, Some(key)) => self.cancel_timer(key),
            (Some(at), Some(key)) => self.set_timer(key, at),
            (Some(at), None) => {
                let key = self.add_timer(Action::Source(Rc::clone(state)));
                state.timer.set(Some(key));
                self.set_timer(key, at);
            }
        }
    }

    fn wake_waiter(&self, waiter: &Waiter) {
        if let Some(greenlet) = waiter.get() {
            self.schedule(&greenlet);
        }
    }

    /// Notifies the observer, or runs the callback of a started watch.
    pub(super) fn call_source(&self, state: &Rc<State>, reason: Ready) {
        if let Some(observer) = state.observer.get() {
            if let Some(observer) = observer.upgrade() {
                call_back(|| observer.notice(reason));
            }
            return;
        }
        if !state.active.get() {
            return;
        }
        match state.take_callback() {
            None => {}
            Some(Callback::Once(callback)) => {
                state.active.set(false);
                if let Some(key) = state.timer.get() {
                    self.cancel_timer(key);
                }
                call_back(|| callback(reason));
            }
            Some(Callback::Many(mut callback)) => {
                call_back(|| callback(reason));
                let replacement = state.take_callback();
                if self.knows(state) {
                    state.set_callback(replacement.unwrap_or(Callback::Many(callback)));
                }
                if state.trigger == Trigger::Edge {
                    self.call_soon(state);
                }
            }
        }
    }

    /// Runs an edge-triggered watch without a new event, if it is ready.
    pub(super) fn call_soon(&self, state: &Rc<State>) {
        let due = state.active.get() && state.ready.get().satisfies(state.watched.get());
        if due && !state.queued.replace(true) {
            self.push(Task::Source(Rc::clone(state)));
        }
    }

    pub(super) fn expire(&self, state: &Rc<State>) -> bool {
        let Some(callback) = state.take_callback() else { return false };
        let idle = matches!(callback, Callback::Once(_));
        state.set_callback(callback);
        if idle && state.active.get() {
            state.expired.set(true);
            if !state.queued.replace(true) {
                self.push(Task::Source(Rc::clone(state)));
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_source_is_small() {
        assert!(size_of::<State>() <= 56, "{}", size_of::<State>());
    }
}
