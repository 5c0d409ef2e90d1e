//! The scoreboard: shared memory with one slot a worker. Workers write, the arbiter and the
//! processes that show figures read. It holds no pointer and no lock, so a process that dies in the
//! middle of a write harms nobody but its own slot.
//!
//! [`SlotWriter`] is the worker's view of its slot, [`SlotReader`] everybody else's.

mod layout;
mod ledger;
mod reader;
mod writer;

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

pub use layout::{
    IN_FLIGHT_MAX, LAST_WORDS_MAX, LATENCY_BUCKETS, QUEUED_BUCKETS, REQUEST_TEXT_MAX, SLOTS_MAX,
    bucket_limit_us, queued_limit_us,
};
pub use ledger::{Event, GenerationNote, Ledger, LogLines};
pub use reader::{InFlightRequest, SlotReader, SlotSnapshot, Totals};
pub use writer::{InFlightToken, SlotWriter};

use layout::{FILE_SIZE, HEADER_SIZE, Header, LAYOUT, LEDGER_SIZE, LedgerPages, MAGIC, Slot};

/// What a worker is doing with its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum WorkerState {
    /// Nobody lives in this slot.
    Empty = 0,
    /// Forked, and on its way to be able to serve.
    Booting = 1,
    /// Serves.
    Ready = 2,
    /// Accepts no more and finishes what it has.
    Draining = 3,
    /// Has ended; the arbiter has not cleared the slot yet.
    Dead = 4,
}

impl WorkerState {
    /// The word for it in logs and in the control socket's answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Dead => "dead",
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Booting,
            2 => Self::Ready,
            3 => Self::Draining,
            4 => Self::Dead,
            _ => Self::Empty,
        }
    }
}

/// The mapped file. Made by the arbiter before its first fork, inherited by all processes.
pub struct Scoreboard {
    header: &'static Header,
    ledger: &'static LedgerPages,
    slots: &'static [Slot],
}

impl Scoreboard {
    /// Makes and maps a new, empty scoreboard. The mapping stays until the process ends.
    pub fn new() -> nix::Result<Self> {
        let file = memfd_create(c"jimu-scoreboard", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&file, FILE_SIZE as i64)?;
        let size = NonZeroUsize::new(FILE_SIZE).ok_or(nix::Error::EINVAL)?;
        // SAFETY: the address is the kernel's choice, so no mapping of ours is replaced; `file` is an
        // open memfd of exactly `size` bytes.
        let start = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }?;
        // SAFETY: the mapping is page-aligned, FILE_SIZE bytes long, zeroed, and never unmapped.
        // `Header`, `LedgerPages` and `Slot` consist of atomics alone, for which zero is valid and
        // which may be shared between threads and processes; the layout module asserts the sizes.
        let (header, ledger, slots) = unsafe {
            let ledger = start.byte_add(HEADER_SIZE).cast::<LedgerPages>();
            let slots = start.byte_add(HEADER_SIZE + LEDGER_SIZE).cast::<Slot>();
            (
                start.cast::<Header>().as_ref(),
                ledger.as_ref(),
                std::slice::from_raw_parts(slots.as_ptr(), SLOTS_MAX),
            )
        };
        header.layout.store(LAYOUT, Ordering::Relaxed);
        header.slots.store(SLOTS_MAX as u32, Ordering::Relaxed);
        header.arbiter_pid.store(std::process::id(), Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        ledger::begin(ledger);
        Ok(Self { header, ledger, slots })
    }

    /// The arbiter's process id.
    pub fn arbiter_pid(&self) -> u32 {
        self.header.arbiter_pid.load(Ordering::Relaxed)
    }

    /// Reserves a free slot for a worker that is about to be forked.
    pub fn claim(&self, generation: u32, age: u64) -> Option<u32> {
        let index = self
            .slots
            .iter()
            .position(|slot| slot.state.load(Ordering::Acquire) == WorkerState::Empty as u32)?;
        self.ledger.slots_used.fetch_max(index as u32 + 1, Ordering::Relaxed);
        writer::reset(&self.slots[index], generation, age);
        Some(index as u32)
    }

    /// Gives a slot back, once its worker has been reaped. What it did is kept in the ledger.
    pub fn release(&self, index: u32) {
        if let Some(slot) = self.slots.get(index as usize) {
            ledger::settle(self.ledger, slot, || writer::clear(slot));
        }
    }

    /// What the arbiter notes beside the slots.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.ledger)
    }

    /// The worker's view of a slot.
    pub fn writer(&self, index: u32) -> Option<SlotWriter> {
        self.slots.get(index as usize).map(SlotWriter::new)
    }

    /// Everybody else's view of a slot.
    pub fn reader(&self, index: u32) -> Option<SlotReader> {
        self.slots.get(index as usize).map(SlotReader::new)
    }

    /// The slots in which somebody lives, with their numbers.
    pub fn occupied(&self) -> impl Iterator<Item = (u32, SlotReader)> + '_ {
        // Looking at a slot that was never used would make a page for it.
        let used = self.ledger.slots_used.load(Ordering::Relaxed) as usize;
        self.slots[..used.min(SLOTS_MAX)]
            .iter()
            .enumerate()
            .map(|(index, slot)| (index as u32, SlotReader::new(slot)))
            .filter(|(_, reader)| reader.state() != WorkerState::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_claimed_once_and_can_be_claimed_again_after_its_release() {
        let board = Scoreboard::new().unwrap();
        let first = board.claim(1, 1).unwrap();
        let second = board.claim(1, 2).unwrap();
        assert_ne!(first, second);
        board.release(first);
        assert_eq!(board.claim(2, 3), Some(first));
        assert_eq!(board.occupied().count(), 2);
    }

    #[test]
    fn a_full_board_refuses_and_stays_whole() {
        let board = Scoreboard::new().unwrap();
        for age in 0..SLOTS_MAX as u64 {
            assert!(board.claim(1, age).is_some());
        }
        assert_eq!(board.claim(1, 0), None);
        board.release(7);
        assert_eq!(board.claim(1, 0), Some(7));
    }

    #[test]
    fn what_a_worker_writes_is_what_the_arbiter_reads() {
        let board = Scoreboard::new().unwrap();
        let index = board.claim(3, 9).unwrap();
        let (writer, reader) = (board.writer(index).unwrap(), board.reader(index).unwrap());
        writer.enter();
        writer.set_state(WorkerState::Ready);
        writer.heartbeat();
        let token = writer.begin_request(b"GET /slow", 1);
        writer.count_accepted(1);
        writer.count_answer(404, 1_500, 10, 20);
        writer.count_connections(3);
        writer.count_connections(-1);
        writer.count_places(8);
        writer.count_busy_places(-1);
        writer.leave_last_words("the application panicked");

        let snapshot = reader.snapshot();
        assert_eq!(snapshot.pid, std::process::id());
        assert_eq!((snapshot.generation, snapshot.age), (3, 9));
        assert_eq!(snapshot.state, WorkerState::Ready);
        assert_eq!((snapshot.totals.accepted, snapshot.totals.requests, snapshot.held), (1, 1, 1));
        assert_eq!(snapshot.totals.statuses, [(404, 1)].into());
        assert_eq!((snapshot.connections, snapshot.busy_places, snapshot.places), (2, 0, 8));
        assert_eq!((snapshot.totals.bytes_in, snapshot.totals.bytes_out), (10, 20));
        assert_eq!(snapshot.totals.latency.iter().sum::<u64>(), 1);
        assert_eq!(snapshot.last_words.as_deref(), Some("the application panicked"));
        let in_flight = reader.in_flight();
        assert_eq!(in_flight.len(), 1);
        assert_eq!(in_flight[0].text, "GET /slow");

        writer.end_request(token);
        assert_eq!(reader.in_flight(), vec![]);
        assert_eq!(reader.snapshot().held, 0);
    }

    #[test]
    fn more_requests_than_entries_are_counted_all_the_same() {
        let board = Scoreboard::new().unwrap();
        let index = board.claim(1, 1).unwrap();
        let (writer, reader) = (board.writer(index).unwrap(), board.reader(index).unwrap());
        let tokens: Vec<_> =
            (0..IN_FLIGHT_MAX + 3).map(|_| writer.begin_request(b"GET /", 1)).collect();
        assert_eq!(reader.in_flight().len(), IN_FLIGHT_MAX);
        assert_eq!(reader.snapshot().held as usize, IN_FLIGHT_MAX + 3);
        for token in tokens {
            writer.end_request(token);
        }
        assert_eq!(reader.snapshot().held, 0);
    }

    #[test]
    fn texts_that_are_too_long_are_cut_at_a_character() {
        let board = Scoreboard::new().unwrap();
        let index = board.claim(1, 1).unwrap();
        let (writer, reader) = (board.writer(index).unwrap(), board.reader(index).unwrap());
        let _held = writer.begin_request(&[b'a'; 500], 1);
        assert_eq!(reader.in_flight()[0].text, "a".repeat(REQUEST_TEXT_MAX));
        writer.leave_last_words(&"ä".repeat(LAST_WORDS_MAX));
        assert_eq!(reader.snapshot().last_words, Some("ä".repeat(LAST_WORDS_MAX / 2)));
    }

    #[test]
    fn a_reader_never_sees_half_of_two_requests() {
        let board = Scoreboard::new().unwrap();
        let index = board.claim(1, 1).unwrap();
        let (writer, reader) = (board.writer(index).unwrap(), board.reader(index).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000u32 {
                    let letter = if round % 2 == 0 { b'a' } else { b'b' };
                    let token = writer.begin_request(&[letter; 100], 1);
                    writer.end_request(token);
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                for request in reader.in_flight() {
                    let first = request.text.chars().next();
                    assert_eq!(request.text.len(), 100);
                    assert!(request.text.chars().all(|letter| Some(letter) == first));
                }
            }
        });
    }
}
