//! Reports stack overflows: when a greenlet runs into the guard pages below its stack, the process writes a
//! message before it dies. It does not recover. The handler only calls write(2) and sigaction(2).
//!
//! The handler is process-wide and survives a fork. It is installed only on request, by the process that runs
//! greenlets. It needs an alternate signal stack, which is per thread: call [`report_overflow`] on the hub's
//! thread.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Installs a handler that reports a stack overflow of a greenlet on standard error as `coroutine stack overflow:
/// raise <setting>` before the process dies of SIGSEGV.
///
/// Other faults are passed to the previous action.
pub fn report_overflow(setting: &str) -> io::Result<()> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    use_signal_stack()?;
    let text: &'static str = format!("coroutine stack overflow: raise {setting}\n").leak();
    MESSAGE_LENGTH.store(0, Ordering::SeqCst);
    MESSAGE.store(text.as_ptr().cast_mut(), Ordering::SeqCst);
    MESSAGE_LENGTH.store(text.len(), Ordering::SeqCst);
    if installed.is_some() {
        return Ok(());
    }
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    // SAFETY: `on_fault` only performs async-signal-safe operations.
    let previous = unsafe { sigaction(Signal::SIGSEGV, &action) }?;
    PREVIOUS.store(Box::into_raw(Box::new(previous)), Ordering::SeqCst);
    *installed = Some(());
    Ok(())
}

/// Gives this thread an alternate signal stack. It is never freed, because a handler could be using it.
pub(crate) fn use_signal_stack() -> io::Result<()> {
    thread_local! {
        static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if DONE.get() {
        return Ok(());
    }
    let memory = Box::leak(vec![MaybeUninit::<u8>::uninit(); SIGNAL_STACK_SIZE].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: SIGNAL_STACK_SIZE,
    };
    // SAFETY: the memory is leaked, so it stays valid while the thread can receive a signal.
    nix::errno::Errno::result(unsafe {
        libc::sigaltstack(&raw const stack, std::ptr::null_mut())
    })?;
    DONE.set(true);
    Ok(())
}

/// Registers a reservation of stacks with the handler. Beyond [`RANGES_MAX`] pools the guard pages still stop an
/// overflow, but it is not reported.
pub(crate) fn watch_range(start: usize, bytes: usize, slot: usize, guard: usize) {
    for range in &RANGES {
        let free = range.start.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
        if free.is_ok() {
            range.bytes.store(bytes, Ordering::SeqCst);
            range.slot.store(slot, Ordering::SeqCst);
            range.guard.store(guard, Ordering::SeqCst);
            range.start.store(start, Ordering::SeqCst);
            return;
        }
    }
}

pub(crate) fn forget_range(start: usize) {
    for range in &RANGES {
        if range.start.load(Ordering::SeqCst) == start {
            range.bytes.store(0, Ordering::SeqCst);
            range.start.store(0, Ordering::SeqCst);
        }
    }
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler, and si_addr is set on SIGSEGV.
    let address = unsafe { (*info).si_addr() } as usize;
    if RANGES.iter().any(|range| range.has_guard_at(address)) {
        let length = MESSAGE_LENGTH.load(Ordering::SeqCst);
        let text = MESSAGE.load(Ordering::SeqCst);
        // SAFETY: the pointer and length describe a leaked string (or nothing, with length 0); write and
        // sigaction are async-signal-safe. Returning repeats the faulting access under the default action.
        unsafe {
            libc::write(libc::STDERR_FILENO, text.cast(), length);
            let mut default: libc::sigaction = std::mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGSEGV, &raw const default, std::ptr::null_mut());
        }
        return;
    }
    let previous = PREVIOUS.load(Ordering::SeqCst);
    // SAFETY: `previous` is null or a leaked action. Restoring it and returning repeats the access under the
    // previous handler. sigaction is async-signal-safe.
    unsafe {
        match previous.as_ref() {
            Some(action) => {
                let _ = sigaction(Signal::SIGSEGV, action);
            }
            None => {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            }
        }
    }
}

/// The reservation of one pool, readable by a signal handler.
struct Range {
    /// 0 if the entry is free, 1 while it is being filled.
    start: AtomicUsize,
    bytes: AtomicUsize,
    slot: AtomicUsize,
    guard: AtomicUsize,
}

impl Range {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            slot: AtomicUsize::new(0),
            guard: AtomicUsize::new(0),
        }
    }

    fn has_guard_at(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::SeqCst);
        if start <= 1 || address < start {
            return false;
        }
        let offset = address - start;
        let slot = self.slot.load(Ordering::SeqCst);
        offset < self.bytes.load(Ordering::SeqCst)
            && offset.checked_rem(slot).is_some_and(|rest| rest < self.guard.load(Ordering::SeqCst))
    }
}

static RANGES: [Range; RANGES_MAX] = [const { Range::new() }; RANGES_MAX];
static INSTALLED: Mutex<Option<()>> = Mutex::new(None);
static MESSAGE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static MESSAGE_LENGTH: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: AtomicPtr<SigAction> = AtomicPtr::new(std::ptr::null_mut());

/// Number of hubs per process whose overflows are reported: a worker has one, a test run has one per thread.
const RANGES_MAX: usize = 64;
/// Enough for an unwinder that captures a backtrace in a handler (see `watchdog`).
const SIGNAL_STACK_SIZE: usize = 128 << 10;
