//! The turn of the hub, and the state that its parts share. The crate's documentation says what may call what;
//! `schedule` has the switches to and from greenlets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use slab::Slab;

use super::poller::Poller;
use super::ready::Ready;
use super::registration::State;
use super::timer;
use super::timers::Timers;
use super::wake::Shared;
use crate::greenlet::Greenlet;
use crate::greenlet::panics::{self, PanicReport};
use crate::greenlet::stack::StackPool;
use crate::interrupt::{Interrupt, TimeoutId};
use crate::offload::ThreadPool;
use crate::stack_trace::StackTrace;
use crate::watchdog::Watchdog;

/// State shared by the greenlets, sources and timers of one thread.
///
/// No borrow of its cells is held while foreign code runs: not over a resume, a callback, or the drop of either.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) poller: Poller,
    pub(crate) shared: Arc<Shared>,
    pub(super) stacks: StackPool,
    pub(super) sources: RefCell<Slab<Rc<State>>>,
    pub(super) timers: RefCell<Timers<Action>>,
    pub(super) ready: RefCell<VecDeque<Task>>,
    pub(super) greenlets: RefCell<Slab<Greenlet>>,
    pub(super) running: RefCell<Option<Greenlet>>,
    /// Number of blocking calls since the resume of the running greenlet that did not block.
    pub(super) streak: Cell<u32>,
    /// Whether the resumed greenlet only reports its backtrace.
    pub(super) tracing: Cell<bool>,
    /// The reported backtrace.
    pub(super) traced: RefCell<Option<StackTrace>>,
    pub(super) now: Cell<Instant>,
    /// Time of the last trim of the stack pool.
    trimmed: Cell<Instant>,
    pub(super) turning: Cell<bool>,
    pub(super) stopped: Cell<bool>,
    pub(super) serial: Cell<u32>,
    pub(super) timeouts: Cell<u64>,
    pub(crate) threads: RefCell<Option<ThreadPool>>,
    pub(super) watched: Cell<bool>,
    pub(super) watchdog: RefCell<Option<Watchdog>>,
}

/// Action of an expired timer.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ends the greenlet's own wait.
    Wake(Greenlet),
    /// Ends a timeout scope of the greenlet.
    Timeout(Greenlet, TimeoutId),
    /// Ends the wait of a source's watch.
    Source(Rc<State>),
    Call(timer::Callback),
}

/// A task in the ready queue.
#[derive(Debug)]
pub(super) enum Task {
    Greenlet(Greenlet),
    /// Run its callback without a new event.
    Source(Rc<State>),
}

impl Core {
    pub(super) fn new(stacks: StackPool) -> io::Result<Self> {
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
            trimmed: Cell::new(Instant::now()),
            turning: Cell::new(false),
            stopped: Cell::new(false),
            serial: Cell::new(0),
            timeouts: Cell::new(0),
            threads: RefCell::new(None),
            watched: Cell::new(false),
            watchdog: RefCell::new(None),
        })
    }

    /// Sets or clears the hub of this thread.
    pub(super) fn set_current(core: Option<Rc<Self>>) {
        CURRENT.set(core);
    }

    /// Returns the hub of this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Time at which the hub last read the clock: in this turn, after its wait.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Runs one turn: waits (if allowed and nothing is ready), then handles events, timers, requests of other
    /// threads, and a bounded number of ready tasks.
    pub(super) fn turn(&self, may_wait: bool) -> io::Result<()> {
        if self.turning.replace(true) {
            return Err(io::Error::other("the hub was turned from within its own turn"));
        }
        self.shared.set_turning(true);
        let polled = self.poller.poll(self.time_to_wait(may_wait));
        self.now.set(Instant::now());
        let polled = polled.map(|events| {
            for (flags, token) in events.iter() {
                self.dispatch_and_run(flags, token);
            }
            self.poller.recycle(events);
        });
        self.run_timers();
        if self.shared.is_signalled() {
            self.take_inbox();
        }
        let budget = self.ready.borrow().len().clamp(READY_PER_TURN_MIN, READY_PER_TURN_MAX);
        self.run_ready(budget);
        self.trim_stacks();
        self.shared.set_turning(false);
        self.turning.set(false);
        polled?;
        self.settle_guest()
    }

    fn trim_stacks(&self) {
        let now = self.now.get();
        if now.saturating_duration_since(self.trimmed.get()) >= TRIM_INTERVAL {
            self.trimmed.set(now);
            self.stacks.trim();
        }
    }

    /// Handles one event. What it makes ready runs at once if the ready queue is empty: many connections with
    /// one request each then share one warm stack instead of taking one each.
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
                Action::Source(state) => self.call_source(&state, Ready::TIMED_OUT),
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

    /// Makes a guest's descriptor readable if there is pending work, or when there will be.
    pub(super) fn settle_guest(&self) -> io::Result<()> {
        if !self.poller.is_guest() || self.turning.get() {
            return Ok(());
        }
        if self.shared.is_signalled() || !self.ready.borrow().is_empty() {
            self.shared.kick();
        }
        self.poller.arm_guest_timer(self.timers.borrow().next())
    }

    /// Called when a task was made ready or a timer was set: outside a turn, a guest loop must be notified.
    pub(super) fn note_change(&self) {
        if !self.turning.get()
            && self.poller.is_guest()
            && let Err(error) = self.settle_guest()
        {
            tracing::error!(%error, "cannot arm the hub's timer for its guest loop");
        }
    }

    /// Breaks the cycles between the hub and what it holds. Frames of suspended greenlets are leaked.
    pub(super) fn abandon(&self) {
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

/// Runs foreign code on the hub's own stack. A panic ends only that call.
pub(crate) fn call_back(f: impl FnOnce()) {
    if let Err(report) = panics::contain(f) {
        log_panic("a callback of the hub", &report);
    }
}

pub(super) fn log_panic(who: &str, report: &PanicReport) {
    // The stack is for the panic hook to log, which has run.
    tracing::error!(location = report.location(), "{who} panicked: {}", report.message());
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// Number of ready tasks that run before the hub checks descriptors and timers again: as many as were ready at
/// first, within these bounds. Few, so that accepting and timers are not delayed; not fewer, so that the system
/// call is shared.
const READY_PER_TURN_MIN: usize = 64;
pub(super) const READY_PER_TURN_MAX: usize = 1024;
/// How long a stack is free before its pages go back, and how long at most twice.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);
