//! The interface between the process model and what it runs: a [`Payload`] is what a mold loads and its workers
//! run. The product has one, which opens worker class and application through the stable ABI; tests have doubles.
//! Nothing here depends on plugins.

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::Pid;

use crate::hooks::Commands;
use crate::interpreter::{Program, Runtime};
use crate::listener::Listener;
use crate::log::{ErrorLog, LogFile};
use crate::message::{Channel, Loaded, Refusal};
use crate::settings::Settings;
use crate::worker::WorkerContext;

/// Settings and resources of a generation: passed to the mold, and through it to each worker.
pub struct MoldContext {
    /// Settings of the generation, including changes by `hostctl reload`.
    pub settings: Arc<Settings>,
    /// Number of the generation, counted from 1.
    pub generation: u32,
    /// Sockets that its workers accept from, in the order of the setting `bind`.
    pub listeners: Vec<Arc<Listener>>,
    /// The arbiter's process ID.
    pub arbiter_pid: Pid,
    /// The error log, to which the macros of `tracing` already write.
    pub log: Arc<ErrorLog>,
    /// File of the access log, if configured.
    pub access: Option<Arc<LogFile>>,
    /// Contents of the files in the settings `certfile`, `keyfile` and `ca_certs`, as far as they are set,
    /// read before privileges were dropped.
    pub files: Vec<(&'static str, std::io::Result<Vec<u8>>)>,
    /// Hooks that are commands.
    pub commands: Commands,
    /// This library, in an interpreter that has loaded it.
    pub runtime: Option<Runtime>,
    /// The workers' end of the channel to the process that watches files; `None` without `reload`.
    pub watcher: Option<Arc<Channel>>,
}

/// What a mold loads and workers run. All methods are called in the mold, except [`Payload::after_fork_child`]
/// and [`Payload::run_worker`], which are called in a worker, and [`Payload::prepare_naming`].
pub trait Payload: Sized {
    /// Loads and checks everything that a worker needs. May run plugin code, and may therefore never return:
    /// the arbiter limits the time. Calls `doing` before each such piece of code to report it to the arbiter:
    /// "FILE: opening the worker class".
    fn load(context: &MoldContext, doing: &dyn Fn(&str)) -> Result<Self, Refusal>;

    /// Returns the interpreter that is to load it: the mold executes it before [`Payload::load`]. `None` if this
    /// process can.
    fn interpreter(settings: &Settings) -> Option<Program> {
        let _ = settings;
        None
    }

    /// Returns what was loaded.
    fn loaded(&self) -> Loaded;

    /// Returns the library that has started threads while it was loaded, if the setting `load` can prevent that.
    fn starts_threads(&self) -> Option<&Path> {
        None
    }

    /// Loads what only a worker would load, to check the settings.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Runs a server hook by its gunicorn name, with numbers that describe the event; in the mold or in a
    /// worker, depending on the event.
    fn hook(&self, event: &str, facts: &[i64]) {
        let _ = (event, facts);
    }

    /// Called before the mold reads each message from `descriptor`: runs what the application started while
    /// it was loaded until the descriptor is readable. May return earlier.
    fn wait(&self, descriptor: RawFd) {
        let _ = descriptor;
    }

    /// Called before each fork of a worker.
    fn before_fork(&mut self) {}

    /// Called in the mold after each fork, even a failed one.
    fn after_fork_parent(&mut self) {}

    /// Called in the new worker, before any other method.
    fn after_fork_child(&mut self) {}

    /// Called in a process that the mold has forked, before that finds the names of functions in the loaded libraries.
    fn prepare_naming(&self) {}

    /// Runs the worker, and returns its exit status; 0 is a planned exit. The status is only logged: a worker
    /// that cannot boot reports that with [`WorkerContext::boot_failed`].
    fn run_worker(self, context: WorkerContext) -> i32;
}
