//! The value of the Date header (RFC 9110 6.6.1), formatted once per second. The caller provides the time.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The value of Date for one second, cached until the next.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; 29],
}

impl DateCache {
    /// The value of the first second.
    pub const EPOCH: Self = Self { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" };

    /// Formats a time in seconds since 1970.
    pub fn new(unix_seconds: u64) -> Self {
        let mut text = [b' '; 29];
        let date = httpdate::HttpDate::from(
            UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_SECOND)),
        );
        // An IMF-fixdate always has 29 bytes, so this does not fail; if it did, the rest would be spaces.
        let _ = write!(&mut text[..], "{date}");
        Self { second: unix_seconds, text }
    }

    /// Returns the value for this second; formats it only if the second differs from the previous call.
    pub fn at(&mut self, unix_seconds: u64) -> &[u8; 29] {
        if unix_seconds != self.second {
            *self = Self::new(unix_seconds);
        }
        &self.text
    }
}

/// End of the year 9999: the format has no room for a fifth digit.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_imf_fixdate_and_follows_the_second() {
        let mut cache = DateCache::new(784_111_777);
        assert_eq!(cache.at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.at(0), &DateCache::EPOCH.text);
    }

    #[test]
    fn a_clock_that_has_gone_mad_is_no_reason_to_panic() {
        assert_eq!(DateCache::new(u64::MAX).at(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
