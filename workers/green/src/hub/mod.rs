//! The hub: one per thread, it waits for descriptors, timers and other threads, and runs what became
//! ready. This file holds the public face and the turn; scheduling is in `schedule`, the parts in
//! `poller`, `timers`, `wake` and `source`.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use slab::Slab;

use crate::greenlet::panics::{self, PanicReport};
use crate::greenlet::stack::{StackConfig, StackError, StackPool};
use crate::greenlet::{Greenlet, JoinError, SpawnError};
use crate::interrupt::{Interrupt, TimeoutId};
use crate::offload::ThreadPool;
use crate::watchdog::Watchdog;

mod poller;
mod schedule;
pub(crate) mod source;
mod timer;
pub(crate) mod timers;
pub(crate) mod wake;

pub use schedule::{NoSuspend, park, sleep, waker, yield_now};
pub use timer::Timer;
pub use wake::{Handle, Waker};

use poller::Poller;
use source::State;
use timers::Timers;
use wake::Shared;

/// The event loop of one thread.
///
/// A thread has at most one; everything of this crate that blocks needs one. Make it after the last
/// fork: the epoll descriptor would be shared with the parent.
///
/// Dropping it does not unwind the greenlets that are still suspended: their frames are leaked (they
/// may be those of foreign code), as are the values these hold. End them first with
/// [`Greenlet::kill`](crate::Greenlet::kill) where that matters.
#[derive(Debug)]
pub struct Hub {
    core: Rc<Core>,
}

/// Why there is no hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// This thread has one.
    #[error("this thread has a hub already")]
    Second,
    /// Its stacks cannot be had.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Its descriptors cannot be had.
    #[error("cannot make the hub's descriptors")]
    Io(#[from] io::Error),
}

impl Hub {
    /// A hub for this thread, with stacks of the default size.
    pub fn new() -> Result<Self, HubError> {
        Self::with_stacks(StackConfig::default())
    }

    /// A hub for this thread.
    pub fn with_stacks(stacks: StackConfig) -> Result<Self, HubError> {
        if Core::current().is_some() {
            return Err(HubError::Second);
        }
        let core = Rc::new(Core::new(StackPool::new(stacks)?)?);
        CURRENT.set(Some(Rc::clone(&core)));
        panics::watch_this_thread();
        Ok(Self { core })
    }

    /// Runs `f` in a greenlet, and the hub until it has ended. Other greenlets run meanwhile, and stay
    /// suspended afterwards.
    pub fn block_on<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> Result<T, RunError> {
        let main = self.core.spawn(f, None)?;
        while !main.is_finished() {
            self.core.turn(true)?;
        }
        Ok(main.join()?)
    }

    /// Runs the hub until [`stop`](Self::stop) is called by one of its greenlets or callbacks, or from
    /// another thread through [`Handle::call`].
    pub fn run(&self) -> io::Result<()> {
        self.core.stopped.set(false);
        while !self.core.stopped.get() {
            self.core.turn(true)?;
        }
        Ok(())
    }

    /// Has [`run`](Self::run) of this thread's hub return at the end of its turn.
    pub fn stop() {
        if let Some(core) = Core::current() {
            core.stopped.set(true);
        }
    }

    /// The descriptor by which a guest loop drives this hub: whenever it is readable, call
    /// [`turn`](Self::turn). Timers make it readable, too.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let descriptor = self.core.poller.become_guest()?;
        self.core.settle_guest()?;
        Ok(descriptor)
    }

    /// Does what is to do now, without waiting. A turn is bounded: what is left makes
    /// [`descriptor`](Self::descriptor) readable again.
    pub fn turn(&self) -> io::Result<()> {
        self.core.turn(false)
    }

    /// A reference for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.shared))
    }

    /// How many greenlets have been spawned and have not ended.
    pub fn greenlets(&self) -> usize {
        self.core.greenlets.borrow().len()
    }

    /// Has each greenlet that keeps the hub from its work for longer than `limit` named in the log, with
    /// its backtrace. Off unless called; see the `watchdog` module for how it looks.
    pub fn watch_blocking(&self, limit: Duration) -> io::Result<()> {
        self.core.watchdog.replace(Some(Watchdog::start(limit)?));
        self.core.watched.set(true);
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.core.abandon();
    }
}

/// Why [`Hub::block_on`] has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The greenlet could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The hub could not wait.
    #[error("the hub cannot wait for events")]
    Io(#[from] io::Error),
    /// The greenlet did not return.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// What the greenlets, sources and timers of one thread share.
///
/// No borrow of its cells is held while foreign code runs: not over a resume, not over a callback, and
/// not over the drop of either.
#[derive(Debug)]
pub(crate) struct Core {
    poller: Poller,
    pub(crate) shared: Arc<Shared>,
    stacks: StackPool,
    sources: RefCell<Slab<Rc<State>>>,
    timers: RefCell<Timers<Action>>,
    ready: RefCell<VecDeque<Task>>,
    greenlets: RefCell<Slab<Greenlet>>,
    running: RefCell<Option<Greenlet>>,
    /// Blocking calls that the running greenlet has made since it was resumed and that did not block.
    streak: Cell<u32>,
    /// The resumed greenlet is only to tell where it stands.
    tracing: Cell<bool>,
    /// What it told.
    traced: RefCell<Option<Backtrace>>,
    now: Cell<Instant>,
    turning: Cell<bool>,
    stopped: Cell<bool>,
    serial: Cell<u32>,
    timeouts: Cell<u64>,
    pub(crate) threads: RefCell<Option<ThreadPool>>,
    watched: Cell<bool>,
    watchdog: RefCell<Option<Watchdog>>,
}

/// What to do when a timer runs out.
#[derive(Debug)]
pub(crate) enum Action {
    /// The greenlet's own wait is over.
    Wake(Greenlet),
    /// A timeout scope of the greenlet is over.
    Timeout(Greenlet, TimeoutId),
    /// The watch on a source has waited long enough.
    Source(Rc<State>),
    Call(timer::Callback),
}

/// Something that is ready to run.
#[derive(Debug)]
enum Task {
    Greenlet(Greenlet),
    /// Its callback is to be called, without a new event.
    Source(Rc<State>),
}

impl Core {
    fn new(stacks: StackPool) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        Ok(Self {
            poller: Poller::new(&shared)?,
            shared,
            stacks,
            sources: RefCell::default(),
            timers: RefCell::new(Timers::new()),
            ready: RefCell::default(),
            greenlets: RefCell::default(),
            running: RefCell::new(None),
            streak: Cell::new(0),
            tracing: Cell::new(false),
            traced: RefCell::new(None),
            now: Cell::new(Instant::now()),
            turning: Cell::new(false),
            stopped: Cell::new(false),
            serial: Cell::new(0),
            timeouts: Cell::new(0),
            threads: RefCell::new(None),
            watched: Cell::new(false),
            watchdog: RefCell::new(None),
        })
    }

    /// The hub of this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// When the hub last looked at the clock: in this turn, after it had waited.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// One turn: wait (if allowed and nothing is ready), then events, timers, other threads' wishes,
    /// and a bounded number of the tasks that are ready.
    fn turn(&self, may_wait: bool) -> io::Result<()> {
        if self.turning.replace(true) {
            return Err(io::Error::other("the hub was turned from within its own turn"));
        }
        self.shared.set_turning(true);
        let polled = self.poller.poll(self.time_to_wait(may_wait)).map(|events| {
            self.now.set(Instant::now());
            for (flags, token) in events.iter() {
                self.dispatch_and_run(flags, token);
            }
            self.poller.recycle(events);
        });
        self.now.set(Instant::now());
        self.run_timers();
        if self.shared.is_signalled() {
            self.take_inbox();
        }
        let budget = self.ready.borrow().len().clamp(READY_PER_TURN_MIN, READY_PER_TURN_MAX);
        self.run_ready(budget);
        self.shared.set_turning(false);
        self.turning.set(false);
        polled?;
        self.settle_guest()
    }

    /// Handles one event. What it makes ready is run at once if nothing else waits for its turn: then
    /// many connections with one request each share one warm stack, instead of taking one each.
    fn dispatch_and_run(&self, flags: EpollFlags, token: u64) {
        let alone = self.ready.borrow().is_empty();
        self.dispatch(flags, token);
        if alone {
            let made_ready = self.ready.borrow().len();
            self.run_ready(made_ready);
        }
    }

    fn time_to_wait(&self, may_wait: bool) -> Option<Duration> {
        if !may_wait || self.shared.is_signalled() || !self.ready.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.timers.borrow().next()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn run_timers(&self) {
        loop {
            let mut timers = self.timers.borrow_mut();
            let due = match timers.pop_due(self.now.get()) {
                None => return,
                Some(Action::Wake(greenlet)) => Action::Wake(greenlet.clone()),
                Some(Action::Timeout(greenlet, id)) => Action::Timeout(greenlet.clone(), *id),
                Some(Action::Source(state)) => Action::Source(Rc::clone(state)),
                Some(Action::Call(callback)) => Action::Call(callback.clone()),
            };
            drop(timers);
            match due {
                Action::Wake(greenlet) => self.schedule(&greenlet),
                Action::Timeout(greenlet, id) => greenlet.interrupt(Interrupt::Timeout(id)),
                Action::Source(state) => self.call_source(&state, source::Ready::TIMED_OUT),
                Action::Call(callback) => call_back(|| callback.call()),
            }
        }
    }

    fn take_inbox(&self) {
        let inbox = self.shared.take();
        for id in inbox.wakes {
            let greenlet = self.greenlets.borrow().get((id & 0xffff_ffff) as usize).cloned();
            if let Some(greenlet) = greenlet.filter(|greenlet| greenlet.id() == id) {
                greenlet.0.woken.set(true);
                self.schedule(&greenlet);
            }
        }
        for call in inbox.calls {
            call_back(call);
        }
    }

    fn run_ready(&self, budget: usize) {
        for _ in 0..budget {
            let task = self.ready.borrow_mut().pop_front();
            match task {
                None => return,
                Some(Task::Greenlet(greenlet)) => self.resume(&greenlet),
                Some(Task::Source(state)) => {
                    if let Some(reason) = state.queued_reason() {
                        self.call_source(&state, reason);
                    }
                }
            }
        }
    }

    /// Leaves the descriptor of a guest readable if there is something to do, or when there will be.
    fn settle_guest(&self) -> io::Result<()> {
        if !self.poller.is_guest() || self.turning.get() {
            return Ok(());
        }
        if self.shared.is_signalled() || !self.ready.borrow().is_empty() {
            self.shared.kick();
        }
        self.poller.arm_guest_timer(self.timers.borrow().next())
    }

    /// Called when something was made ready or a timer was set: outside a turn, a guest loop must
    /// come to know.
    fn note_change(&self) {
        if !self.turning.get()
            && self.poller.is_guest()
            && let Err(error) = self.settle_guest()
        {
            tracing::error!(%error, "cannot arm the hub's timer for its guest loop");
        }
    }

    /// Breaks the cycles between the hub and what it holds. Frames of suspended greenlets are leaked.
    fn abandon(&self) {
        self.shared.close();
        let greenlets: Vec<Greenlet> = self.greenlets.borrow_mut().drain().collect();
        for greenlet in &greenlets {
            greenlet.0.context.abandon();
        }
        let ready = self.ready.take();
        let actions = self.timers.borrow_mut().drain();
        let sources: Vec<Rc<State>> = self.sources.borrow_mut().drain().collect();
        for state in &sources {
            state.disconnect();
        }
        drop((ready, actions, sources, self.watchdog.take(), self.threads.take()));
    }
}

/// Runs foreign code on the hub's own stack. A panic there ends that call and nothing else.
pub(crate) fn call_back(f: impl FnOnce()) {
    if let Err(report) = panics::contain(f) {
        log_panic("a callback of the hub", &report);
    }
}

pub(crate) fn log_panic(who: &str, report: &PanicReport) {
    tracing::error!(
        location = report.location(),
        backtrace = %report.backtrace(),
        "{who} panicked: {}",
        report.message()
    );
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// Ready tasks that run before the hub looks at descriptors and timers again: as many as were ready
/// at first, within these bounds. Few, so that accepting and timers keep their pace; not fewer, so
/// that the system call is shared.
const READY_PER_TURN_MIN: usize = 64;
const READY_PER_TURN_MAX: usize = 1024;

#[cfg(test)]
mod tests;
