//! Settings files in Python at a reload: another process evaluates the file, and the arbiter does not wait for it.

use super::Arbiter;
use super::reload::ReloadRequest;
use crate::evaluation::Evaluation;
use crate::settings::PythonFile;

/// The reload that waits for its settings.
pub(super) struct PendingReload {
    pub(super) evaluation: Evaluation,
    request: ReloadRequest,
}

impl Arbiter {
    /// Starts the evaluation of the file for a reload.
    pub(super) fn evaluate(&mut self, file: Box<PythonFile>, request: ReloadRequest) {
        match Evaluation::start(file) {
            Ok(evaluation) => self.evaluation = Some(PendingReload { evaluation, request }),
            Err(error) => self.begin_generation(request, Err(error)),
        }
    }

    /// Continues the reload once its settings are known, or their time is over.
    pub(super) fn read_evaluation(&mut self) {
        let Some(result) = self.evaluation.as_mut().and_then(|of| of.evaluation.receive()) else {
            return;
        };
        if let Some(PendingReload { request, .. }) = self.evaluation.take() {
            self.begin_generation(request, result.map(|(settings, _)| settings));
        }
    }

    /// Ends the evaluation because the server stops.
    pub(super) fn stop_evaluation(&mut self) {
        if let Some(PendingReload { request, .. }) = self.evaluation.take() {
            self.answer_refused(&request.waiting, "the server is stopping");
        }
    }
}
