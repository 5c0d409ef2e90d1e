//! The worker's view of its slot. Each function is a few atomic stores without lock, allocation or any system
//! call but the clock's, so all of them may be called from any thread, and those marked as such from a signal
//! handler.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::WorkerState;
use super::layout::{
    InFlight, LAST_WORDS_MAX, REQUEST_TEXT_MAX, STATUS_MIN, Slot, bucket_of_us, queued_bucket_of_us,
};
use super::memory::{OwnLines, OwnSlot, SlotMemory};
use crate::clock;

/// Writes the slot of this process. Copies write the same slot: a worker's threads share one. In a process
/// without a slot, for example a fork of a worker, all functions have no effect.
#[derive(Clone, Copy)]
pub struct SlotWriter {
    own: &'static OwnSlot,
}

/// A request in progress, to be passed to [`SlotWriter::end_request`].
#[derive(Debug)]
#[must_use = "a request that has begun must be ended"]
pub struct InFlightToken {
    entry: Option<u8>,
}

impl InFlightToken {
    /// Converts the token to a number other than 0, for places that cannot keep this type.
    pub fn to_number(self) -> u32 {
        self.entry.map_or(u32::MAX, |entry| u32::from(entry) + 1)
    }

    /// Converts the number of [`InFlightToken::to_number`] back. Any number is safe: at worst it clears the
    /// entry of another request of the same worker.
    pub fn from_number(number: u32) -> Self {
        Self { entry: number.checked_sub(1).and_then(|entry| u8::try_from(entry).ok()) }
    }
}

impl SlotWriter {
    /// Creates a writer in a process that has no slot yet.
    pub fn new() -> nix::Result<Self> {
        Ok(Self { own: OwnSlot::new()? })
    }

    /// Takes ownership: from now on this process writes the slot.
    pub fn enter(&self, memory: SlotMemory) -> nix::Result<()> {
        self.own.enter(memory)?;
        self.set_state(WorkerState::Booting);
        self.heartbeat();
        Ok(())
    }

    fn slot(self) -> &'static Slot {
        self.own.get()
    }

    /// Returns the handle for this process's access lines, once.
    pub(super) fn take_lines(self) -> Option<OwnLines> {
        self.own.take_lines()
    }

    /// Writes the same number everywhere.
    #[cfg(test)]
    pub(super) fn scribble(&self, garbage: u64) {
        let start = std::ptr::from_ref(self.slot()).cast::<AtomicU64>();
        // SAFETY: a slot is a whole number of words, in which any value is valid.
        let words = unsafe { std::slice::from_raw_parts(start, size_of::<Slot>() / 8) };
        for word in words {
            word.store(garbage, Ordering::Relaxed);
        }
    }

    /// Counts a line of the error log; level 0 is the least severe.
    pub(super) fn count_line(self, level: usize) {
        if let Some(count) = self.slot().log_lines.get(level) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sets the state of the worker.
    pub fn set_state(&self, state: WorkerState) {
        if state == WorkerState::Ready {
            self.slot().ready_ns.store(clock::now_ns(), Ordering::Relaxed);
        }
        self.slot().state.store(state as u32, Ordering::Release);
    }

    /// Records a heartbeat. Call this more often than the setting `timeout`.
    pub fn heartbeat(&self) {
        self.slot().heartbeat_ns.store(clock::now_ns(), Ordering::Release);
    }

    /// Records the signal that told the worker to exit. May be called from a signal handler: two stores.
    pub fn told_to_end(&self, signal: u32, sender: u32) {
        self.slot().ended_by_pid.store(sender, Ordering::Relaxed);
        self.slot().ended_by_signal.store(signal, Ordering::Release);
    }

    /// Counts accepted connections.
    pub fn count_accepted(&self, by: u64) {
        self.slot().counts.accepted.fetch_add(by, Ordering::Relaxed);
    }

    /// Counts opened connections, or closed ones if `by` is negative.
    pub fn count_connections(&self, by: i64) {
        self.slot().connections.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Counts connections that began to carry another protocol, or ended if `by` is negative.
    pub fn count_upgraded(&self, by: i64) {
        self.slot().upgraded.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Counts WebSocket messages received.
    pub fn count_messages_received(&self, by: u64) {
        self.slot().counts.messages_received.fetch_add(by, Ordering::Relaxed);
    }

    /// Counts WebSocket messages sent.
    pub fn count_messages_sent(&self, by: u64) {
        self.slot().counts.messages_sent.fetch_add(by, Ordering::Relaxed);
    }

    /// Counts threads or greenlets that became busy, or free if `by` is negative.
    pub fn count_busy_request_slots(&self, by: i64) {
        self.slot().busy_request_slots.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Changes the maximum number of busy threads or greenlets.
    pub fn count_request_slots(&self, by: i64) {
        self.slot().request_slots.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Counts a finished exchange: its status (0 without a response), its duration in microseconds, and the
    /// bytes received and sent.
    pub fn count_response(&self, status: u16, duration_us: u64, bytes_in: u64, bytes_out: u64) {
        let counts = &self.slot().counts;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let index = usize::from(status).wrapping_sub(usize::from(STATUS_MIN));
        if let Some(count) = counts.statuses.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        counts.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        counts.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        counts.duration_us.fetch_add(duration_us, Ordering::Relaxed);
        counts.latency[bucket_of_us(duration_us)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was queued for this time before the application was called.
    pub fn count_queued(&self, queued_us: u64) {
        let counts = &self.slot().counts;
        counts.queued_us.fetch_add(queued_us, Ordering::Relaxed);
        counts.queued[queued_bucket_of_us(queued_us)].fetch_add(1, Ordering::Relaxed);
    }

    /// Records the start of a request, now or at `start_ns`. `text` is its method and target, of which the
    /// first bytes are kept.
    pub fn begin_request(&self, text: &[u8], start_ns: u64) -> InFlightToken {
        self.slot().held.fetch_add(1, Ordering::Relaxed);
        let slot = self.slot();
        let entry = slot.in_flight.iter().position(|entry| {
            entry.taken.load(Ordering::Relaxed) == 0
                && entry.taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        });
        if let Some(index) = entry {
            let entry = &slot.in_flight[index];
            let text = &text[..text.len().min(REQUEST_TEXT_MAX)];
            begin_write(&entry.version);
            store_text(&entry.text, &entry.text_length, text);
            entry.start_ns.store(start_ns, Ordering::Relaxed);
            end_write(&entry.version);
        }
        InFlightToken { entry: entry.map(|index| index as u8) }
    }

    /// Records the end of a request.
    #[expect(clippy::needless_pass_by_value, reason = "a request ends once")]
    pub fn end_request(&self, token: InFlightToken) {
        self.slot().held.fetch_sub(1, Ordering::Relaxed);
        let entry = token.entry.and_then(|index| self.slot().in_flight.get(usize::from(index)));
        if let Some(entry) = entry {
            empty_entry(entry);
            entry.taken.store(0, Ordering::Release);
        }
    }

    /// Records why the worker exits, for the arbiter's log; truncated to [`LAST_WORDS_MAX`] bytes.
    pub fn leave_last_words(&self, reason: &str) {
        let fits = |&end: &usize| reason.is_char_boundary(end);
        let end = (0..=reason.len().min(LAST_WORDS_MAX)).rev().find(fits).unwrap_or(0);
        let text = &reason[..end];
        self.slot().last_words_length.store(0, Ordering::Release);
        store_text(&self.slot().last_words, &self.slot().last_words_length, text.as_bytes());
    }
}

/// Clears a slot that the arbiter can write: inherited slots are reused.
pub(super) fn clear(slot: &Slot) {
    slot.state.store(WorkerState::Empty as u32, Ordering::Release);
    for number in [&slot.held, &slot.ended_by_signal, &slot.ended_by_pid] {
        number.store(0, Ordering::Relaxed);
    }
    let single = [
        &slot.heartbeat_ns,
        &slot.ready_ns,
        &slot.last_words_length,
        &slot.connections,
        &slot.upgraded,
        &slot.busy_request_slots,
        &slot.request_slots,
    ];
    for number in single.into_iter().chain(slot.counts.all()).chain(&slot.log_lines) {
        number.store(0, Ordering::Relaxed);
    }
    for entry in &slot.in_flight {
        entry.version.store(0, Ordering::Relaxed);
        empty_entry(entry);
        entry.taken.store(0, Ordering::Release);
    }
}

fn empty_entry(entry: &InFlight) {
    begin_write(&entry.version);
    entry.start_ns.store(0, Ordering::Relaxed);
    end_write(&entry.version);
}

fn begin_write(version: &AtomicU32) {
    let even = version.load(Ordering::Relaxed) & !1;
    version.store(even.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
}

fn end_write(version: &AtomicU32) {
    let odd = version.load(Ordering::Relaxed) | 1;
    version.store(odd.wrapping_add(1), Ordering::Release);
}

/// Stores text as whole words. The length comes last, so that text without a version (the last words) is read
/// only when it is complete.
pub(super) fn store_text(words: &[AtomicU64], length: &AtomicU64, text: &[u8]) {
    for (word, bytes) in words.iter().zip(text.chunks(8)) {
        let mut buffer = [0; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(buffer), Ordering::Relaxed);
    }
    length.store(text.len() as u64, Ordering::Release);
}
