//! The end. Graceful: the listeners take no new connection, workers accept what waits, answer what
//! they have and end; nobody is reset. Quick: everything ends now.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::Arbiter;
use super::generation::{Generation, Stage};
use crate::clock;
use crate::listener::Listener;

/// How far the server is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves, or is about to.
    Running,
    /// It was told to end and still serves as ever: `drain_delay`.
    Delaying {
        /// Until then.
        until_ns: u64,
    },
    /// Its workers were told to end.
    Stopping {
        /// Whether they need not finish what they have.
        quick: bool,
        /// The exit status when they have ended.
        status: i32,
    },
}

impl Arbiter {
    /// TERM: a graceful end, after the delay in which a load balancer may look away.
    pub(super) fn begin_stop(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let serving = self.generation_in(Stage::Serving);
        match serving.and_then(|generation| generation.settings.drain_delay) {
            Some(delay) => {
                tracing::info!("Serving for {} s more", delay.as_secs_f32());
                self.say_stopping();
                let until_ns = clock::now_ns() + clock::duration_ns(delay);
                self.phase = Phase::Delaying { until_ns };
                self.refuse_reloads();
            }
            None => self.stop_gracefully(),
        }
    }

    /// Everything ends, but not before what was accepted is answered.
    pub(super) fn stop_gracefully(&mut self) {
        self.say_stopping();
        self.phase = Phase::Stopping { quick: false, status: 0 };
        for listener in self.listeners_to_leave() {
            listener.stop_taking();
        }
        self.end_all(Signal::SIGTERM, None);
    }

    /// The end of one of two arbiters is not the end of the service.
    fn say_stopping(&self) {
        if !self.shares_listeners() {
            self.notifier.stopping();
        }
    }

    /// Everything ends now.
    pub(super) fn stop_quickly(&mut self, status: i32) {
        if matches!(self.phase, Phase::Stopping { quick: true, .. }) {
            return;
        }
        self.say_stopping();
        let status = match self.phase {
            Phase::Stopping { status, .. } => status,
            Phase::Running | Phase::Delaying { .. } => status,
        };
        self.phase = Phase::Stopping { quick: true, status };
        for listener in self.listeners_to_leave() {
            listener.stop_taking();
        }
        self.end_all(Signal::SIGQUIT, Some(QUICK_LIMIT_NS));
    }

    /// The exit status, once nothing is left that runs.
    pub(super) fn ended(&self) -> Option<i32> {
        match self.phase {
            Phase::Stopping { status, .. } if self.generations.is_empty() => Some(status),
            _ => None,
        }
    }

    /// The last things before the process ends.
    pub(super) fn close(mut self) {
        self.hide_figures();
        self.control.close();
        self.pidfile = None;
        tracing::info!("Shutting down: host");
    }

    /// Tells all generations to end, and closes the arbiter's copies of the listeners: from here on
    /// they live as long as the workers that empty them.
    fn end_all(&mut self, signal: Signal, limit_ns: Option<u64>) {
        self.refuse_reloads();
        for generation in &mut self.generations {
            let graceful = clock::duration_ns(generation.settings.graceful_timeout);
            generation.retire_at_last(signal, limit_ns.unwrap_or(graceful));
            generation.listeners.clear();
        }
    }

    /// Tells the hooks of the end, when the last worker has ended.
    pub(super) fn tell_exit(&mut self) {
        if self.generations.iter().all(|generation| generation.workers.is_empty()) {
            self.generations
                .iter_mut()
                .filter(|generation| generation.rests())
                .for_each(Generation::tell_exit);
        }
    }

    fn refuse_reloads(&mut self) {
        let mut waiting = self.reload_queued.take().map_or_else(Vec::new, |queued| queued.waiting);
        for generation in &mut self.generations {
            waiting.append(&mut generation.waiting);
        }
        self.answer_refused(&waiting, "the server is stopping");
    }

    /// The listeners that nobody serves when this server has ended.
    fn listeners_to_leave(&self) -> Vec<Arc<Listener>> {
        if self.shares_listeners() {
            return Vec::new();
        }
        let mut listeners = self.listeners();
        listeners.retain(|listener| !listener.is_from_outside());
        listeners
    }
}

/// How long workers may take to end quickly; they end by themselves much sooner.
const QUICK_LIMIT_NS: u64 = 1_000_000_000;
