//! The clock of arbiter, molds and workers: `CLOCK_MONOTONIC`, in nanoseconds. It is the same for all processes
//! of a machine, and changes of the wall clock do not affect it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Returns nanoseconds since an arbitrary start, the same for every process. Never 0, so that 0 can mean "not
/// yet" wherever a time is stored.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(1, |time| {
        (time.tv_sec() as u64).saturating_mul(NANOS_PER_SECOND) + time.tv_nsec() as u64
    })
}

/// Converts a duration to nanoseconds, saturating at the largest value.
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the time from `start_ns` to `end_ns`; zero if the end lies before the start.
pub fn between(start_ns: u64, end_ns: u64) -> Duration {
    Duration::from_nanos(end_ns.saturating_sub(start_ns))
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_is_never_zero() {
        let first = now_ns();
        let second = now_ns();
        assert!(first > 0);
        assert!(second >= first);
        assert_eq!(between(second, first.min(second)), Duration::ZERO);
    }
}
