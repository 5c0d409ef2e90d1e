//! The scoreboard: shared memory with one slot per worker. Each worker writes its own slot; the arbiter and the
//! status process read. The owner of each slot is recorded in the ledger, which the arbiter writes and workers do
//! not even map. Shared memory contains no pointer and no lock, so a process that dies during a write, or writes
//! garbage, corrupts only its own counters.
//!
//! [`SlotWriter`] is a process's view of the slot it owns, [`SlotReader`] the view of others.

mod counters;
mod layout;
mod lines;
mod memory;
mod reader;
mod writer;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use counters::{Event, GenerationNote, ServerCounters};
pub use layout::{
    IN_FLIGHT_MAX, LAST_WORDS_MAX, LATENCY_BUCKETS, QUEUED_BUCKETS, REQUEST_TEXT_MAX, SLOTS_MAX,
    bucket_limit_us, queued_limit_us,
};
pub use lines::{ACCESS_LINES_MAX, AccessBuffer};
pub use memory::SlotMemory;
pub use reader::{InFlightRequest, SlotReader, SlotSnapshot, Totals};
pub use writer::{InFlightToken, SlotWriter};

use crate::limits;
use layout::{CounterPages, SLOTS_TOTAL, Slot, SlotOwner};
use memory::Area;

/// State of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum WorkerState {
    /// The slot is free.
    Empty = 0,
    /// Forked, but not ready to serve yet.
    Booting = 1,
    /// Serves.
    Ready = 2,
    /// Accepts no more connections and finishes its requests.
    Draining = 3,
    /// Has exited.
    Dead = 4,
}

impl WorkerState {
    /// Returns its name in logs and in the control socket's responses.
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

/// The whole scoreboard, for the arbiter and the processes without plugins that it forks.
pub struct Scoreboard {
    arbiter_pid: Pid,
    ledger: &'static CounterPages,
    area: Area,
    /// Serial numbers of the memory that this process has mapped for each slot.
    mapped: Vec<AtomicU64>,
    made: AtomicU64,
    lines: LogLines,
    own: SlotWriter,
}

/// A reserved slot.
#[derive(Debug)]
pub struct Claimed {
    /// Its index.
    pub index: u32,
    /// Serial number of its memory, for [`Scoreboard::adopt`].
    pub serial: u64,
    /// Its memory, for the process that will own it.
    pub memory: SlotMemory,
}

/// Why no slot is available.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The number of workers has reached its maximum.
    #[error("the scoreboard has no free slot")]
    Full,
    /// The system refused the memory.
    #[error("cannot create a slot of the scoreboard: {}", limits::describe(*.0))]
    Memory(#[from] Errno),
}

impl Scoreboard {
    /// Creates and maps a new, empty scoreboard, with memfds if the system allows them.
    pub fn new() -> nix::Result<Self> {
        match memory::create_slot() {
            Ok(_) => Self::map(false),
            Err(error) => {
                let reason = limits::describe(error);
                tracing::warn!(
                    "cannot create a memfd for the scoreboard ({reason}); using one shared mapping, in which each \
                     worker can write the data of all"
                );
                Self::map(true)
            }
        }
    }

    fn map(is_inherited: bool) -> nix::Result<Self> {
        let ledger = memory::map_ledger()?;
        let own = SlotWriter::new()?;
        counters::begin(ledger);
        let shared = AtomicPtr::new(std::ptr::from_ref(ledger).cast_mut());
        Ok(Self {
            arbiter_pid: Pid::this(),
            ledger,
            area: Area::map(is_inherited)?,
            mapped: (0..SLOTS_TOTAL).map(|_| AtomicU64::new(0)).collect(),
            made: AtomicU64::new(0),
            lines: LogLines { shared: Box::leak(Box::new(shared)), own },
            own,
        })
    }

    /// Returns the file of the slots, if they are one mapping that all processes inherit.
    pub fn inherited_file(&self) -> Option<BorrowedFd<'static>> {
        self.area.file()
    }

    /// Returns the arbiter's process ID.
    pub fn arbiter_pid(&self) -> Pid {
        self.arbiter_pid
    }

    /// Reserves a free slot for a worker that is about to be forked; `age` 0 is a mold.
    pub fn claim(&self, generation: u32, age: u64) -> Result<Claimed, ClaimError> {
        let mut candidates = if age == 0 { SLOTS_MAX..SLOTS_TOTAL } else { 0..SLOTS_MAX };
        let is_free =
            |index: &usize| self.ledger.owners[*index].serial.load(Ordering::Relaxed) == 0;
        let index = candidates.find(is_free).ok_or(ClaimError::Full)?;
        let serial = self.made.load(Ordering::Relaxed) + 1;
        let memory = if let Some(memory) = self.area.inherited(index) {
            memory
        } else {
            let file = memory::create_slot()?;
            self.area.show(index, &file)?;
            SlotMemory::File(file)
        };
        self.made.store(serial, Ordering::Relaxed);
        self.mapped[index].store(serial, Ordering::Relaxed);
        if age != 0 {
            self.ledger.slots_used.fetch_max(index as u32 + 1, Ordering::Relaxed);
        }
        let owner = &self.ledger.owners[index];
        owner.pid.store(0, Ordering::Relaxed);
        owner.generation.store(generation, Ordering::Relaxed);
        owner.age.store(age, Ordering::Relaxed);
        owner.forked_ns.store(crate::clock::now_ns(), Ordering::Relaxed);
        owner.serial.store(serial, Ordering::Release);
        Ok(Claimed { index: index as u32, serial, memory })
    }

    /// Records the worker of a slot, once that is verified.
    pub fn note_pid(&self, index: u32, pid: u32) {
        if let Some(owner) = self.ledger.owners.get(index as usize) {
            owner.pid.store(pid, Ordering::Release);
        }
    }

    /// Frees a slot, once its worker has been reaped. The ledger keeps its counters.
    pub fn release(&self, index: u32) {
        let Some(owner) = self.ledger.owners.get(index as usize) else { return };
        let Some(slot) = self.slot(index) else { return };
        if owner.serial.load(Ordering::Relaxed) == 0 {
            return;
        }
        counters::fold_into_totals(self.ledger, owner, slot, || {
            owner.serial.store(0, Ordering::Release);
        });
        if self.area.is_inherited() {
            writer::clear(slot);
            if let Some(pages) = self.area.pages(index as usize) {
                pages.lines.clear();
            }
        } else if let Err(error) = self.area.hide(index as usize) {
            tracing::error!("cannot unmap slot {index} of the scoreboard: {error}");
        }
    }

    /// Maps a slot that the arbiter has created after it forked this process.
    pub fn adopt(&self, index: u32, serial: u64, file: &OwnedFd) -> nix::Result<()> {
        self.area.show(index as usize, file)?;
        self.mapped[index as usize].store(serial, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the arbiter's records.
    pub fn ledger(&self) -> ServerCounters {
        ServerCounters::new(self.ledger)
    }

    /// Returns the counters of the error log's lines.
    pub fn log_lines(&self) -> LogLines {
        self.lines
    }

    /// Returns the lines of the error log of all processes by level: debug, info, warning, error, critical.
    pub fn logged(&self) -> [u64; 5] {
        let mut logged = self.ledger().logged();
        let taken = self.taken().filter_map(|(index, _)| self.slot(index));
        for slot in taken {
            for (sum, more) in logged.iter_mut().zip(&slot.log_lines) {
                *sum = sum.wrapping_add(reader::plausible(more));
            }
        }
        logged
    }

    /// Returns the view of a slot.
    pub fn reader(&self, index: u32) -> Option<SlotReader> {
        let owner = self.ledger.owners.get(index as usize)?;
        Some(SlotReader::new(owner, self.slot(index)?))
    }

    /// Returns the slots of workers, with their indexes.
    pub fn occupied(&self) -> impl Iterator<Item = (u32, SlotReader)> + '_ {
        self.taken()
            .filter(|(_, owner)| owner.age.load(Ordering::Relaxed) != 0)
            .filter_map(|(index, _)| Some((index, self.reader(index)?)))
    }

    /// Copies the complete access lines that the worker of a slot has not written. Call this once it has been
    /// reaped.
    pub fn unwritten_lines(&self, index: u32) -> Vec<u8> {
        self.area.pages(index as usize).map_or_else(Vec::new, |pages| pages.lines.copy())
    }

    fn taken(&self) -> impl Iterator<Item = (u32, &'static SlotOwner)> + '_ {
        let used = self.ledger.slots_used.load(Ordering::Relaxed) as usize;
        let owners = self.ledger.owners.iter().enumerate();
        owners
            .filter(move |(index, _)| *index < used || *index >= SLOTS_MAX)
            .filter(|(index, owner)| {
                let serial = owner.serial.load(Ordering::Acquire);
                let is_mapped = self.mapped[*index].load(Ordering::Relaxed) == serial;
                serial != 0 && (is_mapped || self.area.is_inherited())
            })
            .map(|(index, owner)| (index as u32, owner))
    }

    fn slot(&self, index: u32) -> Option<&'static Slot> {
        self.area.pages(index as usize).map(|pages| &pages.slot)
    }

    /// Leaves the scoreboard, in a mold that has just been forked: the process keeps one private slot, and
    /// unmaps everything else before it runs code that does not belong to the server.
    #[expect(clippy::needless_pass_by_value, reason = "the handle must not be used again")]
    pub fn leave(board: Arc<Self>, own: SlotMemory) -> nix::Result<MoldSlots> {
        let memory = own.duplicate().map_err(|_| Errno::EMFILE)?;
        board.own.enter(own)?;
        let area = Some(board.area).filter(|area| area.is_inherited());
        let slots = MoldSlots { area, own: board.own, memory: Some(memory) };
        board.lines.shared.store(std::ptr::null_mut(), Ordering::Release);
        // SAFETY: the mold has this one handle, which it gives up here; the others are in the frames of
        // the arbiter's loop, to which it never returns. The log counts lines elsewhere now.
        unsafe { memory::unmap_all(board.ledger, board.area) }?;
        Ok(slots)
    }
}

/// The part of the scoreboard that a mold needs.
pub struct MoldSlots {
    /// The area, if the slots are in it.
    area: Option<Area>,
    own: SlotWriter,
    /// The memory of that slot, until it is certain that the mold executes no other program.
    memory: Option<SlotMemory>,
}

/// [`MoldSlots`] as data, for a program that the mold executes.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotsRecord {
    /// The descriptor of the mold's own slot, or of the area, and the position of the slot there.
    file: RawFd,
    index: Option<usize>,
}

impl MoldSlots {
    /// Records the slots, and returns the descriptor that the program has to inherit. `None` if they are in memory
    /// without a file.
    pub fn record(&self) -> Option<(SlotsRecord, BorrowedFd<'_>)> {
        let (file, index) = match (self.memory.as_ref()?, self.area) {
            (SlotMemory::File(file), _) => (file.as_fd(), None),
            (SlotMemory::Inherited(slot), Some(area)) => (area.file()?, Some(area.index_of(slot)?)),
            (SlotMemory::Inherited(_), None) => return None,
        };
        Some((SlotsRecord { file: file.as_raw_fd(), index }, file))
    }

    /// Restores the slots in the executed program.
    pub fn restore(record: &SlotsRecord) -> std::io::Result<Self> {
        let file = crate::process::take_descriptor(record.file)?;
        let own = SlotWriter::new()?;
        let (area, memory) = match record.index {
            None => (None, SlotMemory::File(file)),
            Some(index) => {
                let area = Area::of_file(file)?;
                (Some(area), area.inherited(index).ok_or(Errno::EINVAL)?)
            }
        };
        own.enter(memory)?;
        Ok(Self { area, own, memory: None })
    }

    /// Releases what only [`MoldSlots::record`] needs.
    pub fn keep_process(&mut self) {
        self.memory = None;
    }

    /// Returns the counters of the error log's lines.
    pub fn log_lines(&self) -> LogLines {
        let shared = Box::leak(Box::new(AtomicPtr::new(std::ptr::null_mut())));
        LogLines { shared, own: self.own }
    }

    /// Returns the view of this process's own slot, in the mold and in each process that it forks.
    pub fn own(&self) -> SlotWriter {
        self.own
    }

    /// Returns the memory of a worker's slot: that of the request, or a part of the inherited mapping.
    pub fn memory(&self, index: u32, file: Option<OwnedFd>) -> Option<SlotMemory> {
        file.map(SlotMemory::File).or_else(|| self.area?.inherited(index as usize))
    }
}

/// The counters of the error log's lines: the ledger's in the arbiter and the processes without plugins, else
/// those in the slot of this process.
#[derive(Clone, Copy)]
pub struct LogLines {
    shared: &'static AtomicPtr<CounterPages>,
    own: SlotWriter,
}

impl LogLines {
    /// Counts a line of that level; 0 is the least severe.
    pub fn count(&self, level: usize) {
        // SAFETY: null, or the ledger, which is mapped as long as the pointer is here.
        match unsafe { self.shared.load(Ordering::Acquire).as_ref() } {
            Some(ledger) => {
                if let Some(count) = ledger.log_lines.get(level) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => self.own.count_line(level),
        }
    }
}

impl std::fmt::Debug for LogLines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LogLines")
    }
}

#[cfg(test)]
pub(crate) mod tests;
