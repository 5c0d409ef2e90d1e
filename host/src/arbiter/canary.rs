//! Canaries (`hostctl swap --canary 1`): some workers of a new generation serve beside those of the old one,
//! which gives up as many, until the canary is promoted or rolled back. Also the way back to a past generation,
//! by its settings.
//!
//! ```text
//!     booting ──ready──▶ canary ────promote──▶ booting (the rest of its workers) ──ready──▶ serving
//!                            └──roll back, or too many failures──▶ retiring
//! ```

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::reload::ReloadRequest;
use crate::clock;
use crate::control::{ClientId, PastGeneration, Response};
use crate::message::{Loaded, Refusal};
use crate::scoreboard::Event;
use crate::settings::Settings;

/// A generation that has served and been retired, with what is needed to create it again.
pub(super) struct RetiredGeneration {
    id: u32,
    settings: Arc<Settings>,
    loaded: Option<Loaded>,
}

impl RetiredGeneration {
    pub(super) fn status(&self) -> PastGeneration {
        let loaded = self.loaded.as_ref();
        PastGeneration {
            id: self.id,
            class: loaded.map(|loaded| format!("{} {}", loaded.class, loaded.class_version)),
            app: loaded.map(|loaded| loaded.app.clone()),
            worker_class: self.settings.worker_class.clone(),
        }
    }
}

impl Arbiter {
    /// All canary workers are ready: the old generation gives up as many workers, but never its last.
    pub(super) fn begin_trial(&mut self, id: u32, share: usize) {
        let Some(old) = self.generations.in_stage_mut(Stage::Serving) else { return };
        let borrowed = share.min(old.target.saturating_sub(1));
        old.target -= borrowed;
        let old = old.id;
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        generation.stage = Stage::Trial;
        generation.borrowed = borrowed;
        let waiting = std::mem::take(&mut generation.waiting);
        tracing::info!("generation {id} on trial with {share} workers beside generation {old}");
        for client in waiting {
            self.control.answer(client, &Response::done());
        }
        self.notifier.ready();
    }

    /// Gives the canary generation all its workers; it takes over when they are ready, and the client then
    /// gets its response.
    pub(super) fn promote_trial(&mut self, client: ClientId) -> Option<Response> {
        let Some(generation) = self.generations.in_stage_mut(Stage::Trial) else {
            return Some(Response::refused("no generation is on trial"));
        };
        tracing::info!("promoting generation {}", generation.id);
        generation.stage = Stage::Booting;
        generation.target = generation.settings.workers;
        generation.waiting.push(client);
        self.notifier.reloading();
        None
    }

    /// Removes the canary generation or cancels the reload in progress; if there is neither, creates a
    /// generation like the previous one, or like number `id`.
    pub(super) fn roll_back(&mut self, id: Option<u32>, client: ClientId) -> Option<Response> {
        let is_new = |generation: &Generation| {
            matches!(generation.stage, Stage::Trial | Stage::Booting)
                && id.is_none_or(|id| generation.id > id)
        };
        let serving = self.generations.in_stage(Stage::Serving).map(|serving| serving.id);
        let newest = self.generations.iter().position(is_new);
        if let (Some(serving), Some(index)) = (serving, newest)
            && id.is_none_or(|id| id == serving)
        {
            self.abandon(index, &Refusal::new("rolled back on request", 0));
            return Some(Response::done());
        }
        let past = match id {
            Some(id) => self.past.iter().find(|past| past.id == id),
            None => self.past.last(),
        };
        let Some(past) = past else {
            return Some(Response::refused("no such past generation"));
        };
        tracing::info!("rolling back to the settings of generation {}", past.id);
        self.scoreboard.ledger().count(Event::RolledBack);
        let settings = Some(Arc::clone(&past.settings));
        self.reload(ReloadRequest { settings, waiting: vec![client], ..ReloadRequest::default() });
        None
    }

    /// Removes a canary generation, or one that boots, before it has taken over.
    pub(super) fn abandon(&mut self, index: usize, reason: &Refusal) {
        if self.generations[index].stage != Stage::Trial {
            return self.refuse(index, reason);
        }
        self.return_workers(index);
        let generation = &mut self.generations[index];
        let id = generation.id;
        let limit_ns = clock::duration_ns(generation.settings.exit_timeout());
        generation.retire(Signal::SIGTERM, limit_ns);
        tracing::warn!("generation {id} rolled back: {}", reason.reason);
        self.scoreboard.ledger().count(Event::RolledBack);
        self.close_listeners_of(id);
    }

    /// Too many workers of a canary generation have failed.
    pub(super) fn roll_back_if_failing(&mut self, index: usize, reason: &Refusal) {
        let generation = &self.generations[index];
        let is_ill = generation.boot_failures >= generation.settings.boot_failures_max;
        if generation.stage == Stage::Trial && is_ill {
            self.abandon(index, reason);
        }
    }

    /// Gives the old generation its workers back.
    pub(super) fn return_workers(&mut self, index: usize) {
        let borrowed = std::mem::take(&mut self.generations[index].borrowed);
        if let Some(old) = self.generations.in_stage_mut(Stage::Serving) {
            old.target += borrowed;
        }
    }

    /// Records the settings of a generation that has served and is retired.
    pub(super) fn record_past(&mut self, id: u32) {
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        let past = RetiredGeneration {
            id,
            settings: Arc::clone(&generation.settings),
            loaded: generation.loaded.clone(),
        };
        self.past.push(past);
        if self.past.len() > PAST_MAX {
            self.past.remove(0);
        }
    }
}

/// Number of past generations to keep.
const PAST_MAX: usize = 8;
