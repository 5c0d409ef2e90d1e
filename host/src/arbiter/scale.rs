//! The number of workers between `min_workers` and `max_workers`: takes a sample of the workers once a second, and sets the
//! number that [`Scaler`] decides.

use std::collections::HashMap;
use std::time::Duration;

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::handles::WorkerHandle;
use super::scaler::{Load, Range, Scaler};
use super::stop::Phase;
use crate::clock;
use crate::process;
use crate::scoreboard::{QUEUED_BUCKETS, Scoreboard, SlotSnapshot, queued_limit_us};
use crate::settings::Settings;

/// What is known from the last sample.
pub(super) struct Scaling {
    scaler: Scaler,
    sampled_ns: u64,
    /// Of each worker, by its age.
    seen: HashMap<u64, Seen>,
}

/// The totals of a worker.
#[derive(Clone, Copy, Default)]
struct Seen {
    measured: u64,
    late: u64,
    computed: Duration,
    /// How long requests have occupied places: those that have ended, and those in progress as far as they are known.
    occupied: Duration,
}

impl Arbiter {
    /// Returns the number of workers with which a new generation starts.
    pub(super) fn workers_at_start(&self, settings: &Settings) -> usize {
        let Some(range) = range_of(settings) else { return settings.workers };
        let current = self.generations.in_stage(Stage::Serving).filter(|_| !self.workers_stopped);
        let number = current.map_or(settings.workers, |generation| generation.target);
        number.clamp(range.min, range.max)
    }

    /// Returns the time of the next sample, if the number of workers is not fixed.
    pub(super) fn next_sample(&self) -> Option<u64> {
        let serving = self.generations.in_stage(Stage::Serving)?;
        serving.settings.max_workers?;
        Some(self.scaling.as_ref().map_or(0, |scaling| scaling.sampled_ns + INTERVAL_NS))
    }

    /// Changes the number of workers, if it is time and the load asks for it. During a reload or a stop it stays.
    pub(super) fn scale(&mut self, now_ns: u64) {
        if self.next_sample().is_none_or(|at_ns| now_ns < at_ns) {
            return;
        }
        let is_steady = matches!(self.phase, Phase::Running) && !self.workers_stopped;
        let is_alone =
            |generation: &Generation| matches!(generation.stage, Stage::Serving | Stage::Retiring);
        if !is_steady || !self.generations.iter().all(is_alone) {
            self.scaling = Some(Scaling::new(now_ns));
            return;
        }
        let Some(serving) = self.generations.in_stage(Stage::Serving) else { return };
        let Some(range) = range_of(&serving.settings) else { return };
        let scaling = self.scaling.get_or_insert_with(|| Scaling::new(now_ns));
        let load = scaling.sample(now_ns, serving, &self.scoreboard);
        let target = serving.target;
        if let Some(number) = scaling.scaler.sample(now_ns, load, target, range) {
            tracing::info!(
                "Scaling from {target} to {number} workers: they are {:.0} % busy, {} of {} measured requests waited for \
                 longer than {} ms",
                load.busy * 100.0,
                load.late,
                load.measured,
                LATE_US / 1000
            );
            self.change_target(|_| number);
        }
    }
}

impl Scaling {
    fn new(now_ns: u64) -> Self {
        Self { scaler: Scaler::new(now_ns), sampled_ns: now_ns, seen: HashMap::new() }
    }

    /// Returns what the workers of the generation have done since the last sample. A worker counts from its second sample
    /// on.
    fn sample(&mut self, now_ns: u64, generation: &Generation, scoreboard: &Scoreboard) -> Load {
        let passed_ns = (now_ns - self.sampled_ns).max(1);
        self.sampled_ns = now_ns;
        let before = std::mem::take(&mut self.seen);
        let mut load = Load { ready: generation.serving(), busy: 0.0, measured: 0, late: 0 };
        let mut compared = 0;
        for worker in generation.workers.iter().filter(|worker| worker.serves()) {
            let Some((slot, now)) = Seen::read(worker, scoreboard, now_ns) else { continue };
            self.seen.insert(worker.age, now);
            let Some(before) = before.get(&worker.age) else { continue };
            compared += 1;
            load.measured += now.measured.saturating_sub(before.measured);
            load.late += now.late.saturating_sub(before.late);
            let share = |time: Duration| time.as_nanos() as f64 / passed_ns as f64;
            let computing = share(now.computed.saturating_sub(before.computed));
            let places = slot.request_slots.max(1) as f64;
            let occupied = share(now.occupied.saturating_sub(before.occupied)) / places;
            // A moment alone may be one of few busy ones; the time alone includes that in which bodies arrive, which
            // occupies no place.
            load.busy += computing.max(occupied.min(occupied_now(&slot))).min(1.0);
        }
        load.busy /= f64::from(compared.max(1));
        load
    }
}

impl Seen {
    fn read(
        worker: &WorkerHandle,
        scoreboard: &Scoreboard,
        now_ns: u64,
    ) -> Option<(SlotSnapshot, Self)> {
        let reader = scoreboard.reader(worker.slot)?;
        let slot = reader.snapshot();
        if slot.age != worker.age {
            return None;
        }
        let queued = &slot.totals.queued;
        let is_late = |bucket: usize| {
            bucket > 0 && queued_limit_us(bucket - 1).is_some_and(|limit_us| limit_us >= LATE_US)
        };
        let late = (0..QUEUED_BUCKETS).filter(|bucket| is_late(*bucket));
        let in_flight = reader.in_flight();
        let ages = in_flight.iter().map(|request| clock::between(request.start_ns, now_ns));
        let seen = Self {
            measured: queued.iter().sum(),
            late: late.map(|bucket| queued[bucket]).sum(),
            computed: process::processor_time(slot.pid).unwrap_or_default(),
            occupied: Duration::from_micros(slot.totals.duration_us) + ages.sum::<Duration>(),
        };
        Some((slot, seen))
    }
}

/// Returns the share of a worker's places for requests that are occupied now. A class that does not count them has one.
fn occupied_now(slot: &SlotSnapshot) -> f64 {
    match slot.request_slots {
        0 => f64::from(slot.held.min(1)),
        slots => slot.busy_request_slots as f64 / slots as f64,
    }
}

/// Returns the numbers of workers to stay between, if the number is not fixed.
fn range_of(settings: &Settings) -> Option<Range> {
    let max = settings.max_workers?;
    Some(Range { min: settings.min_workers.unwrap_or(settings.workers).min(max), max })
}

/// How often a sample is taken.
const INTERVAL_NS: u64 = 1_000_000_000;
/// A request that has waited for longer is late: about the time that a person notices, and longer than a worker takes to
/// notice a request while others are served.
const LATE_US: u64 = 16_000;
