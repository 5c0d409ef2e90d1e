//! Blocking work on a few threads while greenlets wait for it: name resolution, file system access, anything that
//! cannot be made cooperative.
//!
//! The threads of a hub are started with the first piece of work, and again after a fork: a child inherits no
//! threads, and the lock of their queue may be held.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::greenlet::panics::payload_text;
use crate::hub::{Core, park, waker};
use crate::interrupt::Interrupt;

/// Runs `work` on a thread and suspends the greenlet until it is finished.
///
/// If the greenlet is interrupted, the work continues and its result is dropped.
pub fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OffloadError> {
    let waker = waker()?;
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        *lock(&place) = Some(outcome.map_err(|payload| payload_text(&*payload)));
        waker.wake();
    });
    Core::current().ok_or(Interrupt::Outside)?.submit(job)?;
    loop {
        if let Some(outcome) = lock(&result).take() {
            return outcome.map_err(OffloadError::Panicked);
        }
        park(None)?;
    }
}

/// Error of [`offload`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// The greenlet was interrupted while it waited.
    #[error(transparent)]
    Interrupted(#[from] Interrupt),
    /// The work panicked.
    #[error("offloaded work panicked: {0}")]
    Panicked(String),
    /// No thread could be started.
    #[error("cannot start a thread for offloaded work")]
    Thread(#[from] io::Error),
}

impl From<OffloadError> for io::Error {
    fn from(error: OffloadError) -> Self {
        match error {
            OffloadError::Interrupted(interrupt) => interrupt.into(),
            OffloadError::Thread(error) => error,
            OffloadError::Panicked(_) => Self::other(error),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one hub, in one process.
#[derive(Debug)]
pub(crate) struct ThreadPool {
    pid: u32,
    threads: usize,
    queue: Arc<JobQueue>,
}

#[derive(Default)]
struct JobQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Core {
    fn submit(&self, job: Job) -> io::Result<()> {
        let mut threads = self.threads.borrow_mut();
        let pid = std::process::id();
        if threads.as_ref().is_some_and(|pool| pool.pid != pid) {
            // Its lock may be held forever by a thread that exists only in the parent.
            std::mem::forget(threads.take());
        }
        threads.get_or_insert_with(|| ThreadPool::new(pid)).submit(job)
    }
}

impl ThreadPool {
    fn new(pid: u32) -> Self {
        Self { pid, threads: 0, queue: Arc::default() }
    }

    fn submit(&mut self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.queue.state);
        let lacking = state.idle <= state.jobs.len();
        if lacking && self.threads < THREADS_MAX {
            let queue = Arc::clone(&self.queue);
            let started = thread::Builder::new().name("green-offload".into()).spawn(move || {
                without_signals();
                queue.work();
            });
            match started {
                Ok(_) => self.threads += 1,
                // Other threads will run it.
                Err(error) if self.threads > 0 => {
                    tracing::warn!(%error, "cannot start another thread for offloaded work");
                }
                Err(error) => return Err(error),
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.queue.filled.notify_one();
        Ok(())
    }
}

impl Drop for ThreadPool {
    /// The threads exit when the queue is empty; they are not joined.
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            lock(&self.queue.state).closed = true;
            self.queue.filled.notify_all();
        }
    }
}

impl JobQueue {
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = lock(&self.state);
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl std::fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobQueue")
    }
}

/// Signals of the process are for the hub's thread: a helper thread must not receive them.
pub(crate) fn without_signals() {
    // It cannot fail: the set is valid.
    let _ = nix::sys::signal::SigSet::all().thread_block();
}

/// A panic elsewhere leaves these values consistent: they are replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// gevent's default. Unresponsive name servers occupy a thread for seconds.
const THREADS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Hub, Timeout, spawn};

    #[test]
    fn work_runs_elsewhere_and_greenlets_keep_running() {
        let hub = Hub::new().unwrap();
        let here = thread::current().id();
        hub.block_on(move || {
            let (send, receive) = std::sync::mpsc::channel();
            // The work finishes only after another greenlet has run.
            let other = spawn(move || send.send(7)).unwrap();
            let (there, got) = offload(move || (thread::current().id(), receive.recv())).unwrap();
            assert_ne!(there, here);
            assert_eq!(got, Ok(7));
            other.join().unwrap().unwrap();
        })
        .unwrap();
    }

    #[test]
    fn a_panic_and_an_interrupt_are_answers() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let error = offload(|| panic!("no luck")).unwrap_err();
            assert!(matches!(&error, OffloadError::Panicked(text) if text == "no luck"));
            let began = Instant::now();
            let (keep, gone) = std::sync::mpsc::channel::<()>();
            let timeout = Timeout::new(Duration::from_millis(10)).unwrap();
            let error = offload(move || gone.recv()).unwrap_err();
            assert!(matches!(error, OffloadError::Interrupted(Interrupt::Timeout(id)) if id == timeout.id()));
            assert!(began.elapsed() < Duration::from_secs(5));
            drop(keep);
        })
        .unwrap();
    }
}
