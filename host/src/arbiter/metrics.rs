//! Monitoring: the arbiter's entries in the scoreboard, and the process that serves metrics and the status page.
//! The arbiter opens that process's sockets, keeps them while the process is replaced, and starts a new one when
//! it dies; serving requests does not depend on it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::fstat;
use nix::unistd::{ForkResult, Pid};

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::stop::Phase;
use crate::clock;
use crate::listener::{self, Listener};
use crate::message::{Channel, ToStatus};
use crate::process::{self, End};
use crate::scoreboard::{Event, GenerationNote};
use crate::settings::Settings;
use crate::status::{self, Service, StatusStart};

/// The monitoring process and its resources.
#[derive(Default)]
pub(super) struct StatusProcess {
    /// Settings it was started with; `None` before the first generation serves.
    settings: Option<Arc<Settings>>,
    listeners: Vec<(Service, Arc<Listener>)>,
    /// Whether an address could not be bound yet.
    lacks_listener: bool,
    pid: Option<Pid>,
    /// Channel for slots that were created after it was started.
    channel: Option<Channel>,
    /// Time at which another process, or another attempt to listen, is due; 0 for none.
    retry_at_ns: u64,
}

impl StatusProcess {
    /// Applies the settings of a new generation.
    fn adopt(&mut self, settings: &Arc<Settings>) {
        if self.settings.as_ref().is_some_and(|present| is_same(present, settings)) {
            return;
        }
        self.settings = Some(Arc::clone(settings));
        self.close();
        self.retry_at_ns = clock::now_ns();
    }

    /// Kills the process and closes its addresses.
    fn close(&mut self) {
        self.end();
        for (_, listener) in self.listeners.drain(..) {
            listener.stop_accepting();
        }
        self.lacks_listener = false;
        self.retry_at_ns = 0;
    }

    fn end(&mut self) {
        self.channel = None;
        if let Some(pid) = self.pid.take() {
            // It has nothing to finish. Its exit is noticed like that of any other child.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Returns whether it is this process.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.pid == Some(pid)
    }

    /// Passes on a slot that was created. A process that does not accept it is replaced, and the next one
    /// inherits all slots.
    pub(super) fn show_slot(&mut self, slot: &ToStatus, memory: Option<&OwnedFd>) {
        let (Some(channel), Some(memory)) = (&self.channel, memory) else { return };
        if let Err(error) = channel.send_with(slot, Some(memory.as_fd())) {
            tracing::debug!(
                "replacing the status process, which does not read its messages: {error}"
            );
            self.end();
            self.retry_at_ns = clock::now_ns();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        (self.retry_at_ns != 0).then_some(self.retry_at_ns)
    }

    /// Binds the addresses that are not bound yet.
    fn listen(&mut self, settings: &Settings) {
        let was_lacking = std::mem::take(&mut self.lacks_listener);
        let wanted =
            [(Service::Metrics, &settings.metrics_bind), (Service::Page, &settings.status_bind)];
        let binds = wanted
            .into_iter()
            .flat_map(|(service, binds)| binds.iter().flatten().map(move |bind| (service, bind)));
        for (service, bind) in binds {
            let is_open =
                |(of, listener): &(Service, Arc<Listener>)| *of == service && listener.is_for(bind);
            if self.listeners.iter().any(is_open) {
                continue;
            }
            match listener::open_one(bind, settings) {
                Ok(listener) => {
                    tracing::info!("{service} at: {listener}");
                    self.listeners.push((service, Arc::new(listener)));
                }
                Err(error) => {
                    self.lacks_listener = true;
                    if !was_lacking {
                        tracing::warn!("cannot open {service} yet, retrying: {error}");
                    }
                }
            }
        }
    }
}

impl Arbiter {
    /// Applies the settings of a generation that took over.
    pub(super) fn apply_status_settings(&mut self, settings: &Arc<Settings>) {
        self.status.adopt(settings);
    }

    /// Updates the entries in the scoreboard.
    pub(super) fn publish_notes(&self) {
        let ledger = self.scoreboard.ledger();
        ledger.note_generations(self.generations.iter().map(Generation::note));
        ledger.note_stopping(self.phase != Phase::Running && !self.shares_listeners());
        let listeners = self.generations.listeners();
        let note = |listener: &Arc<Listener>| {
            let inode = fstat(listener).ok()?.st_ino;
            Some((inode, listener.to_string()))
        };
        ledger.note_listeners(listeners.iter().filter_map(note));
    }

    /// Starts the monitoring process if configured and not running.
    pub(super) fn start_status_if_due(&mut self) {
        let listen_retry_ns =
            if self.predecessor.is_some() { HANDOVER_RETRY_NS } else { LISTEN_RETRY_NS };
        let status = &mut self.status;
        if status.retry_at_ns == 0 || clock::now_ns() < status.retry_at_ns {
            return;
        }
        status.retry_at_ns = 0;
        let Some(settings) = status.settings.clone() else { return };
        let before = status.listeners.len();
        status.listen(&settings);
        if status.lacks_listener {
            status.retry_at_ns = clock::now_ns() + listen_retry_ns;
        }
        if status.listeners.len() > before {
            // A running process does not have the new socket.
            status.end();
        }
        let has_work = !status.listeners.is_empty() || settings.statsd_host.is_some();
        if status.pid.is_some() || !has_work {
            return;
        }
        let made = Channel::pair().and_then(|pair| {
            let fork = process::fork_with_signals_blocked()?;
            Ok((pair, fork))
        });
        match made {
            Ok(((near, far), ForkResult::Child)) => {
                drop(near);
                let start = StatusStart {
                    settings,
                    scoreboard: Arc::clone(&self.scoreboard),
                    slots: far,
                    listeners: self.status.listeners.clone(),
                    keep: self.common_descriptors(),
                };
                status::run(&start)
            }
            Ok(((near, _), ForkResult::Parent { child })) => {
                self.status.channel = Some(near);
                self.status.pid = Some(child);
            }
            Err(error) => {
                tracing::error!("cannot start the status process: fork failed: {error}");
                self.status.retry_at_ns = clock::now_ns() + RESTART_NS;
            }
        }
    }

    /// Returns whether the monitoring process exited; another one is started after a pause.
    pub(super) fn on_status_end(&mut self, pid: Pid, end: End) -> bool {
        if self.status.pid != Some(pid) {
            return false;
        }
        self.status.pid = None;
        self.status.channel = None;
        self.scoreboard.ledger().count(Event::StatusDied);
        tracing::error!("status process {}", end.describe());
        self.status.retry_at_ns = clock::now_ns() + RESTART_NS;
        true
    }

    /// Called when the server stops, or when another arbiter serves alone from here on.
    pub(super) fn close_status(&mut self) {
        self.status.close();
    }

    /// Opens the addresses again that were left to another arbiter.
    pub(super) fn reopen_status(&mut self) {
        self.status.retry_at_ns = clock::now_ns();
    }
}

impl Generation {
    fn note(&self) -> GenerationNote {
        let loaded = self.loaded.as_ref();
        GenerationNote {
            id: self.id,
            stage: match self.stage {
                Stage::Booting => 1,
                Stage::Trial => 2,
                Stage::Serving => 3,
                Stage::Retiring => 4,
            },
            target: self.target as u32,
            mold: self.mold.as_ref().map_or(0, |mold| process::number(mold.pid)),
            started_ns: self.started_ns,
            class: loaded.map_or_else(String::new, |loaded| loaded.class.clone()),
            app: loaded.map_or_else(String::new, |loaded| loaded.app.clone()),
        }
    }
}

/// Returns whether the process need not be replaced.
fn is_same(old: &Settings, new: &Settings) -> bool {
    const NAMES: [&str; 9] = [
        "metrics_bind",
        "status_bind",
        "statsd_host",
        "statsd_prefix",
        "dogstatsd_tags",
        "enable_backlog_metric",
        "user",
        "group",
        "proc_name",
    ];
    NAMES.iter().all(|name| old.get(name) == new.get(name))
}

/// Pause before a new process follows one that died.
const RESTART_NS: u64 = 1_000_000_000;
/// Pause between attempts to listen on an address that something else uses.
const LISTEN_RETRY_NS: u64 = 5_000_000_000;
/// The same while the previous arbiter may be what uses it: a load balancer that checks `/health` once a second must not
/// find the address closed twice.
const HANDOVER_RETRY_NS: u64 = 250_000_000;
