//! The test that runs on a thread: what it has started, and what its failure is to report.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Registers a process group with the running test, so that it is killed if the test exceeds its time limit.
pub(crate) fn own(group: Pid) {
    SCENE.with_borrow(|scene| {
        if let Some(scene) = scene {
            scene.lock().groups.push(group);
        }
    });
}

/// Adds text to the running test's failure.
pub(crate) fn explain(text: &str) {
    SCENE.with_borrow(|scene| match scene {
        Some(scene) => scene.lock().text.push_str(text),
        None => eprintln!("{text}"),
    });
}

thread_local! {
    static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
}

/// What a running test has started and reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    groups: Vec<Pid>,
    text: String,
}

impl Scene {
    /// Makes it that of the test that runs on this thread.
    pub(crate) fn enter(self) {
        SCENE.set(Some(self));
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the process groups.
    pub(crate) fn kill(&self) {
        for group in &self.lock().groups {
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }

    /// Returns the failure with this message and everything that was added to it.
    pub(crate) fn failure(&self, message: &str) -> String {
        format!("{message}\n{}", self.lock().text)
    }
}
