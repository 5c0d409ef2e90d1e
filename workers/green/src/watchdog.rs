//! The blocking detector: logs a greenlet that blocks the hub.
//!
//! A thread reads a counter that increases with each resume. If the same greenlet runs for longer than the limit, the
//! thread signals the hub's thread, and the signal handler stores the raw addresses of its stack and does nothing else.
//! When the greenlet suspends at last, the hub reports them ([`crate::report_stacks`]). An unwinder is not formally
//! async-signal-safe; this one is loaded and has run once before the first signal, and takes no lock that the interrupted
//! code could hold on current glibc. That is why the detector is off by default.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::greenlet::Greenlet;
use crate::greenlet::overflow::use_signal_stack;
use crate::offload::without_signals;
use crate::stack_trace::{self, StackTrace};

#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    limit: Duration,
    hub_thread: Pthread,
    /// Odd while a greenlet runs.
    resumes: AtomicU64,
    stopped: AtomicBool,
    sample: &'static Sample,
}

/// Written by the signal handler, read by the hub afterwards, both on the hub's thread.
#[derive(Debug)]
struct Sample {
    /// 0 until something was noted.
    length: AtomicUsize,
    frames: [AtomicUsize; FRAMES_MAX],
}

impl Watchdog {
    /// Watches the calling thread.
    pub(crate) fn start(limit: Duration) -> io::Result<Self> {
        use_signal_stack()?;
        let sample: &'static Sample = Box::leak(Box::new(Sample {
            length: AtomicUsize::new(0),
            frames: [const { AtomicUsize::new(0) }; FRAMES_MAX],
        }));
        SAMPLE.set(std::ptr::from_ref(sample));
        // Loads the unwinder and its tables while allocating is still allowed.
        sample.take();
        sample.length.store(0, Ordering::Relaxed);
        let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::Handler(on_signal), flags, SigSet::empty());
        // SAFETY: the handler follows the rules of the module's header.
        unsafe { sigaction(SIGNAL, &action) }?;
        let shared = Arc::new(Shared {
            limit,
            hub_thread: pthread_self(),
            resumes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            sample,
        });
        let watcher = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("green-watchdog".into())
            .spawn(move || {
                without_signals();
                without_descriptors();
                watcher.watch();
            })?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    pub(crate) fn begin(&self) {
        self.shared.count();
    }

    /// Logs what the handler noted while the greenlet ran, if it ran for too long.
    pub(crate) fn end(&self, greenlet: &Greenlet) {
        self.shared.count();
        // The handler runs on this very thread: it can only come between the two, as it can at any other time.
        let length = self.shared.sample.length.load(Ordering::Acquire);
        if length == 0 {
            return;
        }
        self.shared.sample.length.store(0, Ordering::Release);
        let frames = &self.shared.sample.frames[..length.min(FRAMES_MAX)];
        let trace = StackTrace::of(frames.iter().map(|frame| frame.load(Ordering::Relaxed)));
        let limit_ms = self.shared.limit.as_millis();
        let id = greenlet.id();
        let heading = format!(
            "greenlet {id:x} kept the hub for longer than its limit of {limit_ms} ms, here"
        );
        stack_trace::report(&heading, &trace);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Shared {
    /// Only the hub's thread counts.
    fn count(&self) {
        let resumes = self.resumes.load(Ordering::Relaxed);
        self.resumes.store(resumes + 1, Ordering::Release);
    }

    fn watch(&self) {
        let mut seen = 0;
        let mut since = Instant::now();
        let mut told = false;
        loop {
            thread::park_timeout(self.limit / CHECKS_PER_LIMIT);
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let resumes = self.resumes.load(Ordering::Acquire);
            if resumes != seen || resumes.is_multiple_of(2) {
                (seen, since, told) = (resumes, Instant::now(), false);
            } else if !told && since.elapsed() >= self.limit {
                told = true;
                // If the thread no longer exists, there is nothing to report.
                let _ = pthread_kill(self.hub_thread, SIGNAL);
            }
        }
    }
}

impl Sample {
    fn take(&self) {
        let mut length = 0;
        let note = |frame: &backtrace::Frame| {
            self.frames[length].store(frame.ip() as usize, Ordering::Relaxed);
            length += 1;
            length < FRAMES_MAX
        };
        // SAFETY: unsynchronised tracing only requires that no other code traces this thread at the same time with
        // a debugging library that locks; on Linux the unwinder has no such state.
        unsafe { backtrace::trace_unsynchronized(note) };
        self.length.store(length, Ordering::Release);
    }
}

/// Leaves the process's descriptors to the other threads: with an empty private table, this thread does not
/// make the kernel count references in each of the hub's system calls.
fn without_descriptors() {
    // SAFETY: it closes nothing but in the copy of the table that it makes, and this thread uses no descriptor. Where the
    // kernel does not know the call (before 5.9), nothing happens.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST_OPENED, u32::MAX, libc::CLOSE_RANGE_UNSHARE);
    }
}

extern "C" fn on_signal(_: libc::c_int) {
    let sample = SAMPLE.get();
    // SAFETY: null on threads without a watchdog, else a leaked sample of this very thread.
    if let Some(sample) = unsafe { sample.as_ref() } {
        sample.take();
    }
}

thread_local! {
    // No destructor and no lazy initialisation: a signal handler may read it.
    static SAMPLE: std::cell::Cell<*const Sample> = const { std::cell::Cell::new(std::ptr::null()) };
}

/// Ignored by default and rarely used for anything: urgent data on sockets.
const SIGNAL: Signal = Signal::SIGURG;
/// Behind those of the standard streams.
const FIRST_OPENED: u32 = 3;
const FRAMES_MAX: usize = 128;
/// A greenlet is noticed after its limit and at most a fraction of that more.
const CHECKS_PER_LIMIT: u32 = 4;
