//! Wall-clock time as logs write it: local time with its offset from UTC.
//!
//! The C library is called for the offset only, once in each quarter of an hour: offsets change at such times,
//! and localtime takes a lock that must not be held over a fork. It is called again if the application has
//! changed the zone (Django does, by `time.tzset`), which shows in variables of the C library.

use std::ffi::{c_char, c_int, c_long};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// Time of day in the local zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalTime {
    pub(super) year: i64,
    pub(super) month: u32,
    pub(super) day: u32,
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
    /// Offset of local time from UTC, in minutes.
    pub(super) offset_minutes: i64,
}

/// Returns the seconds since 1970, to within a timer tick (usually 4 ms), without a system call.
pub(super) fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |time| time.tv_sec())
}

/// Returns the seconds since 1970, and milliseconds.
pub(super) fn now_millis() -> (i64, i64) {
    let time = clock_gettime(ClockId::CLOCK_REALTIME_COARSE);
    time.map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec() / 1_000_000))
}

/// Returns the milliseconds of a clock that is never set, to within a timer tick, without a system call.
pub(super) fn monotonic_millis() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    time.map_or(0, |time| time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000)
}

impl LocalTime {
    /// Converts `seconds` since 1970 to local time.
    pub(super) fn at(seconds: i64) -> Self {
        Self::with_offset(seconds, offset_at(seconds))
    }

    /// Converts `seconds` since 1970 to UTC.
    pub(super) fn utc(seconds: i64) -> Self {
        Self::with_offset(seconds, 0)
    }

    fn with_offset(seconds: i64, offset_minutes: i64) -> Self {
        let local = seconds + offset_minutes * 60;
        let (year, month, day) = civil(local.div_euclid(86_400));
        let of_day = local.rem_euclid(86_400) as u32;
        Self {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            offset_minutes,
        }
    }

    /// Returns the offset as `+0130`.
    pub(super) fn offset(&self) -> String {
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let minutes = self.offset_minutes.abs();
        format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }
}

/// Converts a number of days since 1970-01-01 to a date of the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is the last day of a year and the
/// lengths of months are regular.
fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month as u32, day as u32)
}

/// Returns the local zone's offset in minutes.
fn offset_at(seconds: i64) -> i64 {
    let quarter = seconds.div_euclid(900);
    let known = OFFSET.load(Ordering::Relaxed);
    if known >> 16 == quarter && ZONE.load(Ordering::Relaxed) == zone() {
        return i64::from(known as i16);
    }
    let offset = ask_offset(seconds) / 60;
    // The first call may itself read the zone.
    ZONE.store(zone(), Ordering::Relaxed);
    OFFSET.store(quarter << 16 | (offset & 0xffff), Ordering::Relaxed);
    offset
}

fn ask_offset(seconds: i64) -> i64 {
    // SAFETY: all-zero bytes are a valid `tm`: integers and a pointer that may be null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of this function; localtime_r keeps neither.
    let made = unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    if made.is_null() { 0 } else { parts.tm_gmtoff }
}

/// What distinguishes the C library's zone from another: the address of its names, and its offset.
fn zone() -> u64 {
    // SAFETY: variables of the C library, which exist for the life of the process. tzset may write them in
    // another thread; they are words that are only compared, and a wrong value costs an extra call or one
    // second of the old zone.
    let (offset, summer, names) = unsafe {
        (
            (&raw const timezone).read_volatile(),
            (&raw const daylight).read_volatile(),
            (&raw const tzname).read_volatile(),
        )
    };
    let words = [offset as u64, summer as u64, names[0] as u64, names[1] as u64];
    words.into_iter().fold(0, |sum: u64, word| sum.rotate_left(13) ^ word)
}

unsafe extern "C" {
    /// Seconds west of UTC (tzset(3)).
    static timezone: c_long;
    /// Whether the zone has daylight saving time.
    static daylight: c_int;
    /// Names of the zone without and with daylight saving time.
    static tzname: [*const c_char; 2];
}

/// The [`zone`] of the last call.
static ZONE: AtomicU64 = AtomicU64::new(0);
/// The quarter of an hour of the last call, and the offset in minutes in the low 16 bits.
static OFFSET: AtomicI64 = AtomicI64::new(i64::MIN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, (1970, 1, 1)),
            (951_782_400, (2000, 2, 29)),
            (1_709_251_199, (2024, 2, 29)),
            (1_709_251_200, (2024, 3, 1)),
            (4_107_542_400, (2100, 3, 1)),
            (-1, (1969, 12, 31)),
        ] {
            let time = LocalTime::utc(seconds);
            assert_eq!((time.year, time.month, time.day), date, "{seconds}");
        }
    }

    #[test]
    fn local_time_agrees_with_the_c_library() {
        let zone = std::env::var("TZ").ok();
        for seconds in [0, 1_700_000_000, 1_750_000_000] {
            let time = LocalTime::at(seconds);
            assert_eq!(time.offset_minutes, ask_offset(seconds) / 60, "{zone:?}");
        }
    }

    /// In a child, since the zone belongs to the process.
    #[test]
    fn a_changed_zone_counts_immediately() {
        unsafe extern "C" {
            fn tzset();
        }
        let offsets = || {
            ["UTC0", "AAA-5:30", "BBB3"].map(|zone| {
                // SAFETY: the child has one thread.
                unsafe {
                    std::env::set_var("TZ", zone);
                    tzset();
                }
                LocalTime::at(1_700_000_000).offset_minutes
            })
        };
        // SAFETY: the child only computes, and exits without the exit handlers of the test process.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let right = offsets() == [0, 330, -180];
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(!right)) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let end = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(end, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn offsets_have_a_sign_and_four_digits() {
        for (minutes, text) in [(0, "+0000"), (330, "+0530"), (-210, "-0330")] {
            assert_eq!(LocalTime::with_offset(0, minutes).offset(), text);
        }
    }
}
