//! Monotonic time in nanoseconds, the unit of every deadline in the kit; 0 stands for "no deadline".

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The monotonic clock now, in nanoseconds.
pub fn now_ns() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has the monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The time of day in seconds since 1970, as exact as the kernel's last tick: for the Date field.
pub fn unix_seconds() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("Linux always has the coarse clock");
    u64::try_from(now.tv_sec()).unwrap_or(0)
}

/// A duration in nanoseconds, at most some 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The deadline that lies `limit` after `from_ns`; 0, none, where there is no limit.
pub fn deadline_after(from_ns: u64, limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| from_ns.saturating_add(nanoseconds(limit)))
}

/// The earlier of two deadlines, of which each may be 0 for none.
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
