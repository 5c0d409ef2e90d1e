//! How many workers a load needs, between `min_workers` and `max_workers`: the decision only, from samples taken once a
//! second.
//!
//! - More, as soon as requests are late or the workers busy for [`PRESSURE_SAMPLES`] samples in a row: twice as many if most
//!   requests are late, else a quarter more. Then it waits until the new ones are ready and have taken their share.
//! - Fewer, a quarter at most, when for a while (the *patience*) no request was late, and the rest would be at most
//!   [`BUSY_AFTER`] busy.
//! - If more are needed soon after there were made fewer, the patience doubles, so that a load that comes and goes does not
//!   start and stop workers all the time.

/// Workers that serve, and what they have done since the last sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// The number of workers that are ready.
    pub(super) ready: usize,
    /// How busy these are, from 0 to 1.
    pub(super) busy: f64,
    /// Requests whose queueing time was measured.
    pub(super) measured: u64,
    /// Those of them that waited long for a worker.
    pub(super) late: u64,
}

/// The numbers of workers to stay between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) min: usize,
    pub(super) max: usize,
}

/// Decides from samples.
#[derive(Debug)]
pub(super) struct Scaler {
    /// The samples in a row that show too much load.
    pressed: u32,
    /// The largest need, as the number of busy workers, in the current calm period.
    needed: f64,
    calm_since_ns: u64,
    /// How long a load must be small before there are fewer workers.
    patience_ns: u64,
    /// When the number last changed, and when it was last made smaller.
    changed_ns: u64,
    shrunk_ns: Option<u64>,
}

impl Scaler {
    /// Creates a scaler for a number of workers that was set at `now_ns`.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            pressed: 0,
            needed: 0.0,
            calm_since_ns: now_ns,
            patience_ns: PATIENCE_MIN_NS,
            changed_ns: now_ns,
            shrunk_ns: None,
        }
    }

    /// Takes a sample, and returns the number of workers to have instead of `target`, if another.
    pub(super) fn sample(
        &mut self,
        now_ns: u64,
        load: Load,
        target: usize,
        range: Range,
    ) -> Option<usize> {
        // Until then the load is that of too few workers.
        let settling = load.ready < target || now_ns < self.changed_ns + SETTLE_NS;
        let is_late = load.late * LATE_SHARE >= load.measured.max(1);
        if is_late || load.busy >= BUSY_MAX {
            self.start_calm(now_ns);
            self.pressed = if settling { 0 } else { self.pressed + 1 };
            let enough = target >= range.max || self.pressed < PRESSURE_SAMPLES;
            return (!enough).then(|| self.grow(now_ns, load, target, range.max));
        }
        self.pressed = 0;
        self.needed = self.needed.max(load.busy * load.ready as f64);
        let is_calm = !settling && now_ns >= self.calm_since_ns + self.patience_ns;
        if !is_calm || target <= range.min {
            return None;
        }
        let enough = (self.needed / BUSY_AFTER).ceil() as usize;
        let fewer = enough.max(target - target.div_ceil(4)).max(range.min);
        self.start_calm(now_ns);
        if fewer >= target {
            return None;
        }
        self.shrink(now_ns);
        Some(fewer)
    }

    fn grow(&mut self, now_ns: u64, load: Load, target: usize, max: usize) -> usize {
        if self.shrunk_ns.take().is_some_and(|shrunk_ns| self.is_soon_after(shrunk_ns, now_ns)) {
            self.patience_ns = (2 * self.patience_ns).min(PATIENCE_MAX_NS);
        }
        self.pressed = 0;
        self.changed_ns = now_ns;
        let most_are_late = load.late > 0 && 2 * load.late >= load.measured;
        let more = if most_are_late { target } else { target.div_ceil(4) };
        (target + more.max(1)).min(max)
    }

    fn shrink(&mut self, now_ns: u64) {
        // The last time was right.
        if self.shrunk_ns.is_some_and(|shrunk_ns| !self.is_soon_after(shrunk_ns, now_ns)) {
            self.patience_ns = PATIENCE_MIN_NS;
        }
        self.shrunk_ns = Some(now_ns);
        self.changed_ns = now_ns;
    }

    fn is_soon_after(&self, shrunk_ns: u64, now_ns: u64) -> bool {
        now_ns < shrunk_ns + 2 * self.patience_ns
    }

    fn start_calm(&mut self, now_ns: u64) {
        self.calm_since_ns = now_ns;
        self.needed = 0.0;
    }
}

/// Samples in a row that must show too much load.
const PRESSURE_SAMPLES: u32 = 2;
/// Too much load: one in this many measured requests was late.
const LATE_SHARE: u64 = 20;
/// Too much load: the workers are as busy.
const BUSY_MAX: f64 = 0.85;
/// How busy the remaining workers may be if there are fewer.
const BUSY_AFTER: f64 = 0.6;
/// How long new workers need for their share of the load.
const SETTLE_NS: u64 = 2_000_000_000;
/// The shortest and the longest patience.
const PATIENCE_MIN_NS: u64 = 30_000_000_000;
const PATIENCE_MAX_NS: u64 = 480_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const RANGE: Range = Range { min: 2, max: 40 };

    /// Workers under a load that is given as the number of workers that it keeps busy. A new worker is ready after some
    /// seconds. Requests that no worker can serve wait.
    struct Simulation {
        scaler: Scaler,
        second: u64,
        target: usize,
        ready: usize,
        boot_seconds: u64,
        booting: Vec<u64>,
        /// Work that waits, in seconds of one worker, and the longest that was seen.
        backlog: f64,
        changes: Vec<(u64, usize)>,
        late_seconds: u64,
    }

    impl Simulation {
        fn new(workers: usize, boot_seconds: u64) -> Self {
            Self {
                scaler: Scaler::new(0),
                second: 0,
                target: workers,
                ready: workers,
                boot_seconds,
                booting: Vec::new(),
                backlog: 0.0,
                changes: Vec::new(),
                late_seconds: 0,
            }
        }

        fn run(&mut self, seconds: u64, load: impl Fn(u64) -> f64) {
            for _ in 0..seconds {
                self.second += 1;
                let booted = self.booting.extract_if(.., |at| *at <= self.second).count();
                self.ready += booted;
                let demand = self.backlog + load(self.second);
                let served = demand.min(self.ready as f64);
                self.backlog = demand - served;
                let is_late = self.backlog > 0.02 * self.ready as f64;
                self.late_seconds += u64::from(is_late);
                let sample = Load {
                    ready: self.ready,
                    busy: served / self.ready as f64,
                    measured: 100,
                    late: if is_late { 100 } else { 0 },
                };
                let now_ns = self.second * SECOND_NS;
                if let Some(target) = self.scaler.sample(now_ns, sample, self.target, RANGE) {
                    self.set(target);
                }
            }
        }

        fn set(&mut self, target: usize) {
            assert!((RANGE.min..=RANGE.max).contains(&target) && target != self.target);
            self.changes.push((self.second, target));
            if target > self.target {
                let more = target - self.target;
                self.booting.extend([self.second + self.boot_seconds].repeat(more));
            } else {
                self.ready = target;
            }
            self.target = target;
        }
    }

    #[test]
    fn a_tenfold_step_is_met_within_half_a_minute_and_left_slowly() {
        let mut simulation = Simulation::new(2, 1);
        simulation.run(120, |_| 1.0);
        assert_eq!(simulation.changes, [], "two are enough, and the minimum");
        simulation.run(300, |_| 10.0);
        assert!(simulation.late_seconds < 30, "late for {} s", simulation.late_seconds);
        assert!((12..=17).contains(&simulation.target), "{:?}", simulation.changes);
        let (last, _) = simulation.changes[simulation.changes.len() - 1];
        assert!(last < 420 - 120, "it is steady: {:?}", simulation.changes);
        let late = simulation.late_seconds;
        simulation.run(600, |_| 1.0);
        assert_eq!((simulation.target, simulation.late_seconds), (2, late));
    }

    #[test]
    fn a_steady_load_changes_nothing_once_it_is_met() {
        for load in 1..=30 {
            let mut simulation = Simulation::new(2, 3);
            simulation.run(1200, |_| f64::from(load));
            let before = simulation.changes.len();
            simulation.run(3600, |_| f64::from(load));
            assert_eq!(simulation.changes.len(), before, "{load}: {:?}", simulation.changes);
        }
    }

    #[test]
    fn a_load_that_comes_and_goes_does_not_make_it_flap() {
        for period in [4, 20, 60, 90] {
            let mut simulation = Simulation::new(2, 1);
            let wave = |second: u64| if (second / period).is_multiple_of(2) { 12.0 } else { 2.0 };
            simulation.run(600, wave);
            let before = simulation.changes.len();
            simulation.run(3600, wave);
            let changes = simulation.changes.len() - before;
            assert!(changes <= 24, "a period of {period} s: {changes} changes in an hour");
        }
    }

    #[test]
    fn noise_around_the_limit_does_not_make_it_flap() {
        let mut simulation = Simulation::new(4, 1);
        let noisy = |second: u64| 3.0 + (second * 7919 % 13) as f64 / 12.0;
        simulation.run(300, noisy);
        let before = simulation.changes.len();
        simulation.run(3600, noisy);
        let changes = simulation.changes.len() - before;
        assert!(changes <= 4, "{:?}", simulation.changes);
    }

    #[test]
    fn it_stays_in_its_range() {
        let mut simulation = Simulation::new(2, 1);
        simulation.run(300, |_| 1000.0);
        assert_eq!(simulation.target, RANGE.max);
        simulation.backlog = 0.0;
        simulation.run(3600, |_| 0.0);
        assert_eq!(simulation.target, RANGE.min);
    }

    #[test]
    fn a_worker_that_does_not_boot_stops_the_growth() {
        let mut simulation = Simulation::new(2, 10_000);
        simulation.run(300, |_| 10.0);
        assert_eq!(simulation.changes.len(), 1, "{:?}", simulation.changes);
    }
}
