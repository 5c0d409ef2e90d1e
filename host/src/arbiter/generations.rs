//! The registry of the arbiter's generations, with the look-up of a generation by ID or stage and of a process.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use nix::unistd::Pid;

use super::generation::{Generation, Role, Stage};
use crate::listener::Listener;

/// The generations in the order of creation. At most one is booting and one serving.
///
/// An index stays valid until a generation is added or the finished ones are removed.
#[derive(Default)]
pub(super) struct Generations(Vec<Generation>);

impl Generations {
    /// Adds a generation, the newest.
    pub(super) fn push(&mut self, generation: Generation) {
        self.0.push(generation);
    }

    /// Removes the generations for which `keep` returns false.
    pub(super) fn retain_mut(&mut self, keep: impl FnMut(&mut Generation) -> bool) {
        self.0.retain_mut(keep);
    }

    /// Returns the index of the generation with this ID.
    pub(super) fn index_of(&self, id: u32) -> Option<usize> {
        self.iter().position(|generation| generation.id == id)
    }

    /// Returns the generation with this ID.
    pub(super) fn by_id(&self, id: u32) -> Option<&Generation> {
        self.iter().find(|generation| generation.id == id)
    }

    /// Returns the generation with this ID.
    pub(super) fn by_id_mut(&mut self, id: u32) -> Option<&mut Generation> {
        self.iter_mut().find(|generation| generation.id == id)
    }

    /// Returns the first generation in this stage.
    pub(super) fn in_stage(&self, stage: Stage) -> Option<&Generation> {
        self.iter().find(|generation| generation.stage == stage)
    }

    /// Returns the first generation in this stage.
    pub(super) fn in_stage_mut(&mut self, stage: Stage) -> Option<&mut Generation> {
        self.iter_mut().find(|generation| generation.stage == stage)
    }

    /// Returns the index of the generation that a process belongs to, and what the process is there.
    pub(super) fn find(&self, pid: Pid) -> Option<(usize, Role)> {
        let mut roles = self.iter().enumerate();
        roles.find_map(|(index, generation)| Some((index, generation.role_of(pid)?)))
    }

    /// Returns the index of the generation and the position there of the worker with this process.
    pub(super) fn find_worker(&self, pid: Pid) -> Option<(usize, usize)> {
        let mut workers = self.iter().enumerate();
        workers.find_map(|(index, generation)| Some((index, generation.find_worker(pid)?)))
    }

    /// Returns the listeners of all generations, each once.
    pub(super) fn listeners(&self) -> Vec<Arc<Listener>> {
        let mut listeners: Vec<Arc<Listener>> = Vec::new();
        for listener in self.iter().flat_map(|generation| &generation.listeners) {
            if !listeners.iter().any(|known| Arc::ptr_eq(known, listener)) {
                listeners.push(Arc::clone(listener));
            }
        }
        listeners
    }
}

impl Deref for Generations {
    type Target = [Generation];

    fn deref(&self) -> &[Generation] {
        &self.0
    }
}

impl DerefMut for Generations {
    fn deref_mut(&mut self) -> &mut [Generation] {
        &mut self.0
    }
}
