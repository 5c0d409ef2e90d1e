//! Descriptors registered in the hub. A [`Source`] owns what it watches, so that the registration never
//! outlives the descriptor. It knows readiness; what is read or written is up to its owner.
//!
//! Edge-triggered sources (connections) are registered once and for good: the hub remembers what it was
//! told, and an operation that has drained the descriptor says so. A kept-alive connection so costs no
//! `epoll_ctl`. Level-triggered and exclusive ones (listeners) are registered only while somebody is
//! interested, since epoll would report them again in each turn.

use std::io;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::Core;
use super::ready::{Interest, Ready, Trigger};
use super::registration::{Callback, Observer, Registration, State};
use crate::interrupt::Interrupt;

/// A descriptor that is registered in this thread's hub.
///
/// Its owner waits in a greenlet ([`wait`](Self::wait), [`io`](Self::io)), or has a callback run on the
/// hub ([`watch`](Self::watch)) which costs neither greenlet nor stack while nothing happens.
#[derive(Debug)]
pub struct Source<T> {
    // Dropped first: it still names the descriptor.
    registration: Registration,
    io: T,
}

impl<T: AsFd> Source<T> {
    /// Registers a descriptor, which should be non-blocking.
    pub fn new(io: T, trigger: Trigger) -> io::Result<Self> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        let registration = Registration::new(core, io.as_fd(), trigger)?;
        Ok(Self { registration, io })
    }

    /// Says that the descriptor is closed when this is dropped, a little before or after, and has no duplicate: closing
    /// takes it out of the epoll without a system call more.
    pub fn closes(&mut self) {
        self.registration.closes = true;
    }

    /// Takes the descriptor out of the epoll now: nothing is noticed any more. For one that has got a duplicate after
    /// all.
    pub fn deregister(&self) -> io::Result<()> {
        self.registration.deregister()
    }

    /// As [`new`](Self::new) for something that closes its descriptor when dropped, and has no
    /// duplicate: closing takes it out of the epoll without a system call more.
    pub(crate) fn new_closing(io: T, trigger: Trigger) -> io::Result<Self> {
        let mut source = Self::new(io, trigger)?;
        source.registration.closes = true;
        Ok(source)
    }

    /// What is watched.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Ends the registration.
    pub fn into_inner(mut self) -> T {
        self.registration.closes = false;
        self.io
    }

    /// Suspends the greenlet until the source is ready, at most `timeout`; answers whether it is.
    ///
    /// One greenlet may wait for reading and one for writing; a second one is refused
    /// ([`io::ErrorKind::ResourceBusy`]).
    pub fn wait(&self, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
        let result = self.wait_registered(interest, timeout);
        self.registration.update()?;
        result
    }

    /// As [`wait`](Self::wait), but an exclusive source stays where it is in the line of the processes that wait for
    /// the descriptor: who was woken for nothing, because another was quicker, is not to lose its turn by that.
    ///
    /// Who does not wait again soon has to [`leave_line`](Self::leave_line), or the hub is told in each of its turns.
    pub fn wait_in_line(&self, interest: Interest) -> io::Result<()> {
        let result = self.wait_registered(interest, None);
        if result.is_err() {
            self.registration.update()?;
        }
        result.map(drop)
    }

    /// Gives up the place in the line: the next wait begins at its end.
    pub fn leave_line(&self) -> io::Result<()> {
        self.registration.update()
    }

    fn wait_registered(&self, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
        let Registration { state, core, .. } = &self.registration;
        match state.trigger {
            Trigger::Edge if state.ready.get().satisfies(interest) => return Ok(true),
            Trigger::Edge => {}
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

    /// Runs a non-blocking operation unless it is known that it would block. `WouldBlock` is noted:
    /// the next event makes the source ready again.
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
                    let told = self.registration.state.ready.get();
                    // A broken or ended connection does not block: whatever said so was wrong.
                    let ends = Ready::HANGUP.with(Ready::READ_END);
                    self.registration.state.ready.set(told.without(ends));
                    self.clear_ready(interest)?;
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Runs an operation as often as it takes, waiting at most `timeout` each time
    /// ([`io::ErrorKind::TimedOut`]). Yields now and then although it never had to wait, so that a peer
    /// that is always ready leaves a turn to the others.
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

    /// Notes that the next such operation would block, as `WouldBlock` would have told.
    ///
    /// After a read that was shorter than its buffer a stream is drained; noting it saves the read
    /// that would say so. An end of the stream that was announced before stays known.
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

    /// Has `callback` run on the hub whenever the source is ready for `interest`, from
    /// [`start`](Self::start) until [`stop`](Self::stop). It must not block (blocking calls answer
    /// [`Interrupt::Outside`]); it may spawn.
    ///
    /// For an edge-triggered source it is called again in the next turn until an operation through
    /// [`try_io`](Self::try_io) has met `WouldBlock`.
    pub fn watch(&self, interest: Interest, callback: impl FnMut(Ready) + 'static) {
        let state = &self.registration.state;
        state.watched.set(interest);
        state.callback.set(Some(Callback::Many(Box::new(callback))));
    }

    /// Starts, or resumes, the watch.
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

    /// Pauses the watch. What happens meanwhile is seen when it is started again.
    pub fn stop(&self) -> io::Result<()> {
        self.registration.state.active.set(false);
        self.registration.update()
    }

    /// Whether the watch is started.
    pub fn is_active(&self) -> bool {
        self.registration.state.active.get()
    }

    /// From now on has `observer` told of every event, with what that event says, and of
    /// [`set_deadline`](Self::set_deadline). For owners of many idle connections: there is nothing to start, to stop
    /// or to allocate for each event. A source has one observer for good, and it excludes [`watch`](Self::watch);
    /// [`wait`](Self::wait) works beside it.
    pub fn observe(&self, observer: Weak<dyn Observer>) {
        let set = self.registration.state.observer.set(observer);
        debug_assert!(set.is_ok(), "a source has one observer");
    }

    /// Has the observer told [`Ready::is_timed_out`] at `at`, once; with `None`, not any more. May be a little late when
    /// the hub is busy, never early.
    pub fn set_deadline(&self, at: Option<Instant>) {
        let Registration { state, core, .. } = &self.registration;
        core.set_deadline(state, at);
    }

    /// Whether the source has become ready since this was asked last, or [`clear_ready`](Self::clear_ready) called:
    /// then an operation is worth trying. What is not known yet counts as ready; an end of the stream always does.
    pub fn take_ready(&self, interest: Interest) -> io::Result<bool> {
        let state = &self.registration.state;
        let told = state.ready.get();
        if !told.satisfies(interest) {
            return Ok(false);
        }
        state.ready.set(told.without(Ready::HANGUP));
        self.clear_ready(interest)?;
        Ok(true)
    }

    /// Leaves the source to the hub until it can be read, or `timeout` has passed, or [`expire_idle`]
    /// is called; then runs `then` on the hub with the source that `source_of` finds in `owner`.
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
        state.callback.set(Some(Callback::Once(Box::new(move |ready| then(owner, ready)))));
        if let Some(timeout) = timeout {
            // The hub's time saves a look at the clock for each request.
            core.set_deadline(&state, Some(core.now() + timeout.max(IDLE_MIN)));
        }
        core.call_soon(&state);
    }
}

/// Ends the wait of every idle connection (see [`Stream::idle`](crate::net::Stream::idle)) of this
/// thread's hub, as when a server stops. Answers how many there were.
pub fn expire_idle() -> usize {
    let Some(core) = Core::current() else { return 0 };
    let sources: Vec<Rc<State>> =
        core.sources.borrow().iter().map(|(_, state)| Rc::clone(state)).collect();
    sources.iter().filter(|state| core.expire(state)).count()
}

/// An idle connection with no time at all would come back within the turn that left it.
const IDLE_MIN: Duration = Duration::from_millis(1);
