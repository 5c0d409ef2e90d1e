//! Services of a worker class for the application: waiting for descriptors, sleeping, connections, background tasks.
//!
//! Under a cooperative class these calls let other requests run; under sync and gthread they block the thread. The same
//! application works under both. Use [`Runtime::wait_fd`] to do socket I/O.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::RString;

use crate::failure::{Failure, FailureKind, Result};
use crate::guard::catch;
use crate::raw::{Interest, RawTask, RawTask_TO, RuntimeBox, TaskBox};

/// The runtime of a worker. Cheap to clone. Use it on the threads on which the class calls the application, and in tasks
/// spawned with [`Runtime::spawn`].
#[derive(Clone)]
pub struct Runtime(Arc<RuntimeBox>);

impl Runtime {
    /// Wraps the object that a worker class created.
    pub fn from_raw(raw: RuntimeBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Returns whether waiting lets other requests run on the same thread.
    pub fn cooperative(&self) -> bool {
        self.0.cooperative()
    }

    /// Waits until a descriptor is ready. Returns false if `timeout` passes first.
    pub fn wait_fd(
        &self,
        fd: RawFd,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> Result<bool> {
        self.0.wait_fd(fd, interest, nanoseconds(timeout)).into_result()
    }

    /// Waits for `duration`.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.0.sleep(nanoseconds(Some(duration))).into_result()
    }

    /// Runs `task` in the background: in a greenlet under a cooperative class, otherwise in a thread. Waiting with this
    /// runtime in the task does not delay requests. A panic is logged and ends only the task.
    pub fn spawn(&self, task: impl FnOnce() + Send + 'static) -> Result<()> {
        self.0.spawn(task_box(task)).into_result()
    }

    /// Runs `work`, which may block, on a separate thread and waits for its result. A panic of `work` is resumed in the
    /// caller.
    pub fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let place = Arc::new(Mutex::new(None));
        let result = Arc::clone(&place);
        let task = task_box(move || {
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

    /// Connects to `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`. The addresses of a host name are tried in order, all of them
    /// within `timeout`.
    ///
    /// Returns a non-blocking socket: when a read or a write would block, wait with [`Runtime::wait_fd`]. Fails with
    /// [`FailureKind::TIMEOUT`] after `timeout`, with [`FailureKind::IO`] and the system's error as the cause if the
    /// connection is refused or the name is unknown, and with [`FailureKind::UNSUPPORTED`] under a class that was built
    /// against worker-api 1.0.
    pub fn connect(&self, address: &str, timeout: Option<Duration>) -> Result<OwnedFd> {
        let fd = self.0.connect(address.into(), nanoseconds(timeout)).into_result()?;
        if fd < 0 {
            return Err(Failure::new(FailureKind::OTHER, "the worker class returned no socket"));
        }
        // SAFETY: `RawRuntime::connect` transfers ownership of the descriptor to the caller.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Looks up the addresses of a host on another thread, with the system's resolver. Fails as [`Runtime::connect`] does.
    /// If `timeout` passes, the lookup continues on its thread and its result is dropped.
    pub fn resolve(
        &self,
        host: &str,
        port: u16,
        timeout: Option<Duration>,
    ) -> Result<Vec<SocketAddr>> {
        let addresses = self.0.resolve(host.into(), port, nanoseconds(timeout)).into_result()?;
        let parse = |text: RString| {
            text.parse().map_err(|error| {
                let failure = Failure::new(
                    FailureKind::OTHER,
                    format!("the worker class returned `{text}` as an address of {host}"),
                );
                failure.caused_by(&error)
            })
        };
        addresses.into_iter().map(parse).collect()
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("cooperative", &self.cooperative()).finish()
    }
}

/// Encodes a timeout for the boundary: nanoseconds, `u64::MAX` for none.
fn nanoseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn task_box(task: impl FnOnce() + Send + 'static) -> TaskBox {
    RawTask_TO::from_value(Once(Some(task)), TD_Opaque)
}

struct Once<F>(Option<F>);

impl<F: FnOnce() + Send + 'static> RawTask for Once<F> {
    fn run(&mut self) {
        if let Some(task) = self.0.take() {
            // The panic hook has logged a panic, and no caller waits for the result.
            let _ = catch("a spawned task", task);
        }
    }
}
