//! The bytes of the scoreboard: what lies where. Every field is an atomic, so that any process may
//! read at any time what another one writes; what the fields mean is told by the views.
//!
//! ```text
//!        0                                                         4096
//!        ├ header ── magic · layout · slots · arbiter ── (rest: zero) ┤
//!     4096                                                         6144
//!        ├ slot 0 ────────────────────────────────────────────────────┤
//!        ├ slot 1 ────────────────────────────────────────────────────┤
//!          …                                        2048 bytes each
//!
//!     slot    0  pid · generation · age · state · held               (who)
//!            32  heartbeat · booted · ended_by: signal, sender        (when)
//!            56  accepted · requests · answers 1xx…5xx · bytes        (how much)
//!           128  latency: 24 buckets of u64
//!           320  last words: length, then 128 bytes of text
//!           456  in flight: 8 entries of 144 bytes
//!          1608  connections · busy places · places                     (gauges)
//!          1632  (unused)
//! ```
//!
//! Pages that nobody touches cost nothing, so the file has room for [`SLOTS_MAX`] workers always.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// How many workers there can be at a time: twice what the setting `workers` allows, since those of
/// the old generation stay until those of the new one serve.
pub const SLOTS_MAX: usize = 2048;
/// How many requests of one worker are named at a time; further ones are only counted.
pub const IN_FLIGHT_MAX: usize = 8;
/// Longest text of a request line that is kept, in bytes.
pub const REQUEST_TEXT_MAX: usize = REQUEST_WORDS * WORD;
/// Longest reason that a worker can leave behind when it ends, in bytes.
pub const LAST_WORDS_MAX: usize = LAST_WORDS_WORDS * WORD;
/// Buckets of the latency histogram: see [`bucket_limit_us`].
pub const LATENCY_BUCKETS: usize = 24;

/// The upper end of a latency bucket in microseconds: 64 µs, doubled from one to the next; the last
/// bucket has no end.
pub fn bucket_limit_us(bucket: usize) -> Option<u64> {
    (bucket + 1 < LATENCY_BUCKETS).then(|| FIRST_BUCKET_US << bucket)
}

/// The bucket that a duration belongs to.
pub(super) fn bucket_of_us(duration_us: u64) -> usize {
    let doublings = u64::BITS - (duration_us / FIRST_BUCKET_US).leading_zeros();
    (doublings as usize).min(LATENCY_BUCKETS - 1)
}

/// The first page: what the file is.
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) layout: AtomicU32,
    pub(super) slots: AtomicU32,
    pub(super) arbiter_pid: AtomicU32,
    pub(super) unused: [AtomicU32; 1019],
}

/// One worker.
#[repr(C)]
pub(super) struct Slot {
    pub(super) pid: AtomicU32,
    pub(super) generation: AtomicU32,
    pub(super) age: AtomicU64,
    pub(super) state: AtomicU32,
    pub(super) held: AtomicU32,
    pub(super) forked_ns: AtomicU64,

    pub(super) heartbeat_ns: AtomicU64,
    pub(super) ready_ns: AtomicU64,
    pub(super) ended_by_signal: AtomicU32,
    pub(super) ended_by_pid: AtomicU32,

    pub(super) accepted: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) answers: [AtomicU64; 5],
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,

    pub(super) latency: [AtomicU64; LATENCY_BUCKETS],

    pub(super) last_words_length: AtomicU64,
    pub(super) last_words: [AtomicU64; LAST_WORDS_WORDS],

    pub(super) in_flight: [InFlight; IN_FLIGHT_MAX],
    pub(super) connections: AtomicU64,
    pub(super) busy_places: AtomicU64,
    pub(super) places: AtomicU64,
    pub(super) unused: [AtomicU64; 52],
}

/// One request that a worker holds. `version` is odd while the entry is being written; a reader
/// that finds it odd, or changed after it read, reads again.
#[repr(C)]
pub(super) struct InFlight {
    pub(super) taken: AtomicU32,
    pub(super) version: AtomicU32,
    pub(super) start_ns: AtomicU64,
    pub(super) text_length: AtomicU64,
    pub(super) text: [AtomicU64; REQUEST_WORDS],
}

/// "JIMUSCOR", read as a little-endian number.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"JIMUSCOR");
/// Rises whenever the layout changes, so that a reader of another build can tell.
pub(super) const LAYOUT: u32 = 2;
pub(super) const HEADER_SIZE: usize = 4096;
pub(super) const SLOT_SIZE: usize = 2048;
/// Size of the whole file in bytes.
pub(super) const FILE_SIZE: usize = HEADER_SIZE + SLOTS_MAX * SLOT_SIZE;

const WORD: usize = 8;
const REQUEST_WORDS: usize = 15;
const LAST_WORDS_WORDS: usize = 16;
const FIRST_BUCKET_US: u64 = 64;

const _: () = {
    assert!(size_of::<Header>() == HEADER_SIZE);
    assert!(size_of::<Slot>() == SLOT_SIZE);
    assert!(size_of::<InFlight>() == 144);
    assert!(std::mem::offset_of!(Slot, heartbeat_ns) == 32);
    assert!(std::mem::offset_of!(Slot, accepted) == 56);
    assert!(std::mem::offset_of!(Slot, latency) == 128);
    assert!(std::mem::offset_of!(Slot, last_words_length) == 320);
    assert!(std::mem::offset_of!(Slot, in_flight) == 456);
    assert!(std::mem::offset_of!(Slot, connections) == 1608);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for duration_us in [0, 1, 63, 64, 65, 127, 128, 1_000, 999_999, 1 << 40] {
            let bucket = bucket_of_us(duration_us);
            assert!(bucket_limit_us(bucket).is_none_or(|limit| duration_us < limit));
            if bucket > 0 {
                let below = bucket_limit_us(bucket - 1).expect("only the last has no end");
                assert!(duration_us >= below, "{duration_us} µs in bucket {bucket}");
            }
        }
    }
}
