//! How fast bytes move in one direction of an exchange, so that a client that is too slow is cut.
//!
//! What counts is the time that the server waits for the client, not the time that the application takes.

use std::time::Duration;

use crate::clock::{deadline_after, earlier, nanoseconds, now_ns};

/// The bytes that moved and the time that was waited for them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct TransferRate {
    bytes: u64,
    waited_ns: u64,
    waiting_since_ns: u64,
}

impl TransferRate {
    /// So many bytes moved: the wait for them is over.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.waiting_since_ns != 0 {
            self.waited_ns += now_ns().saturating_sub(self.waiting_since_ns);
            self.waiting_since_ns = 0;
        }
    }

    /// How many bytes moved in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A wait for the client begins or goes on: until when it may, in monotonic nanoseconds; 0 for ever.
    ///
    /// It may last `standstill` without an byte, and altogether so long that at least `rate` bytes a second moved,
    /// the first `standstill` being free.
    pub(crate) fn deadline(&mut self, standstill: Option<Duration>, rate: u64) -> u64 {
        if self.waiting_since_ns == 0 {
            self.waiting_since_ns = now_ns();
        }
        let Some(standstill) = standstill else { return 0 };
        let still = deadline_after(self.waiting_since_ns, Some(standstill));
        if rate == 0 {
            return still;
        }
        let allowed_ns =
            nanoseconds(standstill).saturating_add(self.bytes.saturating_mul(1_000_000_000) / rate);
        let slow = self.waiting_since_ns.saturating_add(allowed_ns.saturating_sub(self.waited_ns));
        earlier(still, slow.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_trickles_gets_no_more_than_the_free_time() {
        let free = Some(Duration::from_secs(5));
        let mut pace = TransferRate { bytes: 4, waited_ns: 4_000_000_000, waiting_since_ns: 0 };
        let left = pace.deadline(free, 240) - now_ns();
        assert!(left < 1_100_000_000, "4 bytes in 4 s at 240 a second leave about 1 s: {left} ns");
    }

    #[test]
    fn a_client_that_is_fast_enough_may_stand_still_for_the_whole_limit() {
        let free = Some(Duration::from_secs(5));
        let mut pace =
            TransferRate { bytes: 1_000_000, waited_ns: 4_000_000_000, waiting_since_ns: 0 };
        let left = pace.deadline(free, 240) - now_ns();
        assert!(left > 4_900_000_000, "{left} ns");
    }

    #[test]
    fn without_a_limit_there_is_no_deadline() {
        assert_eq!(TransferRate::default().deadline(None, 240), 0);
    }
}
