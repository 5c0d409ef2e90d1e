//! Descriptors registered in the hub. A [`Source`] owns what it watches, so the registration never outlives the
//! descriptor. It tracks readiness; reading and writing are up to its owner.
//!
//! Edge-triggered sources (connections) are registered once: the hub remembers their readiness, and an operation
//! that has drained the descriptor clears it. A kept-alive connection therefore costs no `epoll_ctl`.
//! Level-triggered and exclusive sources (listeners) are registered only while there is an interest, because
//! epoll would report them again in each turn.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::Core;
use super::ready::{Interest, Ready, Trigger};
use super::registration::{Callback, Observer, Registration, State};
use crate::interrupt::Interrupt;

/// A descriptor registered in this thread's hub.
///
/// Its owner waits in a greenlet ([`wait`](Self::wait), [`io`](Self::io)), or runs a callback on the hub
/// ([`watch`](Self::watch)), which uses neither a greenlet nor a stack while nothing happens.
#[derive(Debug)]
pub struct Source<T> {
    // Dropped first: it still refers to the descriptor.
    registration: Registration,
    io: T,
}

impl<T: AsFd> Source<T> {
    /// Registers a descriptor, which should be non-blocking.
    pub fn new(io: T, trigger: Trigger) -> io::Result<Self> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        let registration = Registration::new(core, io.as_fd().as_raw_fd(), trigger)?;
        Ok(Self { registration, io })
    }

    /// Like [`new`](Self::new), for an object that closes its descriptor when dropped and has no duplicate:
    /// closing removes it from the epoll without another system call.
    pub(crate) fn new_closing(io: T, trigger: Trigger) -> io::Result<Self> {
        let source = Self::new(io, trigger)?;
        source.registration.state.closes.set(true);
        Ok(source)
    }
}

impl Source<RawFd> {
    /// Registers a descriptor that is owned elsewhere. A number that is not an open descriptor is an error once it is
    /// watched. Drop the source before the descriptor is closed, or use [`closes`](Self::closes).
    pub fn of_raw(fd: RawFd, trigger: Trigger) -> io::Result<Self> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        Ok(Self { registration: Registration::new(core, fd, trigger)?, io: fd })
    }

    /// Like [`of_raw`](Self::of_raw) with [`Trigger::Edge`], for a descriptor that its owner reads before it waits for
    /// it: it counts as not readable, and is registered by the first call that finds it not ready or waits for it, or by
    /// [`register`](Self::register). A connection that is closed after one request is never registered.
    pub fn of_raw_deferred(fd: RawFd) -> io::Result<Self> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        let registration = Registration::deferred(core, fd, Trigger::Edge);
        registration.state.ready.set(Interest::Write.ready());
        Ok(Self { registration, io: fd })
    }
}

impl<T> Source<T> {
    /// Declares that the descriptor is closed at about the time this is dropped and has no duplicate: closing
    /// removes it from the epoll without another system call.
    pub fn closes(&self) {
        self.registration.state.closes.set(true);
    }

    /// Removes the descriptor from the epoll now: no events are reported any more. For a descriptor that has
    /// been duplicated after all.
    pub fn deregister(&self) -> io::Result<()> {
        self.registration.deregister()
    }

    /// Adds the descriptor to the epoll if that was deferred, so that events are reported; returns whether it was. What
    /// has arrived before is reported, too.
    pub fn register(&self) -> io::Result<bool> {
        self.registration.register_reads()
    }

    /// Returns the watched object.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Ends the registration.
    pub fn into_inner(self) -> T {
        self.registration.state.closes.set(false);
        self.io
    }

    /// Suspends the greenlet until the source is ready, up to `timeout`; returns the readiness.
    ///
    /// One greenlet can wait for reading and one for writing; another one gets
    /// [`io::ErrorKind::ResourceBusy`].
    pub fn wait(&self, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
        let result = self.wait_registered(interest, timeout);
        self.registration.update()?;
        result
    }

    /// Like [`wait`](Self::wait), but an exclusive source keeps its position in the queue of processes that
    /// wait for the descriptor, so that a process woken in vain, because another was quicker, does not lose
    /// its position.
    ///
    /// A caller that does not wait again soon must call [`leave_queue`](Self::leave_queue); otherwise the hub
    /// receives an event in each of its turns.
    pub fn wait_in_queue(&self, interest: Interest) -> io::Result<()> {
        let result = self.wait_registered(interest, None);
        if result.is_err() {
            self.registration.update()?;
        }
        result.map(drop)
    }

    /// Gives up the position in the queue: the next wait starts at its end.
    pub fn leave_queue(&self) -> io::Result<()> {
        self.registration.update()
    }

    fn wait_registered(&self, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
        let Registration { state, core, .. } = &self.registration;
        match state.trigger {
            Trigger::Edge if state.ready.get().satisfies(interest) => return Ok(true),
            Trigger::Edge => {
                self.registration.register_reads()?;
            }
            Trigger::Level | Trigger::Exclusive => state.ready.set(Ready::NONE),
        }
        let greenlet = core.running().ok_or(Interrupt::Outside)?;
        state.occupy(interest, &greenlet)?;
        let result = self.registration.update().and_then(|()| {
            let deadline = timeout.map(|timeout| Instant::now() + timeout);
            loop {
                core.park_until(deadline)?;
                if state.ready.get().satisfies(interest) {
                    return Ok(true);
                }
                if deadline.is_some_and(|deadline| core.now() >= deadline) {
                    return Ok(false);
                }
            }
        });
        state.vacate(interest);
        result
    }

    /// Runs a non-blocking operation unless it is known to block. `WouldBlock` is recorded: the next event
    /// makes the source ready again.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let state = &self.registration.state;
        if state.trigger == Trigger::Edge && !state.ready.get().satisfies(interest) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match operation(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let reported = self.registration.state.ready.get();
                    // A broken or closed connection does not block, so the recorded state was
                    // wrong.
                    let ends = Ready::HANGUP.with(Ready::READ_END);
                    self.registration.state.ready.set(reported.without(ends));
                    self.clear_ready(interest)?;
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Retries an operation, waiting up to `timeout` each time ([`io::ErrorKind::TimedOut`]). Yields from
    /// time to time even if it never had to wait, so that a peer that is always ready does not starve others.
    pub fn io<R>(
        &self,
        interest: Interest,
        timeout: Option<Duration>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.registration.core.be_fair()?;
        loop {
            match self.try_io(interest, &mut operation) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if !self.wait(interest, timeout)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Records that the next such operation would block, as `WouldBlock` does.
    ///
    /// After a read shorter than its buffer a stream is drained; recording it saves another read. A known end
    /// of the stream stays known.
    pub fn clear_ready(&self, interest: Interest) -> io::Result<()> {
        let state = &self.registration.state;
        let ready = state.ready.get();
        let ended = if ready.intersects(Ready::READ_END) { Ready::READ } else { Ready::NONE };
        state.ready.set(ready.without(interest.ready()).with(ended));
        if interest.wants_write() && state.trigger == Trigger::Edge {
            self.registration.register_writes()?;
        }
        Ok(())
    }

    /// Runs `callback` on the hub whenever the source is ready for `interest`, from [`start`](Self::start)
    /// until [`stop`](Self::stop). It must not block (blocking calls return [`Interrupt::Outside`]); it may
    /// spawn.
    ///
    /// For an edge-triggered source it is called again in the next turn until an operation through
    /// [`try_io`](Self::try_io) has met `WouldBlock`.
    pub fn watch(&self, interest: Interest, callback: impl FnMut(Ready) + 'static) {
        let state = &self.registration.state;
        state.watched.set(interest);
        state.set_callback(Callback::Many(Box::new(callback)));
    }

    /// Starts or resumes the watch.
    pub fn start(&self) -> io::Result<()> {
        let Registration { state, core, .. } = &self.registration;
        state.active.set(true);
        if state.trigger == Trigger::Edge {
            if state.watched.get().wants_write() {
                self.registration.register_writes()?;
            }
            core.call_soon(state);
        }
        self.registration.update()
    }

    /// Pauses the watch. Events in the meantime are seen when it is started again.
    pub fn stop(&self) -> io::Result<()> {
        self.registration.state.active.set(false);
        self.registration.update()
    }

    /// Returns whether the watch is started.
    pub fn is_active(&self) -> bool {
        self.registration.state.active.get()
    }

    /// Notifies `observer` of every event and of [`set_deadline`](Self::set_deadline). For owners of many
    /// idle connections: there is nothing to start, stop or allocate per event. A source has at most one
    /// observer, which cannot be replaced and excludes [`watch`](Self::watch); [`wait`](Self::wait) works
    /// alongside it.
    pub fn observe(&self, observer: Weak<dyn Observer>) {
        let set = self.registration.state.observer.set(observer);
        debug_assert!(set.is_ok(), "a source has one observer");
    }

    /// Notifies the observer with [`Ready::is_timed_out`] at `at`, once; `None` cancels this. May be slightly
    /// late if the hub is busy, never early.
    pub fn set_deadline(&self, at: Option<Instant>) {
        let Registration { state, core, .. } = &self.registration;
        core.set_deadline(state, at);
    }

    /// Returns whether the source has become ready since the previous call or
    /// [`clear_ready`](Self::clear_ready), so that an operation is worth trying. Unknown readiness counts as
    /// ready; an end of the stream always does.
    pub fn take_ready(&self, interest: Interest) -> io::Result<bool> {
        let state = &self.registration.state;
        let reported = state.ready.get();
        if !reported.satisfies(interest) {
            self.registration.register_reads()?;
            return Ok(false);
        }
        state.ready.set(reported.without(Ready::HANGUP));
        self.clear_ready(interest)?;
        Ok(true)
    }

    /// Parks the source on the hub until it is readable, `timeout` has passed, or [`expire_idle`] is called;
    /// then runs `then` on the hub with the source that `source_of` finds in `owner`.
    pub(crate) fn once_readable<O: 'static>(
        owner: O,
        source_of: impl Fn(&O) -> &Self,
        timeout: Option<Duration>,
        then: impl FnOnce(O, Ready) + 'static,
    ) {
        let Registration { state, core, .. } = &source_of(&owner).registration;
        let (state, core) = (Rc::clone(state), Rc::clone(core));
        state.watched.set(Interest::Read);
        state.active.set(true);
        state.set_callback(Callback::Once(Box::new(move |ready| then(owner, ready))));
        if let Some(timeout) = timeout {
            // The hub's time saves reading the clock per request.
            core.set_deadline(&state, Some(core.now() + timeout.max(IDLE_MIN)));
        }
        core.call_soon(&state);
    }
}

/// Ends the wait of every idle connection (see [`Stream::idle`](crate::net::Stream::idle)) of this thread's hub,
/// for a server that stops. Returns their number.
pub fn expire_idle() -> usize {
    let Some(core) = Core::current() else { return 0 };
    let sources: Vec<Rc<State>> =
        core.sources.borrow().iter().map(|(_, state)| Rc::clone(state)).collect();
    sources.iter().filter(|state| core.expire(state)).count()
}

/// Minimum time: with none, an idle connection would return within the turn that parked it.
const IDLE_MIN: Duration = Duration::from_millis(1);
