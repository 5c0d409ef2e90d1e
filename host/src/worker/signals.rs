//! What signals mean to a worker. Handlers set a bit and wake the worker's loop through one
//! descriptor; what is to be done is the worker class's business, with exceptions that work even
//! when the class does not listen: an abort is an end, and an end that is not reached in time is made
//! here where nobody else would make it, which is a quick one, and any after the arbiter's death.
//!
//! | signal | bit | meaning |
//! | --- | --- | --- |
//! | TERM | [`GRACEFUL`] | accept what waits, finish, end; it also comes when the arbiter dies |
//! | QUIT, INT | [`QUICK`] | end now; after 200 ms the process ends by itself |
//! | USR1 | [`REOPEN`] | open the log files again |
//! | WINCH | [`WINDOW`] | nothing, as in gunicorn; the class may give it a meaning |
//! | ABRT | – | have the class answer its requests, run the hook `worker_abort` and end with a core; the arbiter sends it to a worker that does not answer |
//! | HUP, USR2 | – | none: they are meant for the arbiter |
//!
//! An application may install handlers of its own for these signals. [`reclaim`] puts the server's before them: when
//! the signal comes, the server's runs first and then the application's, so that TERM always ends the worker.

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
use crate::signals::sender_of;

/// End when all that was accepted is answered.
pub const GRACEFUL: u32 = 1;
/// End now.
pub const QUICK: u32 = 1 << 1;
/// Open the log files again.
pub const REOPEN: u32 = 1 << 2;
/// SIGWINCH.
pub const WINDOW: u32 = 1 << 3;

/// The worker's end of its signals: there is one in a process.
///
/// Handlers write one byte to a pipe: 0 for a signal of the server's, another one where code of the application's is
/// to run.
pub struct WorkerSignals {
    wake: OwnedFd,
    writer: RawFd,
}

/// What came since the last call of [`WorkerSignals::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// [`GRACEFUL`], [`QUICK`], [`REOPEN`], [`WINDOW`].
    pub bits: u32,
    /// Whether handlers of the application are to run.
    pub application: bool,
}

impl WorkerSignals {
    /// Installs the handlers, in a process whose handlers are the system's own.
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

    /// Readable while there are signals that were not taken. Poll it; do not read it.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What handlers write to.
    pub fn writer(&self) -> RawFd {
        self.writer
    }

    /// What arrived since the last call.
    pub fn take(&self) -> Taken {
        let mut taken = Taken::default();
        let mut bytes = [0; 64];
        // Nothing to read means that nothing arrived.
        while let Ok(count @ 1..) = nix::unistd::read(&self.wake, &mut bytes) {
            taken.application |= bytes[..count].iter().any(|byte| *byte != 0);
        }
        taken.bits = PENDING.swap(0, Ordering::AcqRel);
        taken
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

/// Puts the server's handlers before those that the application has installed since the last call.
pub(super) fn reclaim() {
    for (signal, next) in OWNED.into_iter().zip(&NEXT) {
        let Some(action) = action_of(signal) else { continue };
        if action.sa_sigaction == on_signal as *const () as usize {
            continue;
        }
        let flags = if action.sa_sigaction <= libc::SIG_IGN {
            // To ignore the signal, or to die of it, is not the application's to choose.
            next.store(ptr::null_mut(), Ordering::Release);
            libc::SA_RESTART
        } else {
            remember_next(next, action);
            // As the application wanted it, so that its handler runs as soon as it expects.
            action.sa_flags & (libc::SA_RESTART | libc::SA_ONSTACK)
        };
        // Only fails for signals that cannot be handled.
        let _ = install_handler(signal, on_signal, flags);
    }
}

/// In a child that the application has forked: its own handlers are installed, and where it has none, the system's.
/// Async-signal-safe.
pub(super) fn release() {
    for (signal, next) in OWNED.into_iter().zip(&NEXT) {
        release_one(signal, next.load(Ordering::Acquire));
    }
    release_one(libc::SIGABRT, ptr::null_mut());
}

fn release_one(signal: i32, next: *const libc::sigaction) {
    let Some(action) = action_of(signal) else { return };
    if action.sa_sigaction != on_signal as *const () as usize {
        return;
    }
    // SAFETY: zeroed is the system's own action; `next` is null or a leaked action that was read from the kernel.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let next = next.as_ref().unwrap_or(&default);
        libc::sigaction(signal, next, ptr::null_mut());
    }
}

/// Keeps an action for handlers, which may be reading the one before: that is leaked. A runtime has one handler for
/// all signals, so this happens a few times in the life of a process.
fn remember_next(next: &AtomicPtr<libc::sigaction>, action: libc::sigaction) {
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
    // SAFETY: a zeroed sigaction is a valid one to be written to; no handler is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, ptr::null(), &raw mut action) == 0).then_some(action)
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let saved_errno = nix::errno::Errno::last();
    if signal == libc::SIGABRT {
        if !worker_api::fork::is_child() {
            remember(signal, info);
            if is_given_up(info) {
                run_abort_task();
            }
            // Before the stack, since to find out where takes its time, and the arbiter waits a second.
            run_abort_hook(info);
            say_where(info);
        }
        die_of_abort();
    }
    act(signal, info);
    run_next(signal, info, context);
    saved_errno.set();
}

/// What the server does on a signal; `info` may be null. Async-signal-safe.
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
    let told = TOLD.fetch_or(bit, Ordering::AcqRel);
    if bit & (GRACEFUL | QUICK) != 0 {
        if told & bit != 0 {
            // An end that is under way already, perhaps by a handler that has called the one before it.
            return;
        }
        remember(signal, info);
    }
    PENDING.fetch_or(bit, Ordering::AcqRel);
    let zero = 0u8;
    // SAFETY: write(2) is async-signal-safe; the pipe lives as long as the process. Where it is full, the loop is
    // about to read it.
    unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const zero).cast(), 1) };
}

/// Runs the application's handler of a signal, where it has one.
fn run_next(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(at) = OWNED.iter().position(|owned| *owned == signal) else { return };
    // SAFETY: null, or an action that `remember_next` has leaked: its handler has one of the two forms, by its flags.
    unsafe {
        let Some(next) = NEXT[at].load(Ordering::Acquire).as_ref() else { return };
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

fn remember(signal: i32, info: *const libc::siginfo_t) {
    if let Some(slot) = SLOT.get() {
        let sender = if info.is_null() { 0 } else { sender_of(info) };
        slot.told_to_end(signal as u32, sender);
    }
}

/// Logs what the worker is doing when the arbiter gives it up.
///
/// This is more than a handler may do: it allocates, and takes the locks of `std`'s backtraces. Where it
/// interrupted their owner it hangs, and the arbiter's SIGKILL, a second later, ends that. Only for a
/// process that the arbiter has given up; one that aborts by itself has its own reasons and tells them.
fn say_where(info: *const libc::siginfo_t) {
    let is_known = APPLICATION_TRACED.load(Ordering::Acquire);
    if !is_known && sender_of(info) == std::os::unix::process::parent_id() {
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
    if is_given_up(info)
        && let Some(hook) = ABORT_HOOK.get()
    {
        hook();
    }
}

/// Keeps what the worker class does if another process aborts this one, before the hook. The first call counts.
pub(super) fn set_abort_task(task: TaskBox) {
    ABORT_TASK.get_or_init(|| Mutex::new(task));
}

/// As [`run_abort_hook`]. Runs the task once.
fn run_abort_task() {
    if let Some(task) = ABORT_TASK.get()
        && let Ok(mut task) = task.try_lock()
    {
        task.run();
    }
}

/// The application has received the abort and has logged where it stands: native frames would add nothing to that.
pub(super) fn on_application_traced() {
    APPLICATION_TRACED.store(true, Ordering::Release);
    run_abort_task();
}

/// Whether another process aborts this one.
fn is_given_up(info: *const libc::siginfo_t) -> bool {
    ![0, std::process::id()].contains(&sender_of(info))
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
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
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
    unsafe { libc::timer_settime(END_TIMER, 0, &raw const time, ptr::null_mut()) };
}

fn install_handler(signal: i32, handler: Handler, flags: i32) -> nix::Result<()> {
    // SAFETY: the handlers of this module are async-signal-safe: atomics, write, timer_settime,
    // raise and _exit. nix does not know real-time signals, so libc's own function is called.
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

/// The signals that mean something to the server, whatever the application installs for them.
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
static NEXT: [AtomicPtr<libc::sigaction>; 7] = [const { AtomicPtr::new(ptr::null_mut()) }; 7];
static ABORT_HOOK: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
/// Whether the application has logged where it stands, in its own language.
static APPLICATION_TRACED: AtomicBool = AtomicBool::new(false);
static ABORT_TASK: OnceLock<Mutex<TaskBox>> = OnceLock::new();
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
static mut END_TIMER: libc::timer_t = ptr::null_mut();
/// As long as gunicorn's workers have for ending quickly, doubled.
const QUICK_END_NS: i64 = 200_000_000;
