//! The memory layout of the scoreboard. Every field is an atomic, so that any process may read at any time what
//! another one writes; the views define the meaning of the fields.
//!
//! ```text
//!     ledger: the arbiter's records (32 pages), mapped by the arbiter and the status process only
//!        events · log lines · generations · listeners · counts of exited workers
//!        owners: 2048 entries of 32 bytes for workers, 64 for molds: serial · age · forked · pid · generation
//!
//!     slot: 8192 bytes, then 64 KiB for access lines; a separate file for each worker and mold
//!         0  state · held
//!         8  heartbeat · booted · ended_by: signal, sender        (when)
//!        32  last words: length, then 128 bytes of text
//!       168  in flight: 8 entries of 144 bytes
//!      1320  connections · upgraded · busy request slots · request slots      (gauges)
//!      1352  counts: totals, by duration, by time spent queued and by status
//!      5736  lines of the error log by level
//!      5800  (unused)
//!      8192  access lines: start and end in one word, then 64 bytes on the text
//! ```
//!
//! The arbiter alone writes the ledger, which identifies the workers. A worker alone writes its slot, which
//! contains the data it reports about itself.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Maximum number of workers at a time: twice the maximum of the setting `workers`, since those of the old
/// generation stay until those of the new one serve.
pub const SLOTS_MAX: usize = 2048;
/// Slots for molds, after those of workers, whose indexes appear in metrics.
pub(super) const MOLDS_MAX: usize = 64;
pub(super) const SLOTS_TOTAL: usize = SLOTS_MAX + MOLDS_MAX;
/// Number of requests of one worker whose text is kept; further ones are only counted.
pub const IN_FLIGHT_MAX: usize = 8;
/// Maximum length of a request line's text, in bytes.
pub const REQUEST_TEXT_MAX: usize = REQUEST_WORDS * WORD;
/// Maximum length of the reason that a worker can leave when it exits, in bytes.
pub const LAST_WORDS_MAX: usize = LAST_WORDS_WORDS * WORD;
/// Buckets of the latency histogram: see [`bucket_limit_us`].
pub const LATENCY_BUCKETS: usize = 24;
/// Buckets of the histogram of the time spent queued: see [`queued_limit_us`].
pub const QUEUED_BUCKETS: usize = 16;

/// Each status from here ...
pub(super) const STATUS_MIN: u16 = 100;
/// ... up to 599 has its own counter.
pub(super) const STATUSES: usize = 500;
/// Room of the ledger for generations, listeners and worker classes; further ones serve normally, but are not
/// shown.
pub(super) const GENERATIONS_MAX: usize = 16;
pub(super) const LISTENERS_MAX: usize = 64;
pub(super) const CLASSES_MAX: usize = 8;
/// Number of kinds of events that the arbiter counts.
pub(super) const EVENTS_MAX: usize = 32;

/// Returns the upper bound of a latency bucket in microseconds: 64 µs, doubled from one to the next; the last
/// bucket has none.
pub fn bucket_limit_us(bucket: usize) -> Option<u64> {
    (bucket + 1 < LATENCY_BUCKETS).then(|| FIRST_BUCKET_US << bucket)
}

/// Returns the bucket of a duration.
pub(super) fn bucket_of_us(duration_us: u64) -> usize {
    doublings(duration_us / FIRST_BUCKET_US).min(LATENCY_BUCKETS - 1)
}

/// Returns the upper bound of a bucket of the time spent queued, in microseconds: 8 ms, doubled from one to the
/// next; the last bucket has none. The kernel counts in ticks of 1 to 10 ms, so shorter waits cannot be
/// distinguished.
pub fn queued_limit_us(bucket: usize) -> Option<u64> {
    (bucket + 1 < QUEUED_BUCKETS).then(|| FIRST_QUEUED_US << bucket)
}

/// Returns the bucket of a time spent queued.
pub(super) fn queued_bucket_of_us(queued_us: u64) -> usize {
    doublings(queued_us / FIRST_QUEUED_US).min(QUEUED_BUCKETS - 1)
}

/// Returns how often 1 must be doubled to exceed a number.
fn doublings(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

/// Counters of requests: of those of one worker, or of all exited workers of a class.
#[repr(C)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) duration_us: AtomicU64,
    pub(super) messages_received: AtomicU64,
    pub(super) messages_sent: AtomicU64,
    pub(super) latency: [AtomicU64; LATENCY_BUCKETS],
    pub(super) queued_us: AtomicU64,
    pub(super) queued: [AtomicU64; QUEUED_BUCKETS],
    /// By status, from [`STATUS_MIN`] on.
    pub(super) statuses: [AtomicU64; STATUSES],
}

impl Counts {
    /// All of them, in the order of the layout.
    pub(super) fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        let single = [
            &self.accepted,
            &self.requests,
            &self.bytes_in,
            &self.bytes_out,
            &self.duration_us,
            &self.messages_received,
            &self.messages_sent,
        ];
        let queued = std::iter::once(&self.queued_us).chain(&self.queued);
        single.into_iter().chain(&self.latency).chain(queued).chain(&self.statuses)
    }
}

/// The arbiter's records, for the processes that report metrics. The arbiter writes here, and the processes
/// without plugins that it forks count their log lines.
#[repr(C)]
pub(super) struct CounterPages {
    /// Odd while counts move from a slot into `ended`: a concurrent reader would count them twice.
    pub(super) version: AtomicU32,
    /// Slots from this number on have never been used.
    pub(super) slots_used: AtomicU32,
    /// 1 while the server stops and no other arbiter serves its sockets.
    pub(super) stopping: AtomicU32,
    pub(super) started_ns: AtomicU64,
    /// Start of the server, in seconds since 1970.
    pub(super) started_at: AtomicU64,
    pub(super) events: [AtomicU64; EVENTS_MAX],
    /// Lines of the error log by level, the least severe first.
    pub(super) log_lines: [AtomicU64; LOG_LEVELS],
    pub(super) generations: [GenerationEntry; GENERATIONS_MAX],
    pub(super) listeners: [ListenerEntry; LISTENERS_MAX],
    pub(super) ended: [EndedEntry; CLASSES_MAX],
    pub(super) owners: [SlotOwner; SLOTS_TOTAL],
}

/// The owner of a slot; none if `serial` is 0.
#[repr(C)]
pub(super) struct SlotOwner {
    /// Serial number of the slot's memory among all that was ever created: a process that has mapped older
    /// memory for this slot can detect it.
    pub(super) serial: AtomicU64,
    /// 0 for a mold.
    pub(super) age: AtomicU64,
    pub(super) forked_ns: AtomicU64,
    /// 0 until the arbiter has verified the worker's process.
    pub(super) pid: AtomicU32,
    pub(super) generation: AtomicU32,
}

/// A generation; none if `id` is 0.
#[repr(C)]
pub(super) struct GenerationEntry {
    pub(super) id: AtomicU32,
    pub(super) stage: AtomicU32,
    pub(super) target: AtomicU32,
    pub(super) mold: AtomicU32,
    pub(super) started_ns: AtomicU64,
    pub(super) class: Text,
    pub(super) app: Text,
}

/// A listening socket; none if `inode` is 0.
#[repr(C)]
pub(super) struct ListenerEntry {
    pub(super) inode: AtomicU64,
    pub(super) name: Text,
}

/// Counters of the exited workers of a class; unused without a name.
#[repr(C)]
pub(super) struct EndedEntry {
    pub(super) class: Text,
    pub(super) counts: Counts,
}

/// A short text: its length, and as many bytes as there is room for.
#[repr(C)]
pub(super) struct Text {
    pub(super) length: AtomicU64,
    pub(super) words: [AtomicU64; TEXT_WORDS],
}

/// The data that one worker reports about itself.
#[repr(C)]
pub(super) struct Slot {
    pub(super) state: AtomicU32,
    pub(super) held: AtomicU32,

    pub(super) heartbeat_ns: AtomicU64,
    pub(super) ready_ns: AtomicU64,
    pub(super) ended_by_signal: AtomicU32,
    pub(super) ended_by_pid: AtomicU32,

    pub(super) last_words_length: AtomicU64,
    pub(super) last_words: [AtomicU64; LAST_WORDS_WORDS],

    pub(super) in_flight: [InFlight; IN_FLIGHT_MAX],
    pub(super) connections: AtomicU64,
    pub(super) upgraded: AtomicU64,
    pub(super) busy_request_slots: AtomicU64,
    pub(super) request_slots: AtomicU64,
    pub(super) counts: Counts,
    pub(super) log_lines: [AtomicU64; LOG_LEVELS],
    pub(super) unused: [AtomicU64; 299],
}

/// All shared memory of a worker: the content of its file.
#[repr(C)]
pub(super) struct SlotPages {
    pub(super) slot: Slot,
    pub(super) lines: LinePages,
}

/// Lines of the access log that have not been written to it yet; see [`super::lines`].
#[repr(C, align(64))]
pub(super) struct LinePages {
    /// Start and end of the lines, in the high and the low half.
    pub(super) span: AtomicU64,
    pub(super) _unused: [u64; 7],
    /// Not atomics, so that a line is one copy: only the process that owns the slot writes here, and others
    /// read with volatile loads.
    pub(super) text: UnsafeCell<[u8; LINES_BYTES]>,
}

// SAFETY: `text` is reached only through raw pointers, by the rule above.
unsafe impl Sync for LinePages {}

/// A request that a worker holds. `version` is odd while the entry is being written; a reader that finds it odd,
/// or changed after reading, reads again.
#[repr(C)]
pub(super) struct InFlight {
    pub(super) taken: AtomicU32,
    pub(super) version: AtomicU32,
    pub(super) start_ns: AtomicU64,
    pub(super) text_length: AtomicU64,
    pub(super) text: [AtomicU64; REQUEST_WORDS],
}

/// Levels of the error log, with room for more.
pub(super) const LOG_LEVELS: usize = 8;
pub(super) const LEDGER_SIZE: usize = 32 * 4096;
pub(super) const SLOT_SIZE: usize = 8192;
/// About 400 lines of the usual length. With it, a slot's file is a whole number of pages.
const LINE_PAGES_SIZE: usize = 64 * 1024;
pub(super) const LINES_BYTES: usize = LINE_PAGES_SIZE - 64;
/// Size of a slot's file.
pub(super) const FILE_SIZE: usize = SLOT_SIZE + LINE_PAGES_SIZE;

const WORD: usize = 8;
const REQUEST_WORDS: usize = 15;
const LAST_WORDS_WORDS: usize = 16;
const TEXT_WORDS: usize = 8;
const FIRST_BUCKET_US: u64 = 64;
const FIRST_QUEUED_US: u64 = 8_000;

const _: () = {
    assert!(size_of::<CounterPages>() <= LEDGER_SIZE);
    assert!(size_of::<SlotOwner>() == 32);
    assert!(size_of::<Slot>() == SLOT_SIZE);
    assert!(size_of::<LinePages>() == LINE_PAGES_SIZE);
    assert!(size_of::<SlotPages>() == FILE_SIZE);
    assert!(std::mem::offset_of!(SlotPages, lines) == SLOT_SIZE);
    assert!(std::mem::offset_of!(LinePages, text) == 64);
    assert!(size_of::<InFlight>() == 144);
    assert!(std::mem::offset_of!(Slot, heartbeat_ns) == 8);
    assert!(std::mem::offset_of!(Slot, last_words_length) == 32);
    assert!(std::mem::offset_of!(Slot, in_flight) == 168);
    assert!(std::mem::offset_of!(Slot, connections) == 1320);
    assert!(std::mem::offset_of!(Slot, counts) == 1352);
    assert!(std::mem::offset_of!(Slot, log_lines) == 5736);
    assert!(std::mem::offset_of!(Slot, unused) == 5800);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_above_it() {
        for duration_us in [0, 1, 63, 64, 65, 127, 128, 1_000, 999_999, 1 << 40] {
            let bucket = bucket_of_us(duration_us);
            assert!(bucket_limit_us(bucket).is_none_or(|limit| duration_us < limit));
            if bucket > 0 {
                let below = bucket_limit_us(bucket - 1).expect("only the last has no end");
                assert!(duration_us >= below, "{duration_us} µs in bucket {bucket}");
            }
        }
    }

    #[test]
    fn a_time_spent_queued_is_counted_in_the_first_bucket_above_it() {
        for queued_us in [0, 7_999, 8_000, 15_999, 16_000, 500_000, 131_071_999, 131_072_000] {
            let bucket = queued_bucket_of_us(queued_us);
            assert!(queued_limit_us(bucket).is_none_or(|limit| queued_us < limit));
            let below = bucket.checked_sub(1).and_then(queued_limit_us).unwrap_or(0);
            assert!(queued_us >= below, "{queued_us} µs in bucket {bucket}");
        }
    }
}
