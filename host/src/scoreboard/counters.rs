//! The arbiter's entries beside the slots: what only it knows (generations, listeners, events of workers), and
//! the totals of exited workers. Monitoring needs these and the slots, but nothing from the arbiter itself.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{CounterPages, Counts, GenerationEntry, Slot, SlotOwner, Text};
use super::reader::{Totals, load_text, plausible};
use super::writer::store_text;
use crate::clock;

/// Reads and writes the entries. Only the arbiter writes.
#[derive(Clone, Copy)]
pub struct ServerCounters {
    pages: &'static CounterPages,
}

/// Events that the arbiter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A worker became ready.
    WorkerReady,
    /// A worker exited unexpectedly.
    WorkerDied,
    /// A worker was killed for a missed heartbeat.
    WorkerTimedOut,
    /// A worker asked to be replaced.
    WorkerRetired,
    /// A worker exceeded the memory limit.
    WorkerTooBig,
    /// A worker failed to boot.
    BootFailed,
    /// A mold died unexpectedly.
    MoldDied,
    /// A generation took over from the previous one.
    Reloaded,
    /// A new generation was refused.
    ReloadRefused,
    /// A canary generation was rolled back.
    RolledBack,
    /// The monitoring process died.
    StatusDied,
}

/// A generation. Strings are truncated to 64 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationNote {
    /// Number, from 1.
    pub id: u32,
    /// State, as a number whose names are up to the reader.
    pub stage: u32,
    /// Configured number of workers.
    pub target: u32,
    /// Process ID of its mold; 0 if it has none.
    pub mold: u32,
    /// Time at which it was created.
    pub started_ns: u64,
    /// Name of its worker class; empty before that is loaded.
    pub class: String,
    /// Name of its application.
    pub app: String,
}

impl ServerCounters {
    pub(super) fn new(pages: &'static CounterPages) -> Self {
        Self { pages }
    }

    /// Counts an event.
    pub fn count(&self, event: Event) {
        self.pages.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records whether the server stops, which nothing takes over from it.
    pub fn note_stopping(&self, is_stopping: bool) {
        self.pages.stopping.store(is_stopping.into(), Ordering::Relaxed);
    }

    /// Records the current generations.
    pub fn note_generations(&self, notes: impl Iterator<Item = GenerationNote>) {
        let mut notes = notes.fuse();
        for entry in &self.pages.generations {
            let note = notes.next().unwrap_or_default();
            if entry.id.load(Ordering::Relaxed) != note.id {
                entry.id.store(0, Ordering::Release);
                entry.class.clear();
                entry.app.clear();
            }
            let set = |number: &AtomicU32, value| number.store(value, Ordering::Relaxed);
            set(&entry.stage, note.stage);
            set(&entry.target, note.target);
            set(&entry.mold, note.mold);
            entry.started_ns.store(note.started_ns, Ordering::Relaxed);
            entry.class.set(&note.class);
            entry.app.set(&note.app);
            entry.id.store(note.id, Ordering::Release);
        }
    }

    /// Records the current listeners: inodes and names.
    pub fn note_listeners(&self, notes: impl Iterator<Item = (u64, String)>) {
        let mut notes = notes.fuse();
        for entry in &self.pages.listeners {
            let (inode, name) = notes.next().unwrap_or_default();
            if entry.inode.load(Ordering::Relaxed) != inode {
                entry.inode.store(0, Ordering::Release);
                entry.name.clear();
                entry.name.set(&name);
                entry.inode.store(inode, Ordering::Release);
            }
        }
    }

    /// Returns whether the server stops.
    pub fn is_stopping(&self) -> bool {
        self.pages.stopping.load(Ordering::Relaxed) != 0
    }

    /// Returns how often an event has occurred.
    pub fn counted(&self, event: Event) -> u64 {
        self.pages.events[event as usize].load(Ordering::Relaxed)
    }

    /// Returns the generations, oldest first.
    pub fn generations(&self) -> Vec<GenerationNote> {
        self.pages.generations.iter().filter_map(read_generation).collect()
    }

    /// Returns the listeners: inodes and names.
    pub fn listeners(&self) -> Vec<(u64, String)> {
        let read = |entry: &super::layout::ListenerEntry| {
            let inode = entry.inode.load(Ordering::Acquire);
            (inode != 0).then(|| (inode, entry.name.get()))
        };
        self.pages.listeners.iter().filter_map(read).collect()
    }

    /// Returns the totals of exited workers, by the name of their class.
    pub fn ended(&self) -> Vec<(String, Totals)> {
        let entries = self.pages.ended.iter();
        let named = entries.filter(|entry| entry.class.length.load(Ordering::Acquire) > 0);
        named.map(|entry| (entry.class.get(), Totals::read(&entry.counts))).collect()
    }

    /// Repeats `read` until no slot was released during it, so that nothing is counted twice or missed; after
    /// some attempts the last result is used.
    pub fn consistently<T>(&self, mut read: impl FnMut() -> T) -> T {
        for _ in 1..READ_ATTEMPTS_MAX {
            let before = self.pages.version.load(Ordering::Acquire);
            if !before.is_multiple_of(2) {
                std::thread::sleep(READ_PAUSE);
                continue;
            }
            let result = read();
            fence(Ordering::Acquire);
            if before == self.pages.version.load(Ordering::Relaxed) {
                return result;
            }
        }
        read()
    }

    /// Returns when the server started: on the monotonic clock, and in seconds since 1970.
    pub fn started(&self) -> (u64, u64) {
        let pages = self.pages;
        (pages.started_ns.load(Ordering::Relaxed), pages.started_at.load(Ordering::Relaxed))
    }

    /// Returns the number of error log lines by level, without those in slots.
    pub(super) fn logged(self) -> [u64; 5] {
        std::array::from_fn(|level| self.pages.log_lines[level].load(Ordering::Relaxed))
    }
}

/// Initializes the entries: start time.
pub(super) fn begin(pages: &CounterPages) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    pages.started_at.store(now.as_secs(), Ordering::Relaxed);
    pages.started_ns.store(clock::now_ns(), Ordering::Relaxed);
}

/// Adds a slot's totals to those of the exited workers of its class, and runs `vacate` while readers know that
/// totals are being moved.
pub(super) fn fold_into_totals(
    pages: &CounterPages,
    owner: &SlotOwner,
    slot: &Slot,
    vacate: impl FnOnce(),
) {
    pages.version.fetch_add(1, Ordering::AcqRel);
    fence(Ordering::Release);
    for (sum, more) in pages.log_lines.iter().zip(&slot.log_lines) {
        sum.fetch_add(plausible(more), Ordering::Relaxed);
    }
    if plausible(&slot.counts.accepted) > 0 || plausible(&slot.counts.requests) > 0 {
        let generation = owner.generation.load(Ordering::Relaxed);
        let class = pages
            .generations
            .iter()
            .find(|entry| entry.id.load(Ordering::Relaxed) == generation)
            .map_or_else(String::new, |entry| entry.class.get());
        add_ended(pages, if class.is_empty() { UNKNOWN } else { &class }, &slot.counts);
    }
    vacate();
    pages.version.fetch_add(1, Ordering::Release);
}

fn add_ended(pages: &CounterPages, class: &str, counts: &Counts) {
    let entry = pages
        .ended
        .iter()
        .find(|entry| {
            let name = entry.class.get();
            name.is_empty() || name == class
        })
        // More classes than there is room for: the last entry counts for all others.
        .unwrap_or(&pages.ended[pages.ended.len() - 1]);
    if entry.class.length.load(Ordering::Relaxed) == 0 {
        entry.class.set(class);
    }
    for (sum, more) in entry.counts.all().zip(counts.all()) {
        sum.fetch_add(plausible(more), Ordering::Relaxed);
    }
}

fn read_generation(entry: &GenerationEntry) -> Option<GenerationNote> {
    let id = entry.id.load(Ordering::Acquire);
    let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
    let note = GenerationNote {
        id,
        stage: read(&entry.stage),
        target: read(&entry.target),
        mold: read(&entry.mold),
        started_ns: entry.started_ns.load(Ordering::Relaxed),
        class: entry.class.get(),
        app: entry.app.get(),
    };
    fence(Ordering::Acquire);
    (id != 0 && entry.id.load(Ordering::Relaxed) == id).then_some(note)
}

impl Text {
    /// Writes a string once; it stays until it is cleared.
    fn set(&self, text: &str) {
        if self.length.load(Ordering::Relaxed) > 0 {
            return;
        }
        let fits = |&end: &usize| text.is_char_boundary(end);
        let end = (0..=text.len().min(self.words.len() * 8)).rev().find(fits).unwrap_or(0);
        store_text(&self.words, &self.length, &text.as_bytes()[..end]);
    }

    fn get(&self) -> String {
        load_text(&self.words, &self.length)
    }

    fn clear(&self) {
        self.length.store(0, Ordering::Release);
    }
}

/// The arbiter needs some microseconds per slot, unless it is preempted in the middle.
const READ_ATTEMPTS_MAX: usize = 1000;
const READ_PAUSE: Duration = Duration::from_millis(1);
/// Class of workers whose generation had no entry.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::super::Scoreboard;
    use super::super::tests::claim;
    use super::*;

    fn note(id: u32, class: &str) -> GenerationNote {
        GenerationNote { id, class: class.to_owned(), target: 2, ..GenerationNote::default() }
    }

    #[test]
    fn totals_of_exited_workers_are_kept_by_class() {
        let board = Scoreboard::new().unwrap();
        let ledger = board.ledger();
        ledger.note_generations([note(1, "sync"), note(2, "gthread")].into_iter());
        for (generation, status) in [(1, 200), (2, 404), (1, 200), (3, 500)] {
            let (slot, writer, _) = claim(&board, generation, 1);
            writer.count_response(status, 100, 1, 2);
            board.release(slot);
        }
        let ended = ledger.ended();
        let names: Vec<&str> = ended.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(names, ["sync", "gthread", "unknown"]);
        assert_eq!(ended[0].1.statuses, [(200, 2)].into());
        assert_eq!((ended[0].1.duration_us, ended[0].1.bytes_out), (200, 4));
        assert_eq!(ended[1].1.statuses, [(404, 1)].into());
    }

    #[test]
    fn generations_reuse_free_entries() {
        let board = Scoreboard::new().unwrap();
        let ledger = board.ledger();
        ledger.note_generations([note(1, ""), note(2, "sync")].into_iter());
        ledger.note_generations([note(1, "eventlet"), note(2, "sync")].into_iter());
        assert_eq!(ledger.generations()[0].class, "eventlet", "a class becomes known later");
        ledger.note_generations([note(2, "sync")].into_iter());
        assert_eq!(ledger.generations(), [note(2, "sync")]);
        ledger.note_generations((1..40).map(|id| note(id, "sync")));
        assert_eq!(ledger.generations().len(), 16, "no room for more");
    }

    #[test]
    fn a_reader_never_sees_a_worker_twice() {
        let board = Scoreboard::new().unwrap();
        let ledger = board.ledger();
        ledger.note_generations([note(1, "sync")].into_iter());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..500 {
                    let (slot, writer, _) = claim(&board, 1, 1);
                    writer.count_response(200, 1, 0, 0);
                    board.release(slot);
                    // Faster than any arbiter retires workers, but not all the time.
                    std::thread::sleep(Duration::from_micros(100));
                }
                done.store(true, Ordering::Release);
            });
            let mut before = 0;
            while !done.load(Ordering::Acquire) {
                let now = ledger.consistently(|| {
                    let ended: u64 = ledger.ended().iter().map(|(_, all)| all.requests).sum();
                    let living = board.occupied().map(|(_, slot)| slot.snapshot().totals.requests);
                    ended + living.sum::<u64>()
                });
                assert!(now >= before, "{now} after {before}");
                before = now;
            }
        });
    }
}
