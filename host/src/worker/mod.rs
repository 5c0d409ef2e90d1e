//! The worker's side of the process model: its slot, its signals, its connection to the arbiter, and the services
//! for the payload ([`WorkerContext`]). The payload decides how a worker accepts connections and responds.

pub(crate) mod entry;
mod forks;
mod probe;
mod signal_handlers;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::unistd::{Pid, getppid};
use worker_api::raw::TaskBox;

pub use signal_handlers::{GRACEFUL, QUICK, REOPEN, Taken, WINDOW, WorkerSignals, at_abort};

use crate::clock;
use crate::exit_status::BOOT_ERROR;
use crate::listener::{self, Listener};
use crate::log::{AccessLog, ErrorLog};
use crate::message::{Channel, FromWorker, Refusal};
use crate::process;
use crate::scoreboard::{SlotWriter, WorkerState};
use crate::settings::Settings;
use crate::stack::StackReport;

/// State of a worker, and its connection to the arbiter.
pub struct WorkerContext {
    /// Settings of its generation.
    pub settings: Arc<Settings>,
    /// Number of its generation.
    pub generation: u32,
    /// Its position in the sequence of all workers.
    pub age: u64,
    /// Sockets to accept from, in the order of the setting `bind`.
    pub listeners: Vec<Arc<Listener>>,
    /// Its slot, which holds its counters.
    pub slot: SlotWriter,
    /// The error log, to which the macros of `tracing` already write.
    pub log: Arc<ErrorLog>,
    /// The access log, if configured.
    pub access_log: Option<AccessLog>,
    slot_number: u32,
    arbiter: Pid,
    /// Time of the next check of the parent process.
    parent_due_ns: AtomicU64,
    /// Time of the next check for what others have changed.
    upkeep_due_ns: AtomicU64,
    report: Channel,
    signals: WorkerSignals,
    wake: Option<Wake>,
    listeners_closed: AtomicBool,
    stopped: AtomicBool,
    retiring: AtomicBool,
    /// Set between the start of the worker's loop and its first heartbeat.
    awaits_first_heartbeat: AtomicBool,
    /// Whether the worker has been reported as ready.
    is_ready: AtomicBool,
}

impl WorkerContext {
    /// Sends a heartbeat. Must be called more often than the setting `timeout`.
    pub fn notify(&self) {
        self.slot.heartbeat();
        if self.awaits_first_heartbeat.load(Ordering::Relaxed)
            && self.awaits_first_heartbeat.swap(false, Ordering::AcqRel)
        {
            self.exit_unless_it_can_accept();
            self.leave_last_words("");
            self.ready();
        }
    }

    /// Reports the worker as ready with its first heartbeat: everything that its loop needs then exists.
    /// Called right before the loop starts. Ends the process if it could not accept a connection.
    pub fn ready_with_first_heartbeat(&self) {
        // Checked here, too: a loop that runs out of descriptors while it starts reports a worse reason,
        // or none.
        self.exit_unless_it_can_accept();
        self.leave_last_words("its loop has sent no heartbeat (Host::notify)");
        self.awaits_first_heartbeat.store(true, Ordering::Release);
    }

    /// Returns whether the worker has been reported as ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    fn exit_unless_it_can_accept(&self) {
        if let Err(error) = probe::can_accept(self.wake_fd()) {
            self.boot_failed(Refusal::new(error.to_string(), BOOT_ERROR));
            process::exit_now(BOOT_ERROR)
        }
    }

    /// Returns whether the worker should continue: it was not stopped, and its arbiter is alive.
    pub fn alive(&self) -> bool {
        !self.is_told_to_stop() && self.arbiter_lives()
    }

    /// Makes [`WorkerContext::alive`] return false, as SIGTERM does.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.slot.set_state(WorkerState::Draining);
    }

    fn is_told_to_stop(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.signals.told_to_end()
    }

    /// Closes this process's copies of the listening sockets, once it accepts no more connections. Their
    /// numbers are invalid afterwards: remove them from every poller before.
    pub fn close_listeners(&self) {
        if !self.listeners_closed.swap(true, Ordering::AcqRel) {
            forks::listeners_closed();
            listener::close_copies(&self.listeners);
        }
    }

    /// Returns how many connections this worker, which is stopping, still has to accept from a listener.
    ///
    /// None if other processes serve it. If the server stops, or if no arbiter is left to start another
    /// worker, those in the backlog: the kernel resets them when the last copy of the listener is closed.
    pub fn remaining_backlog(&self, descriptor: RawFd) -> u64 {
        if self.listeners_closed.load(Ordering::Acquire) {
            return 0;
        }
        let found = self.listeners.iter().find(|listener| listener.descriptor() == descriptor);
        let Some(listener) = found else { return 0 };
        let is_orphan = getppid() != self.arbiter && !listener.is_from_outside();
        if is_orphan || listener.has_stopped_accepting() { listener.backlog() } else { 0 }
    }

    /// Returns whether the arbiter is still this worker's parent. Classes call this before each connection,
    /// so the kernel is asked only from time to time; a signal reports the arbiter's death as well.
    fn arbiter_lives(&self) -> bool {
        let now_ns = clock::now_ns();
        if now_ns < self.parent_due_ns.load(Ordering::Relaxed) {
            return true;
        }
        self.parent_due_ns.store(now_ns + PARENT_CHECK_NS, Ordering::Relaxed);
        let lives = getppid() == self.arbiter;
        if !lives {
            tracing::info!("the arbiter has exited: stopping this worker");
            self.stop();
        }
        lives
    }

    /// Returns the arbiter's process ID.
    pub fn arbiter_pid(&self) -> u32 {
        process::number(self.arbiter)
    }

    /// Returns a descriptor that is readable when there are signals to take, or lines of the access log to
    /// write.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_ref().map_or_else(|| self.signals.wake_fd(), |wake| wake.epoll.0.as_fd())
    }

    /// Returns the signals that arrived since the previous call.
    pub fn take_signals(&self) -> Taken {
        let taken = self.signals.take();
        if taken.bits & GRACEFUL != 0 {
            self.slot.set_state(WorkerState::Draining);
        }
        taken
    }

    /// Returns the descriptor that handlers of the application write to.
    pub fn signal_writer(&self) -> RawFd {
        self.signals.writer()
    }

    /// Performs the server's action for a signal.
    pub fn act_on_signal(&self, signal: i32) {
        if signal == libc::SIGABRT {
            return signal_handlers::on_application_traced();
        }
        signal_handlers::act(signal, std::ptr::null());
    }

    /// Sets the task to run if another process aborts this one.
    pub fn set_abort_task(&self, task: TaskBox) {
        signal_handlers::set_abort_task(task);
    }

    /// Installs the server's signal handlers in front of the application's.
    pub fn reclaim_signals(&self) {
        signal_handlers::reclaim();
    }

    /// Returns whether to check again what others may have changed, like signal handlers: true at most once a second.
    pub fn is_upkeep_due(&self) -> bool {
        let now_ns = clock::now_ns();
        let is_due = now_ns >= self.upkeep_due_ns.load(Ordering::Relaxed);
        if is_due {
            self.upkeep_due_ns.store(now_ns + UPKEEP_NS, Ordering::Relaxed);
        }
        is_due
    }

    /// Reports that the worker can serve.
    pub fn ready(&self) {
        self.is_ready.store(true, Ordering::Release);
        self.slot.heartbeat();
        signal_handlers::may_outlive_arbiter(self.settings.exit_timeout());
        if !self.is_told_to_stop() {
            self.slot.set_state(WorkerState::Ready);
        }
        self.report(&FromWorker::Ready { slot: self.slot_number });
    }

    /// Reports that the worker cannot serve. It must exit afterwards, with the refusal's status.
    pub fn boot_failed(&self, refusal: Refusal) {
        self.slot.leave_last_words(&refusal.reason);
        self.report(&FromWorker::BootFailed { slot: self.slot_number, refusal });
    }

    /// Asks the arbiter to replace this worker, which serves until the arbiter stops it. Further calls have no
    /// effect.
    pub fn retire(&self, reason: &str) {
        if self.retiring.swap(true, Ordering::AcqRel) {
            return;
        }
        self.report(&FromWorker::Retiring { slot: self.slot_number, reason: reason.to_owned() });
    }

    /// Has the arbiter log a stack, without waiting; returns whether that was possible.
    pub fn report_stack(&self, report: StackReport) -> Result<(), Box<StackReport>> {
        let message = FromWorker::Stack(Box::new(report));
        match (self.report.try_send(&message), message) {
            (Err(_), FromWorker::Stack(report)) => Err(report),
            _ => Ok(()),
        }
    }

    /// Records why the worker exits, for the arbiter's log.
    pub fn leave_last_words(&self, reason: &str) {
        self.slot.leave_last_words(reason);
    }

    fn report(&self, message: &FromWorker) {
        // Fails if the arbiter is gone, which the worker notices by itself.
        if let Err(error) = self.report.send(message) {
            tracing::debug!("cannot send {message:?} to the arbiter: {error}");
        }
    }
}

/// One descriptor for everything that wakes the worker's loop: signals, and the timer of the access log.
struct Wake {
    epoll: Epoll,
    _timer: OwnedFd,
}

impl Wake {
    fn new(signals: &WorkerSignals, timer: OwnedFd) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(signals.wake_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Self { epoll, _timer: timer })
    }
}

/// Interval between checks for signal handlers that the application has installed, and for replaced libraries.
const UPKEEP_NS: u64 = 1_000_000_000;
/// Interval between checks of the parent process.
const PARENT_CHECK_NS: u64 = 100_000_000;
