//! Memory use of workers: they are replaced gracefully above the configured limit, and logged whenever it has
//! doubled.

use super::Arbiter;
use super::generation::Stage;
use super::handles::{WorkerHandle, WorkerStage};
use crate::process::{self, memory_kib};
use crate::scoreboard::Event;

impl Arbiter {
    /// Returns the time of the next measurement.
    pub(super) fn next_measurement(&self) -> u64 {
        let limited = self
            .generations
            .iter()
            .any(|generation| generation.settings.max_worker_memory.is_some());
        self.measured_ns + if limited { PERIOD_LIMITED_NS } else { PERIOD_NS }
    }

    /// Measures all workers, if it is time.
    pub(super) fn check_memory(&mut self, now_ns: u64) {
        if now_ns < self.next_measurement() {
            return;
        }
        self.measured_ns = now_ns;
        let ledger = self.scoreboard.ledger();
        for generation in self.generations.iter_mut() {
            if generation.stage == Stage::Retiring {
                continue;
            }
            let limit_kib = generation.settings.max_worker_memory.map(|bytes| bytes / 1024);
            // One at a time: a limit that is too small must not remove all workers at once.
            let mut may_replace = generation.serving() >= generation.target;
            for worker in &mut generation.workers {
                let old_enough = now_ns > worker.ready_ns + AGE_MIN_NS;
                let ready = worker.stage == WorkerStage::Ready && !worker.wants_to_retire;
                let pid = worker.pid().map_or(0, process::number);
                let Some(kib) = memory_kib(pid).filter(|_| ready && old_enough) else { continue };
                worker.note_growth(pid, kib);
                if may_replace && limit_kib.is_some_and(|limit| kib > limit) {
                    tracing::warn!(
                        "replacing worker (pid: {pid}): it uses {} MiB (max_worker_memory)",
                        kib / 1024
                    );
                    worker.wants_to_retire = true;
                    may_replace = false;
                    ledger.count(Event::WorkerTooBig);
                }
            }
        }
    }
}

impl WorkerHandle {
    /// Logs if the worker is twice as large as when this was last logged.
    fn note_growth(&mut self, pid: u32, kib: u64) {
        let before = self.mentioned_kib;
        if before == 0 {
            self.mentioned_kib = kib;
        }
        if before == 0 || kib < before + GROWTH_MIN_KIB || kib < 2 * before {
            return;
        }
        self.mentioned_kib = kib;
        tracing::warn!(
            "worker (pid: {pid}) has grown from {} to {} MiB; max_worker_memory limits it",
            before / 1024,
            kib / 1024
        );
    }
}

/// Interval between measurements with a limit, and without one.
const PERIOD_LIMITED_NS: u64 = 2_000_000_000;
const PERIOD_NS: u64 = 30_000_000_000;
/// A younger worker is not measured: it has not loaded everything yet.
const AGE_MIN_NS: u64 = 2_000_000_000;
/// Smaller growth is not worth a log line.
const GROWTH_MIN_KIB: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::handles::tests::worker;
    use super::*;

    #[test]
    fn a_worker_that_grows_is_mentioned_at_each_doubling() {
        let mut worker = worker(1, WorkerStage::Ready);
        let mut mentioned = |mib: u64| {
            let before = worker.mentioned_kib;
            worker.note_growth(1, mib * 1024);
            before != 0 && worker.mentioned_kib != before
        };
        let sizes = [50, 90, 113, 115, 200, 231, 500];
        let lines: Vec<u64> = sizes.into_iter().filter(|mib| mentioned(*mib)).collect();
        assert_eq!(lines, [115, 231, 500]);
    }
}
