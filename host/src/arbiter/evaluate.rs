//! Settings files in Python at a reload or an upgrade: another process evaluates the file, and the arbiter does not wait
//! for it.

use std::sync::Arc;

use nix::unistd::Pid;

use super::Arbiter;
use super::reload::ReloadRequest;
use crate::evaluation::Evaluation;
use crate::settings::{Error, PythonFile, Settings};

/// What waits for the settings of a file. There is at most one evaluation for each purpose.
enum Purpose {
    /// A reload to them.
    Reload(ReloadRequest),
    /// An upgrade, which is refused if they lack a required part of the present ones.
    Upgrade,
}

/// A file that is being evaluated.
pub(super) struct PendingEvaluation {
    pub(super) evaluation: Evaluation,
    purpose: Purpose,
}

impl PendingEvaluation {
    fn is_for_reload(&self) -> bool {
        matches!(self.purpose, Purpose::Reload(_))
    }
}

impl Arbiter {
    /// Starts the evaluation of the file for a reload.
    pub(super) fn evaluate_for_reload(&mut self, file: Box<PythonFile>, request: ReloadRequest) {
        self.evaluate(file, Purpose::Reload(request));
    }

    /// Starts the evaluation of the file for an upgrade.
    pub(super) fn evaluate_for_upgrade(&mut self, file: Box<PythonFile>) {
        self.evaluate(file, Purpose::Upgrade);
    }

    fn evaluate(&mut self, file: Box<PythonFile>, purpose: Purpose) {
        match Evaluation::start(file) {
            Ok(evaluation) => self.evaluations.push(PendingEvaluation { evaluation, purpose }),
            Err(error) => self.resume(purpose, Err(error)),
        }
    }

    /// Returns whether a reload waits for its settings.
    pub(super) fn is_evaluating_reload(&self) -> bool {
        self.evaluations.iter().any(PendingEvaluation::is_for_reload)
    }

    /// Returns whether an upgrade waits for the check of its settings.
    pub(super) fn is_evaluating_upgrade(&self) -> bool {
        self.evaluations.iter().any(|pending| !pending.is_for_reload())
    }

    /// Returns the evaluation that this process runs.
    pub(super) fn evaluation_of(&mut self, pid: Pid) -> Option<&mut Evaluation> {
        let mut evaluations = self.evaluations.iter_mut().map(|pending| &mut pending.evaluation);
        evaluations.find(|evaluation| evaluation.pid() == pid)
    }

    /// Continues what waits for settings that are known now, or whose time is over.
    pub(super) fn read_evaluations(&mut self) {
        for index in (0..self.evaluations.len()).rev() {
            let Some(result) = self.evaluations[index].evaluation.receive() else { continue };
            let purpose = self.evaluations.remove(index).purpose;
            self.resume(purpose, result.map(|(settings, _)| settings));
        }
    }

    fn resume(&mut self, purpose: Purpose, settings: Result<Arc<Settings>, Error>) {
        match purpose {
            Purpose::Reload(request) => self.begin_generation(request, settings),
            Purpose::Upgrade => self.upgrade_to(settings),
        }
    }

    /// Ends all evaluations because the server stops.
    pub(super) fn stop_evaluations(&mut self) {
        for PendingEvaluation { purpose, .. } in std::mem::take(&mut self.evaluations) {
            if let Purpose::Reload(request) = purpose {
                self.answer_refused(&request.waiting, "the server is stopping");
            }
        }
    }
}
