//! A worker class: what a class's `.so` implements.
//!
//! A class is written as a [`Worker`] and exported with [`crate::export_worker_class!`]. The host makes one worker in
//! each worker process and runs it.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RString};

use crate::app::AppHandle;
use crate::failure::{Failure, Result};
use crate::guard::{catch, catch_flat};
use crate::host::Host;
use crate::raw::{RawWorker, RawWorker_TO, WorkerBox};

/// What a worker is made with, in its process, after the fork.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// The host's services.
    pub host: Host,
    /// The application to call.
    pub app: AppHandle,
}

/// A worker class's worker: one in each worker process, used on its main thread alone.
///
/// Order of calls: `new` (of [`WorkerFactory`]), `init_process`, then `run`, within which the host calls `handle_*` when
/// the class asks for signals with [`Host::deliver_signals`]. All but `run` have defaults.
pub trait Worker: 'static {
    /// Prepares the process: pollers, threads, the application's `init_worker`. A failure ends the worker with status
    /// 3, "cannot boot".
    fn init_process(&self) -> Result<()> {
        Ok(())
    }

    /// Serves until [`Host::alive`] is false, then finishes what it has and returns. With the first call of
    /// [`Host::notify`] in here the worker counts as ready: everything that it needs to accept and serve a connection
    /// exists by then. A failure before that is a failure to boot.
    fn run(&self) -> Result<()>;

    /// TERM came: end gracefully. [`Host::alive`] is false already.
    fn handle_exit(&self) {}

    /// QUIT or INT came: end at once. [`Host::alive`] is false already; the host ends the process shortly after in any
    /// case.
    fn handle_quit(&self) {}

    /// WINCH came: nothing to do as a rule, as in gunicorn.
    fn handle_winch(&self) {}

    /// USR1 came: the host has reopened its logs; reopen your own.
    fn handle_usr1(&self) {}

    /// What the class's own threads and greenlets are doing now, for the log, when a request ran over its time.
    fn trace(&self) -> String {
        String::new()
    }
}

/// What a class can do, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Abilities(pub u64);

impl Abilities {
    /// One request at a time, to its end.
    pub const NOTHING: Self = Self(0);
    /// It waits for exchanges that an application keeps ([`crate::Needs::LATER`]).
    pub const LATER: Self = Self(1);
    /// It gives its engine to an application's own loop ([`crate::Needs::LOOP`]).
    pub const LOOP: Self = Self(2);
    /// It calls the application from several threads at once.
    pub const THREADS: Self = Self(4);
    /// It serves several requests on one thread.
    pub const COOPERATIVE: Self = Self(8);
}

impl std::ops::BitOr for Abilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Makes workers of a class: the type that [`crate::export_worker_class!`] takes.
pub trait WorkerFactory: Worker + Sized {
    /// The class's short name, `sync`; the library is then called `libsync_worker.so`.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// One line that says how it serves.
    const DESCRIPTION: &'static str;
    /// What it can do.
    const ABILITIES: Abilities = Abilities::NOTHING;
    /// The guest loop that it is made for; see [`crate::AppContext::guest_loop`].
    const GUEST_LOOP: &'static str = "";
    /// The form of its access log lines where the operator sets none, in the words of gunicorn's `access_log_format`;
    /// empty for the server's own.
    const ACCESS_LOG_FORMAT: &'static str = "";

    /// Checks its settings, in the mold, once for a generation: a failure refuses the generation.
    fn setup(host: &Host) -> Result<()> {
        let _ = host;
        Ok(())
    }

    /// Makes the worker, in its process.
    fn new(context: WorkerContext) -> Result<Self>;
}

pub(crate) fn to_raw(worker: impl Worker) -> WorkerBox {
    RawWorker_TO::from_value(Guarded(worker), TD_Opaque)
}

/// A worker whose panics become failures.
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
