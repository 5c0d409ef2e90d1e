//! The type of every time limit in the kit.

use std::time::Duration;

use crate::clock::{nanoseconds, now_ns};

/// A point in monotonic time at which a wait ends, or never. Of two deadlines, the lesser is the earlier one, and
/// [`Deadline::NEVER`] is later than all others: `min` returns the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(u64::MAX);
    /// A deadline that has passed: for a check that does not wait.
    pub const PAST: Self = Self(0);

    /// Returns the deadline at a monotonic time in nanoseconds; the greatest number means never.
    pub const fn at_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Returns the deadline `limit` after `from_ns`; never without a limit.
    pub fn after(from_ns: u64, limit: Option<Duration>) -> Self {
        limit.map_or(Self::NEVER, |limit| Self(from_ns.saturating_add(nanoseconds(limit))))
    }

    /// Returns the deadline `limit` from now.
    pub fn from_now(limit: Duration) -> Self {
        Self::after(now_ns(), Some(limit))
    }

    /// Returns the deadline of an exchange as it crosses the ABI, where 0 means never.
    pub fn from_abi(ns: u64) -> Self {
        if ns == 0 { Self::NEVER } else { Self(ns) }
    }

    /// Returns the deadline as it crosses the ABI.
    pub fn to_abi(self) -> u64 {
        if self == Self::NEVER { 0 } else { self.0 }
    }

    /// Returns whether there is no deadline.
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    /// Returns whether the deadline has passed at `now_ns`.
    pub fn is_past_at(self, now_ns: u64) -> bool {
        self.0 <= now_ns
    }

    /// Returns whether the deadline has passed. Reads the clock only if there is one.
    pub fn is_past(self) -> bool {
        !self.is_never() && self.is_past_at(now_ns())
    }

    /// Returns the nanoseconds that are left at `now_ns`: 0 if the deadline has passed, the greatest number if there
    /// is none.
    pub fn left_ns_at(self, now_ns: u64) -> u64 {
        if self.is_never() { u64::MAX } else { self.0.saturating_sub(now_ns) }
    }

    /// Returns the time that is left: zero if the deadline has passed, `None` if there is none.
    pub fn left(self) -> Option<Duration> {
        (!self.is_never()).then(|| Duration::from_nanos(self.left_ns_at(now_ns())))
    }

    /// Returns the deadline as a monotonic time in nanoseconds; the greatest number for never.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// Returns the deadline `more_ns` later.
    #[must_use]
    pub fn later_by(self, more_ns: u64) -> Self {
        Self(self.0.saturating_add(more_ns))
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_later_than_any() {
        assert_eq!(Deadline::NEVER.min(Deadline::at_ns(5)), Deadline::at_ns(5));
        assert_eq!(Deadline::at_ns(5).min(Deadline::at_ns(3)), Deadline::at_ns(3));
        assert!(!Deadline::NEVER.is_past());
        assert_eq!(Deadline::NEVER.later_by(7), Deadline::NEVER);
        assert_eq!(Deadline::NEVER.left(), None);
    }

    #[test]
    fn a_deadline_passes_at_its_time() {
        let deadline = Deadline::after(5, Some(Duration::from_nanos(7)));
        assert_eq!(deadline, Deadline::at_ns(12));
        assert_eq!(Deadline::after(5, None), Deadline::NEVER);
        assert!(!deadline.is_past_at(11));
        assert!(deadline.is_past_at(12));
        assert_eq!((deadline.left_ns_at(10), deadline.left_ns_at(13)), (2, 0));
    }

    #[test]
    fn none_is_zero_in_the_abi() {
        assert_eq!(Deadline::from_abi(0), Deadline::NEVER);
        assert_eq!(Deadline::NEVER.to_abi(), 0);
        assert_eq!(Deadline::from_abi(5).to_abi(), 5);
    }
}
