//! What a worker class does for an application while it serves: waiting, sleeping, running things beside.
//!
//! Under a cooperative class these calls let other requests run; under sync and gthread they block the thread. The
//! same application works under both. Sockets are made of [`Runtime::wait_fd`].

use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abi_stable::sabi_trait::TD_Opaque;

use crate::failure::{Failure, FailureKind, Result};
use crate::guard::catch;
use crate::raw::{Interest, RawTask, RawTask_TO, RuntimeBox, TaskBox};

/// The class's services for an application, in a worker process. Cheap to clone; to be used on the threads on which
/// the class calls the application, or in tasks that it spawned.
#[derive(Clone)]
pub struct Runtime(Arc<RuntimeBox>);

impl Runtime {
    /// Wraps what a worker class made.
    pub fn from_raw(raw: RuntimeBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Whether waiting lets other requests of this process run on the same thread.
    pub fn cooperative(&self) -> bool {
        self.0.cooperative()
    }

    /// Waits until a descriptor is ready; false when `timeout` passed before.
    pub fn wait_fd(
        &self,
        fd: RawFd,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> Result<bool> {
        self.0.wait_fd(fd, interest, nanoseconds(timeout)).into_result()
    }

    /// Waits for some time.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.0.sleep(nanoseconds(Some(duration))).into_result()
    }

    /// Runs `task` beside the requests: in a greenlet under a cooperative class, in a thread elsewhere. What it waits
    /// for with this runtime does not hold up anybody. A panic ends the task alone, and is logged.
    pub fn spawn(&self, task: impl FnOnce() + Send + 'static) -> Result<()> {
        self.0.spawn(boxed(task)).into_result()
    }

    /// Runs `work`, which may block, on a thread of its own, and waits for its result in the class's way. A panic of
    /// `work` goes on in the caller.
    pub fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let place = Arc::new(Mutex::new(None));
        let result = Arc::clone(&place);
        let task = boxed(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        });
        self.0.offload(task).into_result()?;
        let outcome = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        match outcome {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(Failure::new(FailureKind::INTERRUPTED, "the offloaded work was not run")),
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("cooperative", &self.cooperative()).finish()
    }
}

/// A timeout as it crosses the boundary: nanoseconds, `u64::MAX` for none.
fn nanoseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

fn boxed(task: impl FnOnce() + Send + 'static) -> TaskBox {
    RawTask_TO::from_value(Once(Some(task)), TD_Opaque)
}

struct Once<F>(Option<F>);

impl<F: FnOnce() + Send + 'static> RawTask for Once<F> {
    fn run(&mut self) {
        if let Some(task) = self.0.take() {
            // The panic hook has logged it, and there is nobody to hand it to.
            let _ = catch("a spawned task", task);
        }
    }
}
