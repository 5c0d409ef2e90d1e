//! The seam between the process model and what it is for: a [`Payload`] is what a mold loads and
//! what its workers run. The product has one, which opens worker class and application through the
//! stable ABI; tests have doubles. Nothing here knows what a plugin is.

use std::os::fd::RawFd;
use std::sync::Arc;

use nix::unistd::Pid;

use crate::hooks::Commands;
use crate::listener::Listener;
use crate::log::{ErrorLog, LogFile};
use crate::message::{Channel, Loaded, Refusal};
use crate::settings::Settings;
use crate::worker::WorkerContext;

/// What a generation is made of: given to the mold, and through it to each worker.
pub struct MoldContext {
    /// The settings of the generation, with what `hostctl reload` changed in them.
    pub settings: Arc<Settings>,
    /// Number of the generation, counted from 1.
    pub generation: u32,
    /// The sockets that its workers accept from, in the order of the setting `bind`.
    pub listeners: Vec<Arc<Listener>>,
    /// The arbiter's process id.
    pub arbiter_pid: Pid,
    /// The error log, which is behind the macros of `tracing` already.
    pub log: Arc<ErrorLog>,
    /// The access log's file; nothing when there is none.
    pub access: Option<Arc<LogFile>>,
    /// The contents of the files that `certfile`, `keyfile` and `ca_certs` name, as far as they are
    /// set, read before privileges were given up.
    pub files: Vec<(&'static str, std::io::Result<Vec<u8>>)>,
    /// Hooks that are commands.
    pub commands: Commands,
    /// The workers' end of the pair with the process that watches files; nothing without `reload`.
    pub watcher: Option<Arc<Channel>>,
}

/// What a mold loads and workers run. All methods are called in the mold, but for
/// [`Payload::after_fork_child`] and [`Payload::run_worker`], which are called in a worker.
pub trait Payload: Sized {
    /// Loads and checks everything that a worker needs. May run plugin code, and may therefore
    /// never return: the arbiter has a time limit for it. `doing` tells the arbiter, before each
    /// such piece of code, which one it is: "FILE: opening the worker class".
    fn load(context: &MoldContext, doing: &dyn Fn(&str)) -> Result<Self, Refusal>;

    /// What was loaded.
    fn loaded(&self) -> Loaded;

    /// Loads what only a worker would load: for a check of the settings.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// A server hook by its gunicorn name, with numbers that describe it; in the mold or in a worker,
    /// wherever it happens.
    fn hook(&self, event: &str, facts: &[i64]) {
        let _ = (event, facts);
    }

    /// Called before the mold reads each message from this descriptor: runs what the application started while it was
    /// loaded until the descriptor is readable. May return earlier.
    fn wait(&self, descriptor: RawFd) {
        let _ = descriptor;
    }

    /// Called before each fork of a worker.
    fn before_fork(&mut self) {}

    /// Called in the mold after each fork, also after one that failed.
    fn after_fork_parent(&mut self) {}

    /// Called in the new worker, before anything else of the payload's.
    fn after_fork_child(&mut self) {}

    /// The worker's life, to its exit status. 0 is a planned end. The status matters to the log
    /// only: that a worker cannot boot it says with [`WorkerContext::boot_failed`].
    fn run_worker(self, context: WorkerContext) -> i32;
}
