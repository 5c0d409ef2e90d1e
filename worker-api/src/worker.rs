//! Worker classes: the trait that a class's `.so` implements.
//!
//! Implement [`Worker`] and export it with [`crate::export_worker_class!`]. The host creates one worker in each worker
//! process and runs it.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RString};

use crate::app::AppHandle;
use crate::failure::{Failure, Result};
use crate::guard::{catch, catch_flat};
use crate::host::Host;
use crate::raw::{RawWorker, RawWorker_TO, WorkerBox};

/// Arguments of [`WorkerFactory::new`].
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// Services of the host.
    pub host: Host,
    /// Application to call.
    pub app: AppHandle,
}

/// A worker: one per worker process, used only on the process's main thread.
///
/// Order of calls: `new` (of [`WorkerFactory`]), `init_process`, `run`. While `run` is active, the host calls the
/// `handle_*` methods from within [`Host::deliver_signals`]. All methods except `run` have defaults.
pub trait Worker: 'static {
    /// Prepares the process: pollers, threads, the application's `init_worker`. If this fails, the worker exits with
    /// status 3 (boot error).
    fn init_process(&self) -> Result<()> {
        Ok(())
    }

    /// Serves until [`Host::alive`] is false, then finishes what it has and returns. With the first call of
    /// [`Host::notify`] in here the worker counts as ready: everything that it needs to accept and serve a connection
    /// exists by then. A failure before that is a failure to boot.
    fn run(&self) -> Result<()>;

    /// Handles TERM: exit gracefully. [`Host::alive`] already returns false.
    fn handle_exit(&self) {}

    /// Handles QUIT and INT: exit at once. [`Host::alive`] already returns false; the host terminates the process shortly
    /// afterwards in any case.
    fn handle_quit(&self) {}

    /// Handles WINCH. Most classes ignore it, as gunicorn's do.
    fn handle_winch(&self) {}

    /// Handles USR1: the host has reopened its logs; reopen any log files of the class.
    fn handle_usr1(&self) {}

    /// Describes what the class's threads and greenlets are doing. Logged when a request exceeds `request_timeout`.
    fn trace(&self) -> String {
        String::new()
    }
}

/// Bit set of the features that a worker class supports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Serves one request at a time.
    pub const NONE: Self = Self(0);
    /// Drives exchanges that an application has detached ([`crate::Requirements::DEFERRED`]).
    pub const DEFERRED: Self = Self(1);
    /// Hands its engine to the application's own loop ([`crate::Requirements::LOOP`]).
    pub const LOOP: Self = Self(2);
    /// Calls the application from several threads at once.
    pub const THREADS: Self = Self(4);
    /// Serves several requests concurrently on one thread.
    pub const COOPERATIVE: Self = Self(8);
}

impl std::ops::BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Constructor and identity of a worker class: the type that [`crate::export_worker_class!`] takes.
pub trait WorkerFactory: Worker + Sized {
    /// Short name of the class. The library of the class `sync` is called `libsync_worker.so`.
    const NAME: &'static str;
    /// Version of the class.
    const VERSION: &'static str;
    /// One-line description of how the class serves requests.
    const DESCRIPTION: &'static str;
    /// Features that the class supports.
    const CAPABILITIES: Capabilities = Capabilities::NONE;
    /// Guest loop that the class is made for; see [`crate::AppContext::guest_loop`].
    const GUEST_LOOP: &'static str = "";
    /// Access log format, in the syntax of gunicorn's `access_log_format`, if the operator sets none. Empty selects the
    /// server's default.
    const ACCESS_LOG_FORMAT: &'static str = "";

    /// Checks the class's settings. Called in the mold, once per generation; an error refuses the generation.
    fn setup(host: &Host) -> Result<()> {
        let _ = host;
        Ok(())
    }

    /// Creates the worker, in its process, after the fork.
    fn new(context: WorkerContext) -> Result<Self>;
}

pub(crate) fn to_raw(worker: impl Worker) -> WorkerBox {
    RawWorker_TO::from_value(Guarded(worker), TD_Opaque)
}

/// Converts panics of a worker into failures.
struct Guarded<W>(W);

impl<W: Worker> RawWorker for Guarded<W> {
    fn init_process(&self) -> RResult<(), Failure> {
        catch_flat("the worker's init_process", || self.0.init_process()).into()
    }

    fn run(&self) -> RResult<(), Failure> {
        catch_flat("the worker's run", || self.0.run()).into()
    }

    fn handle_exit(&self) {
        let _ = catch("Worker::handle_exit", || self.0.handle_exit());
    }

    fn handle_quit(&self) {
        let _ = catch("Worker::handle_quit", || self.0.handle_quit());
    }

    fn handle_winch(&self) {
        let _ = catch("Worker::handle_winch", || self.0.handle_winch());
    }

    fn handle_usr1(&self) {
        let _ = catch("Worker::handle_usr1", || self.0.handle_usr1());
    }

    fn trace(&self) -> RString {
        catch("Worker::trace", || self.0.trace()).unwrap_or_default().into()
    }
}
