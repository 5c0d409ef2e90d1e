//! Stopping the server. Graceful: the listeners take no new connections; workers accept what is in the backlog,
//! finish their requests and exit, without resets. Quick: everything stops now.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::Arbiter;
use super::generation::{Generation, Stage};
use crate::clock;
use crate::listener::Listener;

/// Progress of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Serving, or about to.
    Running,
    /// Stopping was requested, and the server still serves: `drain_delay`.
    Delaying {
        /// Until this time.
        until_ns: u64,
    },
    /// The workers have been signaled.
    Stopping {
        /// Whether they need not finish their requests.
        quick: bool,
        /// Exit status when they have exited.
        status: i32,
    },
}

impl Arbiter {
    /// TERM: stops gracefully, after the delay in which a load balancer can react. It need not react if another arbiter
    /// serves the same sockets.
    pub(super) fn begin_stop(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let serving = self.generations.in_stage(Stage::Serving);
        match serving.and_then(|generation| generation.settings.drain_delay) {
            Some(delay) if !self.shares_listeners() => {
                tracing::info!("stopping in {} s (drain_delay)", delay.as_secs_f32());
                self.announce_stop();
                let until_ns = clock::now_ns() + clock::duration_ns(delay);
                self.phase = Phase::Delaying { until_ns };
                self.refuse_reloads();
            }
            _ => self.stop_gracefully(),
        }
    }

    /// Stops everything, after accepted requests are served.
    pub(super) fn stop_gracefully(&mut self) {
        self.announce_stop();
        self.phase = Phase::Stopping { quick: false, status: 0 };
        for listener in self.listeners_to_close() {
            listener.stop_accepting();
        }
        self.end_all(Signal::SIGTERM, None);
    }

    /// If one of two arbiters stops, the service continues: the other one opens the addresses of metrics and
    /// `/health`, so that no load balancer takes the host for down while the last requests are served here.
    fn announce_stop(&mut self) {
        if self.shares_listeners() {
            self.close_status();
        } else {
            self.notifier.stopping();
        }
    }

    /// Stops everything now.
    pub(super) fn stop_quickly(&mut self, status: i32) {
        if matches!(self.phase, Phase::Stopping { quick: true, .. }) {
            return;
        }
        self.announce_stop();
        let status = match self.phase {
            Phase::Stopping { status, .. } => status,
            Phase::Running | Phase::Delaying { .. } => status,
        };
        self.phase = Phase::Stopping { quick: true, status };
        for listener in self.listeners_to_close() {
            listener.stop_accepting();
        }
        self.end_all(Signal::SIGQUIT, Some(QUICK_LIMIT_NS));
    }

    /// Returns the exit status when no process is left.
    pub(super) fn exit_status(&self) -> Option<i32> {
        match self.phase {
            Phase::Stopping { status, .. } if self.generations.is_empty() => Some(status),
            _ => None,
        }
    }

    /// Final actions before the process exits.
    pub(super) fn close(mut self) {
        self.close_status();
        self.control.close();
        self.pidfile = None;
        tracing::info!("Shutting down: host");
    }

    /// Signals all generations and closes the arbiter's copies of the listeners: from now on they exist as
    /// long as the workers that empty their backlog.
    fn end_all(&mut self, signal: Signal, limit_ns: Option<u64>) {
        self.refuse_reloads();
        for generation in self.generations.iter_mut() {
            let exit_ns = clock::duration_ns(generation.settings.exit_timeout());
            generation.retire_at_last(signal, limit_ns.unwrap_or(exit_ns));
            generation.listeners.clear();
        }
    }

    /// Runs the hooks when the last worker has exited.
    pub(super) fn run_exit_hook(&mut self) {
        if self.generations.iter().all(|generation| generation.workers.is_empty()) {
            self.generations
                .iter_mut()
                .filter(|generation| generation.is_kept_for_hooks())
                .for_each(Generation::run_exit_hook);
        }
    }

    fn refuse_reloads(&mut self) {
        self.stop_evaluations();
        let mut waiting = self.reload_queued.take().map_or_else(Vec::new, |queued| queued.waiting);
        for generation in self.generations.iter_mut() {
            waiting.append(&mut generation.waiting);
        }
        self.answer_refused(&waiting, "the server is stopping");
    }

    /// Returns the listeners that no process serves after this server has stopped.
    fn listeners_to_close(&self) -> Vec<Arc<Listener>> {
        if self.shares_listeners() {
            return Vec::new();
        }
        let mut listeners = self.generations.listeners();
        listeners.retain(|listener| !listener.is_from_outside());
        listeners
    }
}

/// Time limit for workers to stop quickly; normally they take much less.
const QUICK_LIMIT_NS: u64 = 1_000_000_000;
