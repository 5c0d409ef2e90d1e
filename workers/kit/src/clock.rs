//! Monotonic time in nanoseconds, and the seconds of the Date header.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Returns the monotonic time in nanoseconds.
pub fn now_ns() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has the monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Returns the seconds since 1970, with the resolution of the kernel's tick: for the Date header.
pub fn unix_seconds() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("Linux always has the coarse clock");
    u64::try_from(now.tv_sec()).unwrap_or(0)
}

/// Converts a duration to nanoseconds, saturating at about 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
