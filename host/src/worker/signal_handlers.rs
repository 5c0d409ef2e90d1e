//! Signals of a worker. Handlers set a bit and wake the worker's loop through one descriptor; the worker class
//! decides what to do. Some things work even if the class does not react: SIGABRT ends the process, and so does a
//! timer after a quick stop, or after the arbiter's death, when no other process would end it.
//!
//! | signal | bit | meaning |
//! | --- | --- | --- |
//! | TERM | [`GRACEFUL`] | accept the backlog, finish the requests, exit; also sent when the arbiter dies |
//! | QUIT, INT | [`QUICK`] | exit now; after 200 ms the process ends by itself |
//! | USR1 | [`REOPEN`] | reopen the log files |
//! | WINCH | [`WINDOW`] | none, as in gunicorn; the class may give it one |
//! | ABRT | – | let the class respond to its requests, run the hook `worker_abort` and dump core; the arbiter sends it to a worker without a heartbeat |
//! | HUP, USR2 | – | none: they are meant for the arbiter |
//!
//! An application may install its own handlers for these signals. [`reclaim`] installs the server's in front of
//! them: when the signal arrives, the server's handler runs first and then the application's, so TERM always
//! stops the worker.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Pid, getppid};
use worker_api::raw::TaskBox;

use crate::process;
use crate::scoreboard::SlotWriter;
use crate::signal_inbox::sender_of;
use crate::stack::own_frames;

/// Finish all accepted requests, then exit.
pub const GRACEFUL: u32 = 1;
/// Exit now.
pub const QUICK: u32 = 1 << 1;
/// Reopen the log files.
pub const REOPEN: u32 = 1 << 2;
/// SIGWINCH.
pub const WINDOW: u32 = 1 << 3;

/// The worker's signals. Created once in a process.
///
/// Handlers write one byte to a pipe: 0 for a signal of the server, another value if code of the application is
/// to run.
pub struct WorkerSignals {
    wake: OwnedFd,
    writer: RawFd,
}

/// Signals since the previous call of [`WorkerSignals::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// [`GRACEFUL`], [`QUICK`], [`REOPEN`], [`WINDOW`].
    pub bits: u32,
    /// Whether handlers of the application are to run.
    pub application: bool,
}

impl WorkerSignals {
    /// Installs the handlers, in place of those that the process has for the same signals.
    pub(super) fn install(slot: SlotWriter, arbiter: Pid) -> nix::Result<Self> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (wake, writer) = nix::unistd::pipe2(flags)?;
        let writer = writer.into_raw_fd();
        SLOT.get_or_init(|| slot);
        WAKE.store(writer, Ordering::Release);
        ARBITER.store(arbiter.as_raw(), Ordering::Release);
        create_end_timer()?;
        for signal in OWNED {
            install_handler(signal, on_signal, libc::SA_RESTART)?;
        }
        install_handler(libc::SIGABRT, on_signal, libc::SA_RESTART)?;
        install_handler(end_signal(), on_end_timer, libc::SA_RESTART)?;
        Ok(Self { wake, writer })
    }

    /// Returns a descriptor that is readable while there are signals to take. Poll it; do not read it.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Returns the descriptor that handlers write to.
    pub fn writer(&self) -> RawFd {
        self.writer
    }

    /// Returns the signals that arrived since the previous call.
    pub fn take(&self) -> Taken {
        let mut taken = Taken::default();
        let mut bytes = [0; 64];
        // Reading fails if nothing arrived.
        while let Ok(count @ 1..) = nix::unistd::read(&self.wake, &mut bytes) {
            taken.application |= bytes[..count].iter().any(|byte| *byte != 0);
        }
        taken.bits = PENDING.swap(0, Ordering::AcqRel);
        taken
    }

    /// Returns whether the worker was sent a signal to stop, graceful or quick.
    pub fn told_to_end(&self) -> bool {
        ARRIVED.load(Ordering::Acquire) & (GRACEFUL | QUICK) != 0
    }
}

/// Records that the worker can serve. It may outlive the arbiter for the duration `finishing`; before, it has
/// nothing to finish.
pub(super) fn may_outlive_arbiter(finishing: Duration) {
    let ns = i64::try_from(finishing.as_nanos()).unwrap_or(i64::MAX);
    ORPHAN_END_NS.store(ns, Ordering::Release);
}

/// Installs the server's handlers in front of those that the application has installed since the previous call.
pub(super) fn reclaim() {
    for (signal, next) in OWNED.into_iter().zip(&APPLICATION_ACTIONS) {
        let Some(action) = action_of(signal) else { continue };
        if action.sa_sigaction == on_signal as *const () as usize {
            continue;
        }
        let flags = if action.sa_sigaction <= libc::SIG_IGN {
            // The application may not choose to ignore the signal, or to die of it.
            next.store(ptr::null_mut(), Ordering::Release);
            libc::SA_RESTART
        } else {
            store_application_action(next, action);
            // The application's flags, so that its handler runs as it expects.
            action.sa_flags & (libc::SA_RESTART | libc::SA_ONSTACK)
        };
        // Fails only for signals that cannot be handled.
        let _ = install_handler(signal, on_signal, flags);
    }
}

/// Restores the application's handlers, or else the default, in a child that the application has forked.
/// Async-signal-safe.
pub(super) fn release() {
    for (signal, next) in OWNED.into_iter().zip(&APPLICATION_ACTIONS) {
        restore_one(signal, next.load(Ordering::Acquire));
    }
    restore_one(libc::SIGABRT, ptr::null_mut());
}

fn restore_one(signal: i32, next: *const libc::sigaction) {
    let Some(action) = action_of(signal) else { return };
    if action.sa_sigaction != on_signal as *const () as usize {
        return;
    }
    // SAFETY: zeroed is the default action; `next` is null or a leaked action that was read from the kernel.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let next = next.as_ref().unwrap_or(&default);
        libc::sigaction(signal, next, ptr::null_mut());
    }
}

/// Stores an action for handlers, which may be reading the previous one; that one is therefore leaked. A runtime
/// has one handler for all signals, so this happens only a few times in the life of a process.
fn store_application_action(next: &AtomicPtr<libc::sigaction>, action: libc::sigaction) {
    // SAFETY: null, or an action that was leaked here.
    let known = unsafe { next.load(Ordering::Acquire).as_ref() };
    let same = known.is_some_and(|known| {
        (known.sa_sigaction, known.sa_flags) == (action.sa_sigaction, action.sa_flags)
    });
    if !same {
        next.store(Box::leak(Box::new(action)), Ordering::Release);
    }
}

fn action_of(signal: i32) -> Option<libc::sigaction> {
    // SAFETY: a zeroed sigaction may be written to; no handler is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, ptr::null(), &raw mut action) == 0).then_some(action)
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let saved_errno = nix::errno::Errno::last();
    if signal == libc::SIGABRT {
        if !worker_api::fork::is_child() {
            record_sender(signal, info);
            if is_aborted_by_another(info) {
                run_abort_task();
            }
            // Before the stack trace, which takes time: the arbiter waits for only a second.
            run_abort_hook(info);
            log_backtrace(info);
        }
        end_by_abort();
    }
    act(signal, info);
    run_application_handler(signal, info, context);
    saved_errno.set();
}

/// Performs the server's action for a signal; `info` may be null. Async-signal-safe.
pub(super) fn act(signal: i32, info: *const libc::siginfo_t) {
    let bit = match signal {
        libc::SIGTERM => GRACEFUL,
        libc::SIGQUIT | libc::SIGINT => QUICK,
        libc::SIGUSR1 => REOPEN,
        libc::SIGWINCH => WINDOW,
        _ => 0,
    };
    if bit == 0 || worker_api::fork::is_child() {
        return;
    }
    if bit == QUICK {
        arm_end_timer(QUICK_END_NS);
    } else if bit == GRACEFUL && getppid().as_raw() != ARBITER.load(Ordering::Acquire) {
        arm_end_timer(ORPHAN_END_NS.load(Ordering::Acquire));
    }
    let told = ARRIVED.fetch_or(bit, Ordering::AcqRel);
    if bit & (GRACEFUL | QUICK) != 0 {
        if told & bit != 0 {
            // The worker is stopping already; possibly a handler has called the previous one.
            return;
        }
        record_sender(signal, info);
    }
    PENDING.fetch_or(bit, Ordering::AcqRel);
    let zero = 0u8;
    // SAFETY: write(2) is async-signal-safe; the pipe lives as long as the process. If it is full, the loop is
    // about to read it.
    unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const zero).cast(), 1) };
}

/// Runs the application's handler of a signal, if it has one.
fn run_application_handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(at) = OWNED.iter().position(|owned| *owned == signal) else { return };
    // SAFETY: null, or an action that `store_application_action` has leaked: its handler has the form that its flags say.
    unsafe {
        let Some(next) = APPLICATION_ACTIONS[at].load(Ordering::Acquire).as_ref() else { return };
        if next.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: Handler = std::mem::transmute(next.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(i32) = std::mem::transmute(next.sa_sigaction);
            handler(signal);
        }
    }
}

extern "C" fn on_end_timer(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    process::exit_now(0);
}

fn record_sender(signal: i32, info: *const libc::siginfo_t) {
    if let Some(slot) = SLOT.get() {
        let sender = if info.is_null() { 0 } else { sender_of(info) };
        slot.told_to_end(signal as u32, sender);
    }
}

/// Logs where the main thread is when the arbiter aborts the worker.
///
/// This is more than a handler may do: it allocates, and takes the locks of `std`'s backtraces. If it interrupted
/// their owner, it hangs until the arbiter sends SIGKILL a second later. Only for a process that the arbiter
/// aborts; one that aborts itself reports its own reasons.
fn log_backtrace(info: *const libc::siginfo_t) {
    let is_known = APPLICATION_TRACED.load(Ordering::Acquire);
    if !is_known && sender_of(info) == std::os::unix::process::parent_id() {
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        let frames = own_frames(&backtrace);
        tracing::error!("no heartbeat; stack of the main thread:\n{frames}");
    }
}

/// Sets the hook to run when another process aborts this one. Only the first call has an effect.
pub fn at_abort(hook: impl Fn() + Send + Sync + 'static) {
    ABORT_HOOK.get_or_init(|| Box::new(hook));
}

/// Like [`log_backtrace`], this is more than a handler may do, in a process that ends in any case. Does nothing if
/// the process aborts itself, in a state in which nothing may work.
fn run_abort_hook(info: *const libc::siginfo_t) {
    if is_aborted_by_another(info)
        && let Some(hook) = ABORT_HOOK.get()
    {
        hook();
    }
}

/// Sets the worker class's task to run before the hook when another process aborts this one. Only the first call
/// has an effect.
pub(super) fn set_abort_task(task: TaskBox) {
    ABORT_TASK.get_or_init(|| Mutex::new(task));
}

/// Like [`run_abort_hook`]. Runs the task once.
fn run_abort_task() {
    if let Some(task) = ABORT_TASK.get()
        && let Ok(mut task) = task.try_lock()
    {
        task.run();
    }
}

/// Records that the application has received the abort and has logged a trace: native frames would add nothing to
/// that.
pub(super) fn on_application_traced() {
    APPLICATION_TRACED.store(true, Ordering::Release);
    run_abort_task();
}

/// Returns whether another process aborts this one.
fn is_aborted_by_another(info: *const libc::siginfo_t) -> bool {
    ![0, std::process::id()].contains(&sender_of(info))
}

/// Ends the process as without a handler: by SIGABRT, with a core dump if the system is configured for it.
fn end_by_abort() -> ! {
    // SAFETY: signal, raise and the mask functions are async-signal-safe; the default disposition runs no code
    // of ours. The signal is blocked while its handler runs, so it is unblocked first.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGABRT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        libc::raise(libc::SIGABRT);
    }
    process::exit_now(134);
}

/// Creates the timer in advance: `timer_create` is not async-signal-safe, `timer_settime` is.
fn create_end_timer() -> nix::Result<()> {
    // SAFETY: a zeroed sigevent is valid, and both pointers are valid for the call.
    let result = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = end_signal();
        libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, (&raw mut END_TIMER).cast())
    };
    nix::errno::Errno::result(result).map(drop)
}

/// Returns a signal that no other code uses. Not the last one, which valgrind reserves.
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
    unsafe { libc::timer_settime(END_TIMER, 0, &raw const time, ptr::null_mut()) };
}

fn install_handler(signal: i32, handler: Handler, flags: i32) -> nix::Result<()> {
    // SAFETY: the handlers of this module are async-signal-safe: atomics, write, timer_settime, raise and _exit.
    // Only a process that another one aborts does more, and ends in any case: see `log_backtrace`. nix does not
    // know real-time signals, so libc's own function is called.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | flags;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    nix::errno::Errno::result(result).map(drop)
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Signals that the server handles, whatever the application installs for them.
const OWNED: [i32; 7] = [
    libc::SIGTERM,
    libc::SIGQUIT,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGWINCH,
    libc::SIGHUP,
    libc::SIGUSR2,
];
/// The application's handlers of [`OWNED`].
static APPLICATION_ACTIONS: [AtomicPtr<libc::sigaction>; 7] =
    [const { AtomicPtr::new(ptr::null_mut()) }; 7];
static ABORT_HOOK: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
/// Whether the application has logged a trace in its own language.
static APPLICATION_TRACED: AtomicBool = AtomicBool::new(false);
static ABORT_TASK: OnceLock<Mutex<TaskBox>> = OnceLock::new();
static SLOT: OnceLock<SlotWriter> = OnceLock::new();
static PENDING: AtomicU32 = AtomicU32::new(0);
/// All bits that ever arrived.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The arbiter's process ID: this process's parent while the arbiter is alive.
static ARBITER: AtomicI32 = AtomicI32::new(0);
/// Time after the arbiter's death until the process ends by itself.
static ORPHAN_END_NS: AtomicI64 = AtomicI64::new(QUICK_END_NS);
/// Written once, by [`create_end_timer`].
static mut END_TIMER: libc::timer_t = ptr::null_mut();
/// Twice as long as gunicorn's workers have for a quick stop.
const QUICK_END_NS: i64 = 200_000_000;
