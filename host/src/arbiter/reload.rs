//! Reloads: settings are read again, a mold loads, workers boot; the old generation retires only after all of
//! them can serve. A failure on the way is reported once, to the log and to the clients that wait, and the old
//! generation never stops serving.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::Arbiter;
use super::generation::Stage;
use super::stop::Phase;
use crate::clock;
use crate::control::{ClientId, Response};
use crate::listener::{self, Listener};
use crate::message::Refusal;
use crate::scoreboard::Event;
use crate::settings::{Error, Loading, Settings};

/// A requested reload.
#[derive(Debug, Default)]
pub(super) struct ReloadRequest {
    /// Worker class to use instead of the configured one, for this reload only.
    pub(super) worker_class: Option<String>,
    /// Number of workers to try the new generation with before it takes over.
    pub(super) share: Option<usize>,
    /// Settings of an earlier generation to use instead of reading them again.
    pub(super) settings: Option<Arc<Settings>>,
    /// Clients to notify of the result; none for a signal.
    pub(super) waiting: Vec<ClientId>,
}

impl ReloadRequest {
    fn asks_the_same(&self, other: &Self) -> bool {
        self.worker_class == other.worker_class
            && self.share == other.share
            && self.settings.is_none()
            && other.settings.is_none()
    }
}

impl Arbiter {
    /// Begins a reload, or queues it if one is in progress: exactly one follows, for all requests that arrive
    /// until then.
    pub(super) fn reload(&mut self, request: ReloadRequest) {
        if !matches!(self.phase, Phase::Running) {
            return self.answer_refused(&request.waiting, "the server is stopping");
        }
        let booting = self.generations.in_stage(Stage::Booting);
        if !self.is_evaluating_reload() && booting.is_none_or(|refused| refused.awaits_change) {
            return self.begin_reload(request);
        }
        let queued = self.reload_queued.get_or_insert_default();
        let superseded = if queued.asks_the_same(&request) {
            queued.waiting.extend(request.waiting);
            Vec::new()
        } else {
            std::mem::replace(queued, request).waiting
        };
        self.answer_refused(&superseded, "superseded by another reload before it began");
    }

    /// Promotes the booting generation once all its workers are ready. The first generation serves from its
    /// first worker on, since no other one can serve until then.
    pub(super) fn promote_when_ready(&mut self) {
        let needed = if self.has_been_ready { usize::MAX } else { 1 };
        let running = matches!(self.phase, Phase::Running);
        let booting = self.generations.in_stage(Stage::Booting).filter(|_| running);
        let Some(generation) = booting else { return };
        let id = generation.id;
        let share = generation.share;
        if generation.serving() < generation.target.min(needed) || !self.is_healthy(id) {
            return;
        }
        match share {
            Some(share) => {
                if let Some(generation) = self.generations.by_id_mut(id) {
                    generation.share = None;
                }
                self.begin_trial(id, share);
            }
            None => self.promote(id),
        }
    }

    /// Makes a generation take over from the previous one.
    fn promote(&mut self, id: u32) {
        let Some(old) = self.generations.in_stage(Stage::Serving) else {
            return self.become_ready(id);
        };
        let (old, limit) = (old.id, old.settings.exit_timeout());
        let left = self.abandoned_listeners(id, old);
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        generation.stage = Stage::Serving;
        let settings = Arc::clone(&generation.settings);
        tracing::info!("generation {id} serves; retiring generation {old}");
        for listener in left {
            tracing::info!("no longer listening at: {listener}");
            listener.stop_accepting();
        }
        self.record_past(old);
        let mut waiting = Vec::new();
        if let Some(old) = self.generations.by_id_mut(old) {
            old.retire(Signal::SIGTERM, clock::duration_ns(limit));
            waiting = std::mem::take(&mut old.waiting);
        }
        if let Some(generation) = self.generations.by_id_mut(id) {
            // Clients of the old generation wait until all generations before are over; the new one
            // has to wait for the same.
            generation.waiting.append(&mut waiting);
        }
        if let Err(error) = self.log.apply(&settings) {
            tracing::error!("error log not changed: {error}");
        }
        self.move_pidfile(&settings);
        self.apply_status_settings(&settings);
        self.scoreboard.ledger().count(Event::Reloaded);
        self.workers_stopped = false;
        self.notifier.ready();
        self.open_control();
    }

    /// Refuses a generation that cannot serve: it is retired, and everything is as before. At start, when no
    /// generation serves, the server exits; with `reload` it waits for a file to change.
    pub(super) fn refuse(&mut self, index: usize, refusal: &Refusal) {
        if refusal.is_other_interface && self.try_other_class(index, refusal) {
            return;
        }
        let Some(old) = self.generations.in_stage(Stage::Serving).map(|old| old.id) else {
            if self.generations[index].awaits_change {
                return tracing::debug!(
                    "further failure of the refused generation: {}",
                    refusal.reason
                );
            }
            tracing::error!("{}", refusal.reason);
            let running = self.phase == Phase::Running && self.predecessor.is_none();
            if running && self.generations[index].watcher.is_some() {
                tracing::info!("waiting for a file to change (the setting reload)");
                let waiting = std::mem::take(&mut self.generations[index].waiting);
                self.answer_refused(&waiting, &refusal.reason);
                return self.generations[index].await_change();
            }
            return self.stop_quickly(refusal.status);
        };
        self.return_workers(index);
        let generation = &mut self.generations[index];
        let id = generation.id;
        let waiting = std::mem::take(&mut generation.waiting);
        let limit_ns = clock::duration_ns(generation.settings.exit_timeout());
        tracing::error!("reload refused, generation {old} continues: {}", refusal.reason);
        self.scoreboard.ledger().count(Event::ReloadRefused);
        generation.retire(Signal::SIGTERM, limit_ns);
        self.close_listeners_of(id);
        self.answer_refused(&waiting, &refusal.reason);
        self.notifier.ready();
    }

    /// Replaces a generation whose application speaks another interface than its worker class calls by one with the class
    /// for that interface, unless the operator has chosen the class or the attempt was made before.
    fn try_other_class(&mut self, index: usize, refusal: &Refusal) -> bool {
        let generation = &self.generations[index];
        let class = generation.settings.class_for_other_interface();
        let Some(class) = class.filter(|_| self.phase == Phase::Running) else { return false };
        if generation.awaits_change || self.sources.detected_class == Some(class) {
            return generation.awaits_change;
        }
        tracing::debug!("{}", refusal.reason);
        tracing::info!("the application speaks another interface: using the worker class {class}");
        self.sources.detected_class = Some(class);
        self.return_workers(index);
        let generation = &mut self.generations[index];
        let waiting = std::mem::take(&mut generation.waiting);
        generation.await_change();
        self.begin_reload(ReloadRequest { waiting, ..ReloadRequest::default() });
        true
    }

    /// Removes generations that are over, responds to the clients that wait for that, and begins the queued
    /// reload. Returns whether there was one.
    pub(super) fn finish_reloads(&mut self) -> bool {
        self.generations.retain_mut(|generation| {
            let over = generation.is_over();
            if over {
                generation.kill_unclaimed();
                generation.finish_lines();
                tracing::debug!("generation {} is over", generation.id);
            }
            !over
        });
        let oldest = self.generations.first().map_or(0, |generation| generation.id);
        let done: Vec<ClientId> = self
            .generations
            .iter_mut()
            .filter(|generation| generation.stage == Stage::Serving && generation.id == oldest)
            .flat_map(|generation| std::mem::take(&mut generation.waiting))
            .collect();
        for client in done {
            self.control.answer(client, &Response::done());
        }
        let running = matches!(self.phase, Phase::Running);
        let booting = self.generations.in_stage(Stage::Booting).is_some();
        if !running || booting || self.is_evaluating_reload() {
            return false;
        }
        let queued = self.reload_queued.take();
        let begins = queued.is_some();
        if let Some(request) = queued {
            self.begin_reload(request);
        }
        begins
    }

    fn begin_reload(&mut self, request: ReloadRequest) {
        if let Some(trial) = self.generations.in_stage(Stage::Trial).map(|trial| trial.id) {
            let reason =
                format!("generation {trial} is on trial: promote it or roll it back first");
            tracing::error!("reload refused: {reason}");
            return self.answer_refused(&request.waiting, &reason);
        }
        tracing::info!("reloading");
        self.notifier.reloading();
        if let Some(settings) = request.settings.clone() {
            return self.begin_generation(request, Ok(settings));
        }
        let mut sources = self.sources.clone();
        if let Some(class) = &request.worker_class {
            sources.requests.push(("worker_class".to_owned(), class.clone()));
        }
        match sources.begin() {
            Ok(Loading::Done(settings, _)) => self.begin_generation(request, Ok(settings)),
            Ok(Loading::Python(file)) => self.evaluate_for_reload(file, request),
            Err(error) => self.begin_generation(request, Err(error)),
        }
    }

    /// Begins the generation of a reload whose settings were read.
    pub(super) fn begin_generation(
        &mut self,
        request: ReloadRequest,
        settings: Result<Arc<Settings>, Error>,
    ) {
        let ReloadRequest { share, waiting, settings: earlier, .. } = request;
        let settings = settings.map_err(|error| error.to_string()).and_then(|settings| {
            // Those of an earlier generation have served already.
            let checked = if earlier.is_some() { Ok(()) } else { self.check_losses(&settings) };
            checked.map(|()| settings)
        });
        if let Ok(settings) = &settings {
            settings.warn_of_ignored();
        }
        let result = settings.and_then(|settings| {
            let present = self.generations.listeners();
            let listeners = listener::open_all(&settings, &present, &mut self.inherited, 1);
            let listeners = listeners.map_err(|error| error.to_string())?;
            for listener in listeners.iter().filter(|new| !is_among(new, &present)) {
                tracing::info!("Listening at: {}", listener.url(&settings));
            }
            Ok((settings, listeners))
        });
        let result = result.and_then(|(settings, listeners)| {
            self.add_generation(settings, listeners, waiting.clone()).map_err(|error| {
                format!("cannot open the logs or sockets of the new generation: {error}")
            })
        });
        if let (Ok(()), Some((generation, earlier))) = (&result, self.generations.split_last_mut())
        {
            // No process of it runs, and the next generation uses its listeners.
            let refused = earlier.iter_mut().filter(|generation| generation.awaits_change);
            refused.for_each(|generation| generation.retire(Signal::SIGTERM, 0));
            generation.share = share;
            generation.target = generation.target.min(share.unwrap_or(usize::MAX));
        }
        if let Err(reason) = result {
            tracing::error!("reload refused: {}", reason.trim_end());
            self.scoreboard.ledger().count(Event::ReloadRefused);
            self.answer_refused(&waiting, reason.trim_end());
            self.notifier.ready();
        }
    }

    /// Refuses settings that lack a required part of the serving generation's settings.
    pub(super) fn check_losses(&self, next: &Settings) -> Result<(), String> {
        let serving = self.generations.in_stage(Stage::Serving);
        let result = serving.map_or(Ok(()), |serving| serving.settings.check_successor(next));
        result.map_err(|problem| problem.to_string())
    }

    fn become_ready(&mut self, id: u32) {
        let mut settings = None;
        if let Some(generation) = self.generations.by_id_mut(id) {
            generation.stage = Stage::Serving;
            settings = Some(Arc::clone(&generation.settings));
        }
        let listeners = self.generations.listeners();
        let mut addresses = Vec::new();
        if let Some(settings) = settings {
            self.apply_status_settings(&settings);
            addresses.extend(listeners.iter().map(|listener| listener.url(&settings)));
        }
        self.has_been_ready = true;
        if let Some(generation) = self.generations.by_id_mut(id) {
            generation.send_hook("when_ready", &[generation.target as i64]);
        }
        tracing::info!("Server is ready. Listening at: {}", addresses.join(", "));
        self.notifier.ready();
        self.open_control();
    }

    /// Returns the listeners that `gone` has and `stays` lacks, unless other programs continue to use them.
    fn abandoned_listeners(&self, stays: u32, gone: u32) -> Vec<Arc<Listener>> {
        let (Some(stays), Some(gone)) =
            (self.generations.by_id(stays), self.generations.by_id(gone))
        else {
            return Vec::new();
        };
        let shared = self.shares_listeners();
        gone.listeners
            .iter()
            .filter(|listener| !is_among(listener, &stays.listeners))
            .filter(|listener| !shared && !listener.is_from_outside())
            .cloned()
            .collect()
    }

    /// Stops accepting on listeners that only this generation, which never took over, listens on.
    pub(super) fn close_listeners_of(&mut self, id: u32) {
        let Some(serving) = self.generations.in_stage(Stage::Serving) else { return };
        for listener in self.abandoned_listeners(serving.id, id) {
            listener.stop_accepting();
        }
    }

    pub(super) fn answer_refused(&mut self, clients: &[ClientId], reason: &str) {
        for &client in clients {
            self.control.answer(client, &Response::refused(reason));
        }
    }
}

fn is_among(listener: &Arc<Listener>, listeners: &[Arc<Listener>]) -> bool {
    listeners.iter().any(|other| Arc::ptr_eq(other, listener))
}
