//! The transfer rate in one direction of an exchange, to cut clients that are too slow.
//!
//! Only the time counts for which the server waits for the client, not the time that the application takes.

use std::time::Duration;

use crate::clock::{nanoseconds, now_ns};
use crate::deadline::Deadline;

/// The bytes transferred and the time spent waiting for them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct TransferRate {
    bytes: u64,
    waited_ns: u64,
    waiting_since_ns: u64,
}

impl TransferRate {
    /// Records a transfer of bytes, which ends a wait.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.waiting_since_ns != 0 {
            self.waited_ns += now_ns().saturating_sub(self.waiting_since_ns);
            self.waiting_since_ns = 0;
        }
    }

    /// Returns the number of bytes transferred.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns for how long the server waits for another `bytes`, at the rate of those transferred.
    pub(crate) fn expected_ns(&self, bytes: u64) -> u64 {
        let expected =
            u128::from(self.waited_ns) * u128::from(bytes) / u128::from(self.bytes.max(1));
        u64::try_from(expected).unwrap_or(u64::MAX)
    }

    /// Starts or continues a wait for the client, and returns its deadline.
    ///
    /// The wait may last for `standstill` without a byte. All waits together may last as long as the transfer
    /// takes at `rate` bytes per second, plus one `standstill`.
    pub(crate) fn deadline(&mut self, standstill: Option<Duration>, rate: u64) -> Deadline {
        if self.waiting_since_ns == 0 {
            self.waiting_since_ns = now_ns();
        }
        let Some(standstill) = standstill else { return Deadline::NEVER };
        let still = Deadline::after(self.waiting_since_ns, Some(standstill));
        if rate == 0 {
            return still;
        }
        let allowed_ns =
            nanoseconds(standstill).saturating_add(self.bytes.saturating_mul(1_000_000_000) / rate);
        let left_ns = allowed_ns.saturating_sub(self.waited_ns);
        still.min(Deadline::at_ns(self.waiting_since_ns).later_by(left_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_trickles_gets_no_more_than_the_free_time() {
        let free = Some(Duration::from_secs(5));
        let mut rate = TransferRate { bytes: 4, waited_ns: 4_000_000_000, waiting_since_ns: 0 };
        let left = rate.deadline(free, 240).left_ns_at(now_ns());
        assert!(left < 1_100_000_000, "4 bytes in 4 s at 240 a second leave about 1 s: {left} ns");
    }

    #[test]
    fn a_client_that_is_fast_enough_may_stand_still_for_the_whole_limit() {
        let free = Some(Duration::from_secs(5));
        let mut rate =
            TransferRate { bytes: 1_000_000, waited_ns: 4_000_000_000, waiting_since_ns: 0 };
        let left = rate.deadline(free, 240).left_ns_at(now_ns());
        assert!(left > 4_900_000_000, "{left} ns");
    }

    #[test]
    fn the_rest_is_expected_at_the_rate_so_far() {
        let mut rate = TransferRate { bytes: 100_000, waited_ns: 0, waiting_since_ns: 0 };
        assert_eq!(rate.expected_ns(1_000_000), 0);
        rate.waited_ns = 2_000_000;
        assert_eq!(rate.expected_ns(1_000_000), 20_000_000);
        assert_eq!(rate.expected_ns(u64::MAX), u64::MAX);
        assert_eq!(TransferRate::default().expected_ns(1), 0);
    }

    #[test]
    fn without_a_limit_there_is_no_deadline() {
        assert_eq!(TransferRate::default().deadline(None, 240), Deadline::NEVER);
    }
}
