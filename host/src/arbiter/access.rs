//! Access-log lines that dead workers left in their shared memory. The arbiter never waits for the reader of a
//! log: lines that the log has no room for are passed to the next worker of the generation.

use super::generation::Generation;
use crate::scoreboard::SlotMemory;

impl Generation {
    /// Writes the lines that a worker left.
    pub(super) fn write_lines(&mut self, lines: &[u8]) {
        if let Some(file) = &self.access_file {
            self.left_lines.write(file, lines);
        }
        self.report_trouble();
    }

    /// Passes the pending lines to a new worker.
    pub(super) fn leave_lines(&mut self, memory: &SlotMemory) {
        let lines = self.left_lines.take();
        if lines.is_empty() {
            return;
        }
        if let Err(error) = memory.leave_lines(&lines) {
            tracing::debug!("cannot pass access-log lines to the next worker: {error}");
            self.write_lines(&lines);
        }
    }

    /// Writes the pending lines when no worker will follow.
    pub(super) fn finish_lines(&mut self) {
        if let Some(file) = &self.access_file {
            self.left_lines.finish(file);
        }
        self.report_trouble();
    }

    fn report_trouble(&self) {
        if let Some(trouble) = self.access_file.as_ref().and_then(|file| file.trouble()) {
            tracing::warn!("access log: {trouble}");
        }
    }
}
