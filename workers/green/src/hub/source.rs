//! Descriptors registered in the hub. A [`Source`] owns what it watches, so that the registration never
//! outlives the descriptor. It knows readiness; what is read or written is up to its owner.
//!
//! Edge-triggered sources (connections) are registered once and for good: the hub remembers what it was
//! told, and an operation that has drained the descriptor says so. A kept-alive connection so costs no
//! `epoll_ctl`. Level-triggered and exclusive ones (listeners) are registered only while somebody is
//! interested, since epoll would report them again in each turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::timers::TimerKey;
use super::{Action, Core, Task, call_back};
use crate::greenlet::Greenlet;
use crate::interrupt::Interrupt;

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, a connection, or the end of the stream.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

/// What has happened to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(u8);

impl Ready {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const HANGUP: Self = Self(4);
    pub(crate) const TIMED_OUT: Self = Self(8);
    pub(crate) const EXPIRED: Self = Self(16);

    /// Reading will not block (there may be nothing but the end, or an error, to be read).
    pub fn is_readable(self) -> bool {
        self.intersects(Self(Self::READ.0 | Self::HANGUP.0))
    }

    /// Writing will not block.
    pub fn is_writable(self) -> bool {
        self.intersects(Self(Self::WRITE.0 | Self::HANGUP.0))
    }

    /// The peer has closed its side, or the connection is broken.
    pub fn is_hangup(self) -> bool {
        self.intersects(Self::HANGUP)
    }

    /// Nothing happened in time.
    pub fn is_timed_out(self) -> bool {
        self.intersects(Self::TIMED_OUT)
    }

    /// Nothing happened, and [`expire_idle`] ended the wait.
    pub fn is_expired(self) -> bool {
        self.intersects(Self::EXPIRED)
    }

    fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn satisfies(self, interest: Interest) -> bool {
        self.intersects(Self(interest.ready().0 | Self::HANGUP.0))
    }
}

impl From<EpollFlags> for Ready {
    fn from(flags: EpollFlags) -> Self {
        let mut ready = Self::NONE;
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI) {
            ready = ready.with(Self::READ);
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            ready = ready.with(Self::WRITE);
        }
        let gone = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        if flags.intersects(gone) {
            ready = ready.with(Self::HANGUP);
        }
        // The peer will send no more, but may well read: not a reason to write.
        if flags.contains(EpollFlags::EPOLLRDHUP) {
            ready = ready.with(Self::READ).with(Self(READ_END));
        }
        ready
    }
}

impl Interest {
    fn ready(self) -> Ready {
        match self {
            Self::Read => Ready::READ,
            Self::Write => Ready::WRITE,
            Self::Both => Ready::READ.with(Ready::WRITE),
        }
    }

    fn wants_read(self) -> bool {
        self != Self::Write
    }

    fn wants_write(self) -> bool {
        self != Self::Read
    }
}

/// How epoll reports a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Once for each change. For descriptors of one process: connections, pipes.
    Edge,
    /// For as long as it is so. For listeners and for descriptors that others read, too.
    Level,
    /// As `Level`, but only one of the processes that wait for a shared listener is woken
    /// (`EPOLLEXCLUSIVE`). The kernel prefers the one that has waited longest: stopping and starting a
    /// watch after an accept puts this process at the end of the line and spreads the load.
    Exclusive,
}

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
        self.registration.update()?;
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
                    let ends = Ready::HANGUP.with(Ready(READ_END));
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
        let ended = if ready.intersects(Ready(READ_END)) { Ready::READ } else { Ready::NONE };
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
            let key = state.timer.get().unwrap_or_else(|| {
                let key = core.add_timer(Action::Source(Rc::clone(&state)));
                state.timer.set(Some(key));
                key
            });
            core.set_timer(key, Instant::now() + timeout);
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

/// The hub's side of a source.
#[derive(Debug)]
struct Registration {
    state: Rc<State>,
    core: Rc<Core>,
    fd: RawFd,
    /// The descriptor is closed right after this is dropped.
    closes: bool,
}

impl Registration {
    fn new(core: Rc<Core>, fd: BorrowedFd<'_>, trigger: Trigger) -> io::Result<Self> {
        let state = core.new_state(trigger);
        let registration = Self { state, core, fd: fd.as_raw_fd(), closes: false };
        if trigger == Trigger::Edge {
            registration.register(EpollFlags::EPOLLIN)?;
        }
        Ok(registration)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: a `Source` drops its registration before what owns the descriptor.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Asks for room to write, too. Left out at first: on a unix socket each read of the peer would be
    /// an event.
    fn register_writes(&self) -> io::Result<()> {
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        if self.state.registered.get() == wanted { Ok(()) } else { self.register(wanted) }
    }

    /// Brings a level-triggered registration in line with who is interested now.
    fn update(&self) -> io::Result<()> {
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
            poller.delete(self.descriptor())?;
        }
        if registered.is_empty() || state.trigger == Trigger::Exclusive {
            if !wanted.is_empty() {
                poller.add(self.descriptor(), flags, state.token())?;
            }
        } else if modifiable {
            poller.modify(self.descriptor(), flags, state.token())?;
        }
        state.registered.set(wanted);
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.closes && !self.state.registered.get().is_empty() {
            // The descriptor may have been taken out by hand; then there is nothing to undo.
            let _ = self.core.poller.delete(self.descriptor());
        }
        self.core.forget_source(&self.state);
    }
}

/// What the hub keeps for a source.
pub(crate) struct State {
    key: usize,
    generation: u32,
    trigger: Trigger,
    ready: Cell<Ready>,
    registered: Cell<EpollFlags>,
    reader: RefCell<Option<Greenlet>>,
    writer: RefCell<Option<Greenlet>>,
    callback: Cell<Option<Callback>>,
    /// The callback is to be called, when ready for `watched`.
    active: Cell<bool>,
    watched: Cell<Interest>,
    /// It is in the ready queue.
    queued: Cell<bool>,
    expired: Cell<bool>,
    timer: Cell<Option<TimerKey>>,
}

enum Callback {
    Once(Box<dyn FnOnce(Ready)>),
    Many(Box<dyn FnMut(Ready)>),
}

impl State {
    /// Why it was put into the ready queue; `None` if that is over already.
    pub(crate) fn queued_reason(&self) -> Option<Ready> {
        self.queued.set(false);
        if self.expired.take() {
            return Some(Ready::EXPIRED);
        }
        let ready = self.ready.get();
        ready.satisfies(self.watched.get()).then_some(ready)
    }

    /// Drops what could keep the hub alive.
    pub(crate) fn disconnect(&self) {
        drop((self.reader.take(), self.writer.take(), self.callback.take()));
    }

    fn token(&self) -> u64 {
        u64::from(self.generation) << 32 | self.key as u64
    }

    fn occupy(&self, interest: Interest, greenlet: &Greenlet) -> io::Result<()> {
        let taken = |slot: &RefCell<Option<Greenlet>>| slot.borrow().is_some();
        if interest.wants_read() && taken(&self.reader)
            || interest.wants_write() && taken(&self.writer)
        {
            let text = "another greenlet waits for this descriptor already";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        if interest.wants_read() {
            self.reader.replace(Some(greenlet.clone()));
        }
        if interest.wants_write() {
            self.writer.replace(Some(greenlet.clone()));
        }
        Ok(())
    }

    fn vacate(&self, interest: Interest) {
        if interest.wants_read() {
            self.reader.take();
        }
        if interest.wants_write() {
            self.writer.take();
        }
    }

    fn wanted(&self) -> EpollFlags {
        let watched = self.active.get().then(|| self.watched.get());
        let mut wanted = EpollFlags::empty();
        if self.reader.borrow().is_some() || watched.is_some_and(Interest::wants_read) {
            wanted |= EpollFlags::EPOLLIN;
        }
        if self.writer.borrow().is_some() || watched.is_some_and(Interest::wants_write) {
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
    fn new_state(&self, trigger: Trigger) -> Rc<State> {
        let mut sources = self.sources.borrow_mut();
        let entry = sources.vacant_entry();
        let ready = match trigger {
            // Unknown yet: the first operation finds out.
            Trigger::Edge => Interest::Both.ready(),
            Trigger::Level | Trigger::Exclusive => Ready::NONE,
        };
        let state = Rc::new(State {
            key: entry.key(),
            generation: self.next_serial(),
            trigger,
            ready: Cell::new(ready),
            registered: Cell::new(EpollFlags::empty()),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
            callback: Cell::new(None),
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
            self.sources.borrow_mut().remove(state.key);
        }
        if let Some(key) = state.timer.take() {
            self.remove_timer(key);
        }
        state.disconnect();
    }

    fn knows(&self, state: &Rc<State>) -> bool {
        self.sources.borrow().get(state.key).is_some_and(|found| Rc::ptr_eq(found, state))
    }

    /// An event from epoll. The token may be one of a source that is gone.
    pub(super) fn dispatch(&self, events: EpollFlags, token: u64) {
        let state = self.sources.borrow().get((token & 0xffff_ffff) as usize).cloned();
        let Some(state) = state.filter(|state| state.token() == token) else { return };
        let ready = Ready::from(events);
        state.ready.set(state.ready.get().with(ready));
        if ready.is_readable() {
            self.wake_slot(&state.reader);
        }
        if ready.is_writable() {
            self.wake_slot(&state.writer);
        }
        if ready.satisfies(state.watched.get()) {
            self.call_source(&state, state.ready.get());
        }
    }

    fn wake_slot(&self, slot: &RefCell<Option<Greenlet>>) {
        if let Some(greenlet) = &*slot.borrow() {
            self.schedule(greenlet);
        }
    }

    /// Runs the callback of a started watch.
    pub(super) fn call_source(&self, state: &Rc<State>, reason: Ready) {
        if !state.active.get() {
            return;
        }
        match state.callback.take() {
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
                let replacement = state.callback.take();
                if self.knows(state) {
                    state.callback.set(replacement.or(Some(Callback::Many(callback))));
                }
                if state.trigger == Trigger::Edge {
                    self.call_soon(state);
                }
            }
        }
    }

    /// Has an edge-triggered watch called without a new event, if it is ready.
    fn call_soon(&self, state: &Rc<State>) {
        let due = state.active.get() && state.ready.get().satisfies(state.watched.get());
        if due && !state.queued.replace(true) {
            self.push(Task::Source(Rc::clone(state)));
        }
    }

    fn expire(&self, state: &Rc<State>) -> bool {
        let callback = state.callback.take();
        let idle = matches!(callback, Some(Callback::Once(_)));
        state.callback.set(callback);
        if idle && state.active.get() {
            state.expired.set(true);
            if !state.queued.replace(true) {
                self.push(Task::Source(Rc::clone(state)));
            }
        }
        idle
    }
}

/// The read side has ended: reading never blocks again. Kept beside the public bits of [`Ready`].
const READ_END: u8 = 32;
