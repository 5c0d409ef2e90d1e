//! What signals mean to a worker. Handlers set a bit and wake the worker's loop through one
//! descriptor; what is to be done is the worker class's business, with exceptions that work even
//! when the class does not listen: an abort is an end, and an end that is not reached in time is made
//! here where nobody else would make it, which is a quick one, and any after the arbiter's death.
//!
//! | signal | bit | meaning |
//! | --- | --- | --- |
//! | TERM | [`GRACEFUL`] | accept what waits, finish, end; it also comes when the arbiter dies |
//! | QUIT, INT | [`QUICK`] | end now; after 200 ms the process ends by itself |
//! | USR1 | [`REOPEN`] | open the log files anew |
//! | WINCH | [`WINDOW`] | nothing, as in gunicorn; the class may give it a meaning |
//! | ABRT | – | run the hook `worker_abort` and end with a core; the arbiter sends it to a worker that does not answer |
//! | HUP, USR2 | – | none: they are meant for the arbiter |

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::process;
use crate::scoreboard::SlotWriter;
use crate::signals::sender_of;

/// End when all that was accepted is answered.
pub const GRACEFUL: u32 = 1;
/// End now.
pub const QUICK: u32 = 1 << 1;
/// Open the log files anew.
pub const REOPEN: u32 = 1 << 2;
/// SIGWINCH.
pub const WINDOW: u32 = 1 << 3;

/// The worker's end of its signals: there is one in a process.
pub struct WorkerSignals {
    wake: EventFd,
}

impl WorkerSignals {
    /// Installs the handlers, in a process whose handlers are the system's own.
    pub(super) fn install(slot: SlotWriter, arbiter: Pid) -> nix::Result<Self> {
        let wake =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        SLOT.get_or_init(|| slot);
        WAKE.store(wake.as_fd().as_raw_fd(), Ordering::Release);
        ARBITER.store(arbiter.as_raw(), Ordering::Release);
        create_end_timer()?;
        for signal in [
            Signal::SIGTERM,
            Signal::SIGQUIT,
            Signal::SIGINT,
            Signal::SIGUSR1,
            Signal::SIGWINCH,
            Signal::SIGABRT,
            Signal::SIGHUP,
            Signal::SIGUSR2,
        ] {
            install_handler(signal as i32, on_signal)?;
        }
        install_handler(end_signal(), on_end_timer)?;
        Ok(Self { wake })
    }

    /// Readable while there are signals that were not taken. Poll it; do not read it.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The bits of the signals that arrived since the last call.
    pub fn take(&self) -> u32 {
        // Nothing to read means that nothing arrived.
        let _ = self.wake.read();
        PENDING.swap(0, Ordering::AcqRel)
    }

    /// Whether the worker was told to end, in either way.
    pub fn told_to_end(&self) -> bool {
        TOLD.load(Ordering::Acquire) & (GRACEFUL | QUICK) != 0
    }
}

/// The worker can serve. Without an arbiter it has this time to finish what it does; before, there is nothing to finish.
pub(super) fn may_outlive_arbiter(finishing: Duration) {
    let ns = i64::try_from(finishing.as_nanos()).unwrap_or(i64::MAX);
    ORPHAN_END_NS.store(ns, Ordering::Release);
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let saved_errno = nix::errno::Errno::last();
    let bit = match signal {
        libc::SIGTERM => GRACEFUL,
        libc::SIGQUIT | libc::SIGINT => QUICK,
        libc::SIGUSR1 => REOPEN,
        libc::SIGWINCH => WINDOW,
        libc::SIGABRT => {
            remember(signal, info);
            // First, since to find out where takes its time, and the arbiter waits a second.
            run_abort_hook(info);
            say_where(info);
            die_of_abort()
        }
        _ => 0,
    };
    if bit & (GRACEFUL | QUICK) != 0 {
        remember(signal, info);
    }
    if bit == QUICK {
        arm_end_timer(QUICK_END_NS);
    } else if bit == GRACEFUL && getppid().as_raw() != ARBITER.load(Ordering::Acquire) {
        arm_end_timer(ORPHAN_END_NS.load(Ordering::Acquire));
    }
    TOLD.fetch_or(bit, Ordering::AcqRel);
    if bit != 0 {
        PENDING.fetch_or(bit, Ordering::AcqRel);
        let one = 1u64;
        // SAFETY: write(2) is async-signal-safe; the eventfd lives as long as the process, and the
        // buffer is 8 bytes long.
        unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const one).cast(), 8) };
    }
    saved_errno.set();
}

extern "C" fn on_end_timer(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    process::exit_now(0);
}

fn remember(signal: i32, info: *const libc::siginfo_t) {
    if let Some(slot) = SLOT.get() {
        slot.told_to_end(signal as u32, sender_of(info));
    }
}

/// Logs what the worker is doing when the arbiter gives it up.
///
/// This is more than a handler may do: it allocates, and takes the locks of `std`'s backtraces. Where it
/// interrupted their owner it hangs, and the arbiter's SIGKILL, a second later, ends that. Only for a
/// process that the arbiter has given up; one that aborts by itself has its own reasons and tells them.
fn say_where(info: *const libc::siginfo_t) {
    if sender_of(info) == std::os::unix::process::parent_id() {
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        let frames = worker_api::log::own_frames(&backtrace);
        tracing::error!("no sign of life; the main thread is here:\n{frames}");
    }
}

/// What is to be done when somebody else aborts this process. Of several calls the first counts.
pub fn at_abort(hook: impl Fn() + Send + Sync + 'static) {
    ABORT_HOOK.get_or_init(|| Box::new(hook));
}

/// As [`say_where`], more than a handler may do, for a process that ends in any case; but not where it aborts by
/// itself, in a state in which nothing works any more.
fn run_abort_hook(info: *const libc::siginfo_t) {
    if ![0, std::process::id()].contains(&sender_of(info))
        && let Some(hook) = ABORT_HOOK.get()
    {
        hook();
    }
}

/// Ends the process the way it would have ended without a handler: by SIGABRT, with a core where
/// the system makes one.
fn die_of_abort() -> ! {
    // SAFETY: signal, raise and the mask functions are async-signal-safe; the default disposition
    // runs no code of ours. The signal is blocked while its handler runs, so it is let in first.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGABRT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(libc::SIGABRT);
    }
    process::exit_now(134);
}

/// Makes the timer beforehand: `timer_create` is not async-signal-safe, `timer_settime` is.
fn create_end_timer() -> nix::Result<()> {
    // SAFETY: a zeroed sigevent is a valid one, and both pointers are valid for the call.
    let result = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = end_signal();
        libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, (&raw mut END_TIMER).cast())
    };
    nix::errno::Errno::result(result).map(drop)
}

/// A signal that nobody else has a use for. Not the last one: valgrind keeps that for itself.
fn end_signal() -> i32 {
    libc::SIGRTMAX() - 1
}

fn arm_end_timer(after_ns: i64) {
    const SECOND_NS: i64 = 1_000_000_000;
    let at = libc::timespec { tv_sec: after_ns / SECOND_NS, tv_nsec: after_ns % SECOND_NS };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let time = libc::itimerspec { it_interval: never, it_value: at };
    // SAFETY: timer_settime is async-signal-safe. The timer was created before any handler was
    // installed and is not written to afterwards.
    unsafe { libc::timer_settime(END_TIMER, 0, &raw const time, std::ptr::null_mut()) };
}

fn install_handler(
    signal: i32,
    handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void),
) -> nix::Result<()> {
    // SAFETY: the handlers of this module are async-signal-safe: atomics, write, timer_settime,
    // raise and _exit. nix does not know real-time signals, so libc's own function is called.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    nix::errno::Errno::result(result).map(drop)
}

static ABORT_HOOK: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
static SLOT: OnceLock<SlotWriter> = OnceLock::new();
static PENDING: AtomicU32 = AtomicU32::new(0);
/// All bits that ever arrived.
static TOLD: AtomicU32 = AtomicU32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The arbiter's process id, which is this process's parent's while it lives.
static ARBITER: AtomicI32 = AtomicI32::new(0);
/// How long after the arbiter's death the process ends by itself.
static ORPHAN_END_NS: AtomicI64 = AtomicI64::new(QUICK_END_NS);
/// Written once, by [`create_end_timer`].
static mut END_TIMER: libc::timer_t = std::ptr::null_mut();
/// As long as gunicorn's workers have for ending quickly, doubled.
const QUICK_END_NS: i64 = 200_000_000;
