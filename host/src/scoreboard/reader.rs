//! The view of a slot for other processes than its owner: the arbiter and the monitoring process. The identity of
//! the worker comes from the arbiter. Everything else is a claim of the worker, which may be wrong or
//! half-written: every length is bounded, every number made plausible.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::WorkerState;
use super::layout::{
    Counts, InFlight, LATENCY_BUCKETS, QUEUED_BUCKETS, STATUS_MIN, Slot, SlotOwner,
};
use crate::clock;

/// Reads one slot.
#[derive(Clone, Copy)]
pub struct SlotReader {
    owner: &'static SlotOwner,
    slot: &'static Slot,
}

/// A snapshot of a worker's counters. Each is consistent; together they may be an instant apart.
#[derive(Debug, Clone)]
pub struct SlotSnapshot {
    /// Process ID; 0 until the arbiter knows it.
    pub pid: u32,
    /// Number of its generation.
    pub generation: u32,
    /// Spawn number among all workers of this arbiter: the smallest is the oldest.
    pub age: u64,
    /// State.
    pub state: WorkerState,
    /// Number of exchanges in progress.
    pub held: u32,
    /// Time of its fork, in nanoseconds.
    pub forked_ns: u64,
    /// Time at which it became ready; 0 if it has not.
    pub ready_ns: u64,
    /// Time of its last heartbeat.
    pub heartbeat_ns: u64,
    /// Totals.
    pub totals: Totals,
    /// Number of open connections.
    pub connections: u64,
    /// Number of open connections that carry another protocol.
    pub upgraded: u64,
    /// Number of busy threads or greenlets, and their maximum; both 0 if the worker class has none.
    pub busy_request_slots: u64,
    /// See above.
    pub request_slots: u64,
    /// Signal that stopped it and the process that sent it.
    pub ended_by: Option<(i32, u32)>,
    /// Why it exited, in its own words.
    pub last_words: Option<String>,
}

/// Totals of one worker, or of all exited workers of a class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Exchanges finished.
    pub requests: u64,
    /// The same by status, without those that never occurred.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Sum of the durations of exchanges, in microseconds.
    pub duration_us: u64,
    /// WebSocket messages received.
    pub messages_received: u64,
    /// WebSocket messages sent.
    pub messages_sent: u64,
    /// Exchanges by duration; see [`super::bucket_limit_us`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// Sum of the queueing times of sampled requests, in microseconds.
    pub queued_us: u64,
    /// Sampled requests by queueing time; see [`super::queued_limit_us`].
    pub queued: [u64; QUEUED_BUCKETS],
}

impl Totals {
    pub(super) fn read(counts: &Counts) -> Self {
        let read = plausible;
        let statuses = counts.statuses.iter().map(read).enumerate();
        Self {
            accepted: read(&counts.accepted),
            requests: read(&counts.requests),
            statuses: statuses
                .filter(|(_, count)| *count > 0)
                .map(|(index, count)| (STATUS_MIN + index as u16, count))
                .collect(),
            bytes_in: read(&counts.bytes_in),
            bytes_out: read(&counts.bytes_out),
            duration_us: read(&counts.duration_us),
            messages_received: read(&counts.messages_received),
            messages_sent: read(&counts.messages_sent),
            latency: counts.latency.each_ref().map(read),
            queued_us: read(&counts.queued_us),
            queued: counts.queued.each_ref().map(read),
        }
    }

    /// Adds the totals of others. A slot may contain anything: sums wrap.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(more);
        add(&mut self.accepted, other.accepted);
        add(&mut self.requests, other.requests);
        add(&mut self.bytes_in, other.bytes_in);
        add(&mut self.bytes_out, other.bytes_out);
        add(&mut self.duration_us, other.duration_us);
        add(&mut self.messages_received, other.messages_received);
        add(&mut self.messages_sent, other.messages_sent);
        for (status, count) in &other.statuses {
            add(self.statuses.entry(*status).or_default(), *count);
        }
        add(&mut self.queued_us, other.queued_us);
        for (sum, more) in self.latency.iter_mut().zip(other.latency) {
            add(sum, more);
        }
        for (sum, more) in self.queued.iter_mut().zip(other.queued) {
            add(sum, more);
        }
    }
}

/// A request in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlightRequest {
    /// Method and target, truncated.
    pub text: String,
    /// Time at which it started.
    pub start_ns: u64,
}

impl SlotReader {
    pub(super) fn new(owner: &'static SlotOwner, slot: &'static Slot) -> Self {
        Self { owner, slot }
    }

    /// Process ID of the worker, as verified by the arbiter; 0 until then.
    pub fn pid(&self) -> u32 {
        self.owner.pid.load(Ordering::Acquire)
    }

    /// Returns its state.
    pub fn state(&self) -> WorkerState {
        match WorkerState::from_number(self.slot.state.load(Ordering::Acquire)) {
            // It has not entered the slot yet.
            WorkerState::Empty => WorkerState::Booting,
            state => state,
        }
    }

    /// Returns the time of its last heartbeat. A time in the future does not count.
    pub fn heartbeat_ns(&self) -> u64 {
        let heartbeat_ns = self.slot.heartbeat_ns.load(Ordering::Acquire);
        if heartbeat_ns > clock::now_ns() { 0 } else { heartbeat_ns }
    }

    /// Returns a snapshot of all values.
    pub fn snapshot(&self) -> SlotSnapshot {
        let (owner, slot) = (self.owner, self.slot);
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        // A gauge that a class decremented below zero is zero.
        let gauge =
            |number: &AtomicU64| u64::try_from(read(number) as i64).unwrap_or(0).min(GAUGE_MAX);
        let held =
            u32::try_from(slot.held.load(Ordering::Relaxed) as i32).unwrap_or(0).min(HELD_MAX);
        let ended_by = match slot.ended_by_signal.load(Ordering::Acquire) {
            0 => None,
            signal => i32::try_from(signal)
                .ok()
                .map(|signal| (signal, slot.ended_by_pid.load(Ordering::Relaxed))),
        };
        let last_words = match load_text(&slot.last_words, &slot.last_words_length) {
            text if text.is_empty() => None,
            text => Some(text),
        };
        SlotSnapshot {
            pid: self.pid(),
            generation: owner.generation.load(Ordering::Relaxed),
            age: read(&owner.age),
            state: self.state(),
            held,
            forked_ns: read(&owner.forked_ns),
            ready_ns: read(&slot.ready_ns),
            heartbeat_ns: self.heartbeat_ns(),
            totals: Totals::read(&slot.counts),
            connections: gauge(&slot.connections),
            upgraded: gauge(&slot.upgraded),
            busy_request_slots: gauge(&slot.busy_request_slots),
            request_slots: gauge(&slot.request_slots),
            ended_by,
            last_words,
        }
    }

    /// Returns its requests in progress, oldest first.
    pub fn in_flight(&self) -> Vec<InFlightRequest> {
        let mut requests: Vec<_> = self.slot.in_flight.iter().filter_map(read_entry).collect();
        requests.sort_by_key(|request| request.start_ns);
        requests
    }
}

/// Reads an entry consistently, or not at all if its writer keeps changing it or died in the middle.
fn read_entry(entry: &InFlight) -> Option<InFlightRequest> {
    (0..READ_ATTEMPTS_MAX)
        .find_map(|_| {
            let before = entry.version.load(Ordering::Acquire);
            let start_ns = entry.start_ns.load(Ordering::Relaxed);
            let text = load_text(&entry.text, &entry.text_length);
            fence(Ordering::Acquire);
            let whole = before.is_multiple_of(2) && before == entry.version.load(Ordering::Relaxed);
            whole.then_some(InFlightRequest { text, start_ns })
        })
        .filter(|request| request.start_ns != 0)
}

/// Returns a plausible count: a value that no worker can reach is treated as 0.
pub(super) fn plausible(count: &AtomicU64) -> u64 {
    match count.load(Ordering::Relaxed) {
        count if count > COUNT_MAX => 0,
        count => count,
    }
}

pub(super) fn load_text(words: &[AtomicU64], length: &AtomicU64) -> String {
    let length = (length.load(Ordering::Acquire) as usize).min(words.len() * 8);
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
        .take(length)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// More than a hundred years of one count per microsecond.
const COUNT_MAX: u64 = 1 << 52;
/// More connections and threads than a process can have.
const GAUGE_MAX: u64 = 1 << 24;
const HELD_MAX: u32 = 1 << 24;
/// A writer needs some nanoseconds; the reader does not wait for one that was stopped in the middle.
const READ_ATTEMPTS_MAX: usize = 16;
