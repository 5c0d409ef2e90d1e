//! What each signal to the arbiter does, with gunicorn's meaning.
//!
//! | signal | meaning |
//! | --- | --- |
//! | TERM | stop gracefully |
//! | INT, QUIT | stop quickly |
//! | HUP | reload |
//! | TTIN, TTOU | one worker more, one fewer |
//! | USR1 | reopen the log files in all processes |
//! | USR2 | start another arbiter from the program's file beside this one |
//! | WINCH | stop all workers but not the arbiter, in the background or beside a successor |
//! | CHLD | a child exited |
//! | CONT | the arbiter itself was stopped until now |

use nix::sys::signal::Signal;

use super::Arbiter;
use super::generation::Stage;
use super::reload::ReloadRequest;
use crate::process::name_of;
use crate::settings::WORKERS_MAX;
use crate::signal_inbox::ReceivedSignal;

/// Signals for which the arbiter has handlers.
pub(super) const HANDLED: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
    Signal::SIGCONT,
];

impl Arbiter {
    /// Handles the signals that have arrived since the previous call. Reloads are merged; all others count
    /// one by one.
    pub(super) fn handle_signals(&mut self) {
        let caught = self.signals.take();
        let reloads = caught.iter().filter(|caught| caught.signal == Signal::SIGHUP).count();
        for &caught in caught.iter().filter(|caught| caught.signal != Signal::SIGHUP) {
            self.on_signal(caught);
        }
        // A second one may ask for something that changed after the first was sent.
        for _ in 0..reloads.min(2) {
            tracing::info!("Handling signal: hup");
            self.reload(ReloadRequest::default());
        }
    }

    fn on_signal(&mut self, caught: ReceivedSignal) {
        match caught.signal {
            Signal::SIGTERM => {
                log_signal(caught);
                self.begin_stop();
            }
            Signal::SIGINT | Signal::SIGQUIT => {
                log_signal(caught);
                self.stop_quickly(0);
            }
            Signal::SIGTTIN => {
                log_signal(caught);
                self.change_target(|target| (target + 1).min(WORKERS_MAX));
            }
            Signal::SIGTTOU => {
                log_signal(caught);
                self.change_target(|target| target.saturating_sub(1).max(1));
            }
            Signal::SIGUSR1 => self.reopen_logs(),
            Signal::SIGUSR2 => {
                log_signal(caught);
                self.upgrade();
            }
            Signal::SIGWINCH => self.stop_workers(),
            Signal::SIGCONT => self.restart_timeouts(),
            // Children are reaped in each iteration of the loop.
            _ => {}
        }
    }

    /// Changes the configured number of workers in the generation that serves and in the one that is booting.
    pub(super) fn change_target(&mut self, change: impl Fn(usize) -> usize) {
        if self.workers_stopped {
            return tracing::info!(
                "number of workers not changed: the workers are stopped (WINCH)"
            );
        }
        for generation in self.generations.iter_mut() {
            if matches!(generation.stage, Stage::Booting | Stage::Serving) {
                let before = generation.target;
                generation.target = change(before);
                if generation.target != before && generation.stage == Stage::Serving {
                    let facts = [generation.target as i64, before as i64];
                    generation.send_hook("nworkers_changed", &facts);
                }
            }
        }
    }

    /// USR1: every process reopens its log files.
    pub(super) fn reopen_logs(&mut self) {
        if let Err(error) = self.log.reopen() {
            tracing::error!("log not reopened: {error}");
        }
        for generation in self.generations.iter_mut() {
            if let Some(Err(error)) = generation.access_file.as_ref().map(|file| file.reopen()) {
                tracing::error!("log not reopened: {error}");
            }
            generation.reopen_logs();
        }
        tracing::info!("log files reopened");
    }

    /// WINCH: the workers stop, the arbiter stays; its successor serves alone until this one is stopped or
    /// its workers are started again.
    fn stop_workers(&mut self) {
        let daemon = self.generations.iter().any(|generation| generation.settings.daemon);
        if !daemon && self.successor.is_none() {
            return tracing::debug!("SIGWINCH ignored: neither in the background nor upgraded");
        }
        tracing::info!("Handling signal: winch; stopping the workers but not the arbiter");
        self.workers_stopped = true;
        if self.successor.is_some() {
            self.close_status();
        }
        // A reload in progress starts workers again, as a later one does.
        if let Some(generation) = self.generations.in_stage_mut(Stage::Serving) {
            generation.target = 0;
        }
    }

    /// Starts the workers again that WINCH stopped.
    pub(super) fn restart_workers(&mut self) {
        if !std::mem::take(&mut self.workers_stopped) {
            return;
        }
        if let Some(generation) = self.generations.in_stage_mut(Stage::Serving) {
            generation.target = generation.settings.workers;
        }
    }
}

fn log_signal(caught: ReceivedSignal) {
    let name = caught.signal.as_str().trim_start_matches("SIG").to_lowercase();
    let sender = match (caught.sender, name_of(caught.sender)) {
        (0, _) | (_, None) => String::new(),
        (sender, Some(program)) => format!(" (from process {sender}, {program:?})"),
    };
    tracing::info!("Handling signal: {name}{sender}");
}
