//! Monotonic time in nanoseconds, the unit of every deadline in the kit; a deadline of 0 means none.

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

/// Returns the deadline `limit` after `from_ns`; 0 (none) without a limit.
pub fn deadline_after(from_ns: u64, limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| from_ns.saturating_add(nanoseconds(limit)))
}

/// Returns the earlier of two deadlines, each of which may be 0 for none.
pub fn earlier(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, deadline) | (deadline, 0) => deadline,
        (one, other) => one.min(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_later_than_any() {
        assert_eq!(earlier(0, 5), 5);
        assert_eq!(earlier(5, 0), 5);
        assert_eq!(earlier(5, 3), 3);
        assert_eq!(earlier(0, 0), 0);
        assert_eq!(deadline_after(5, None), 0);
        assert_eq!(deadline_after(5, Some(Duration::from_nanos(7))), 12);
    }
}
