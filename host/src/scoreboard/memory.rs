//! The mappings behind the scoreboard.
//!
//! ```text
//!                       ledger      slots
//!     arbiter           write       read, each mapped over its place in one area
//!     status            write       read: inherited, and by descriptor for those made later
//!     mold, worker      –           write, its own; unmapped in what it forks
//! ```
//!
//! The access lines of a worker follow its slot in the same file. A slot is a sealed memfd: a process with its
//! descriptor can neither shrink it, which would kill the reader (SIGBUS), nor reach another slot with it. If the
//! system refuses memfds, all slots are one mapping that every process inherits ([`Area::is_inherited`]): of a file
//! without a name, which a program that a mold executes maps again, or, if no directory permits such a file, of none.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::{self, c_void};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::layout::{
    CounterPages, FILE_SIZE, LEDGER_SIZE, LinePages, SLOTS_TOTAL, Slot, SlotPages,
};
use crate::memfd::{MFdFlags, memfd_create, unnamed_file};

/// The memory of one slot, on its way to its owner.
#[derive(Debug)]
pub enum SlotMemory {
    /// A file that contains this slot alone.
    File(OwnedFd),
    /// A part of the area that the process has inherited.
    Inherited(Inherited),
}

/// A slot in the area that this process has inherited.
pub struct Inherited(&'static SlotPages);

impl Inherited {
    pub(super) fn pages(&self) -> &'static SlotPages {
        self.0
    }
}

impl std::fmt::Debug for Inherited {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Inherited")
    }
}

impl SlotMemory {
    /// Returns a second handle.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(match self {
            Self::File(file) => Self::File(file.try_clone()?),
            Self::Inherited(Inherited(pages)) => Self::Inherited(Inherited(pages)),
        })
    }

    /// Returns the descriptor to pass on, if there is one.
    pub fn descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::File(file) => Some(file),
            Self::Inherited(_) => None,
        }
    }
}

/// Creates the file of an inherited area, if a directory permits it.
fn create_area() -> Option<OwnedFd> {
    let file = unnamed_file().ok()?;
    file.set_len((SLOTS_TOTAL * FILE_SIZE) as u64).ok()?;
    Some(file.into())
}

/// Creates the file of one slot: zeroed, with a sealed size.
pub(super) fn create_slot() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"jimu-slot", flags)?;
    nix::unistd::ftruncate(&file, FILE_SIZE as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Maps an empty ledger, shared with the processes that are forked later.
pub(super) fn map_ledger() -> nix::Result<&'static CounterPages> {
    let start = map_shared(LEDGER_SIZE)?;
    // SAFETY: page-aligned, large enough (asserted in the layout module), zeroed, and unmapped only by
    // `unmap_all`; atomics alone, for which zero is valid.
    Ok(unsafe { start.cast().as_ref() })
}

/// Address space with a position for each slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    start: NonNull<c_void>,
    is_inherited: bool,
    /// The file of an inherited area, never closed.
    file: Option<BorrowedFd<'static>>,
}

// SAFETY: an address. The memory there is atomics, which any thread may use, and access lines: see `LinePages`.
unsafe impl Send for Area {}
// SAFETY: see above.
unsafe impl Sync for Area {}

impl Area {
    /// Maps the area. With `is_inherited` the slots stay in it, since there are no memfds.
    pub(super) fn map(is_inherited: bool) -> nix::Result<Self> {
        if let Some(file) = is_inherited.then(create_area).flatten() {
            return Self::of_file(file);
        }
        Ok(Self { start: map_shared(SLOTS_TOTAL * FILE_SIZE)?, is_inherited, file: None })
    }

    /// Maps the area of the process that executed this one.
    pub(super) fn of_file(file: OwnedFd) -> nix::Result<Self> {
        let size = NonZeroUsize::new(SLOTS_TOTAL * FILE_SIZE).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice. The file has no name and its size never changes.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        // SAFETY: the descriptor is never closed.
        let file = unsafe { BorrowedFd::borrow_raw(file.into_raw_fd()) };
        Ok(Self { start, is_inherited: true, file: Some(file) })
    }

    /// Returns the file of an inherited area.
    pub(super) fn file(self) -> Option<BorrowedFd<'static>> {
        self.file
    }

    /// Returns whether slots are parts of this mapping instead of files.
    pub(super) fn is_inherited(self) -> bool {
        self.is_inherited
    }

    /// Returns the memory mapped at the position of a slot.
    pub(super) fn pages(self, index: usize) -> Option<&'static SlotPages> {
        let start = self.place(index)?;
        // SAFETY: within the area, at a multiple of the page size. Something is always mapped there, of
        // which the whole file can be read; atomics, and bytes in an `UnsafeCell`.
        Some(unsafe { start.cast().as_ref() })
    }

    /// Returns the memory of a slot of the area itself, for its writer.
    pub(super) fn inherited(self, index: usize) -> Option<SlotMemory> {
        let pages = self.pages(index).filter(|_| self.is_inherited)?;
        Some(SlotMemory::Inherited(Inherited(pages)))
    }

    /// Returns the position of a slot of the area itself.
    pub(super) fn index_of(self, slot: &Inherited) -> Option<usize> {
        let offset =
            (std::ptr::from_ref(slot.0) as usize).checked_sub(self.start.as_ptr() as usize)?;
        Some(offset / FILE_SIZE).filter(|index| *index < SLOTS_TOTAL)
    }

    /// Maps a slot's file at its position, for reading.
    pub(super) fn show(self, index: usize, file: &OwnedFd) -> nix::Result<()> {
        let start = self.place(index).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: the range is a slot's position in the area, which belongs to this type alone; it stays
        // mapped and readable, and references to it see atomics and bytes in an `UnsafeCell`, whatever their values.
        unsafe { mmap(Some(address(start)?), SIZE_OF_FILE, ProtFlags::PROT_READ, flags, file, 0) }
            .map(drop)
    }

    /// Unmaps a slot's file from its position, which reads as zeros from now on.
    pub(super) fn hide(self, index: usize) -> nix::Result<()> {
        let start = self.place(index).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        // SAFETY: see `show`.
        unsafe { mmap_anonymous(Some(address(start)?), SIZE_OF_FILE, ProtFlags::PROT_READ, flags) }
            .map(drop)
    }

    fn place(self, index: usize) -> Option<NonNull<c_void>> {
        // SAFETY: the offset lies within the area.
        (index < SLOTS_TOTAL).then(|| unsafe { self.start.byte_add(index * FILE_SIZE) })
    }
}

/// Unmaps the parts that a mold does not need: the ledger, and the area unless its slots are in it.
///
/// # Safety
///
/// Nothing in this process may use the ledger or the area's slots afterwards.
pub(super) unsafe fn unmap_all(ledger: &'static CounterPages, area: Area) -> nix::Result<()> {
    // SAFETY: the ranges are those that were mapped here, and the caller guarantees the rest.
    unsafe {
        munmap(NonNull::from(ledger).cast(), LEDGER_SIZE)?;
        if !area.is_inherited {
            munmap(area.start, SLOTS_TOTAL * FILE_SIZE)?;
        }
    }
    Ok(())
}

/// The slot that this process writes: none in a process that has just been forked, no matter by which code.
#[derive(Debug)]
pub(super) struct OwnSlot {
    /// In a page that the kernel wipes in every fork.
    pages: AtomicPtr<SlotPages>,
    /// Whether an [`OwnLines`] exists.
    lines_taken: AtomicBool,
}

/// The one handle with which a process writes its access lines.
#[derive(Debug)]
pub(super) struct OwnLines(&'static OwnSlot);

impl OwnLines {
    /// Returns the memory; `None` in a process that was forked from the one that took the handle.
    pub(super) fn get(&self) -> Option<&'static LinePages> {
        self.0.pages().map(|pages| &pages.lines)
    }
}

impl OwnSlot {
    /// Creates a page for the pointer.
    pub(super) fn new() -> nix::Result<&'static Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let size = NonZeroUsize::new(size_of::<Self>()).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
        // SAFETY: page-aligned, zeroed, never unmapped; a null pointer is valid.
        let own: &'static Self = unsafe { page.cast().as_ref() };
        // SAFETY: the page belongs to this mapping alone, and zero is valid for its content.
        if unsafe { madvise(page, size.get(), MmapAdvise::MADV_WIPEONFORK) }.is_err() {
            // Before Linux 4.14, or if refused: the C library's fork handler does it, which covers all
            // but raw system calls.
            FALLBACK.store(std::ptr::from_ref(own).cast_mut(), Ordering::Release);
            // SAFETY: the handler is async-signal-safe.
            REGISTER.call_once(|| unsafe {
                libc::pthread_atfork(None, None, Some(forget_after_fork));
            });
        }
        Ok(own)
    }

    /// Maps the slot of this process, so that processes it forks do not have it.
    pub(super) fn enter(&self, memory: SlotMemory) -> nix::Result<()> {
        let pages = match memory {
            SlotMemory::File(file) => map_own(&file)?,
            SlotMemory::Inherited(Inherited(pages)) => NonNull::from(pages),
        };
        self.pages.store(pages.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Returns the slot, or one that is never read.
    pub(super) fn get(&self) -> &'static Slot {
        self.pages().map_or(&NOWHERE, |pages| &pages.slot)
    }

    /// Returns the handle for the access lines; `None` if it is already taken or there is no slot.
    pub(super) fn take_lines(&'static self) -> Option<OwnLines> {
        self.pages()?;
        (!self.lines_taken.swap(true, Ordering::AcqRel)).then_some(OwnLines(self))
    }

    fn pages(&self) -> Option<&'static SlotPages> {
        // SAFETY: null, or memory that this process has mapped and never unmaps. A process that was forked
        // from it, and so lacks the mapping, reads null.
        unsafe { self.pages.load(Ordering::Acquire).as_ref() }
    }
}

fn map_own(file: &OwnedFd) -> nix::Result<NonNull<SlotPages>> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice; the file's size is sealed.
    let start =
        unsafe { mmap(None, SIZE_OF_FILE, protection, MapFlags::MAP_SHARED, file.as_fd(), 0) }?;
    // SAFETY: it changes nothing in this process. A refusal leaves the mapping in forked processes, which do
    // not use it.
    let _ = unsafe { madvise(start, FILE_SIZE, MmapAdvise::MADV_DONTFORK) };
    Ok(start.cast())
}

extern "C" fn forget_after_fork() {
    // SAFETY: null, or a page that is never unmapped.
    if let Some(own) = unsafe { FALLBACK.load(Ordering::Acquire).as_ref() } {
        own.pages.store(std::ptr::null_mut(), Ordering::Release);
    }
}

fn map_shared(size: usize) -> nix::Result<NonNull<c_void>> {
    let size = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe {
        mmap_anonymous(None, size, protection, MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE)
    }
}

fn address(start: NonNull<c_void>) -> nix::Result<NonZeroUsize> {
    NonZeroUsize::new(start.as_ptr() as usize).ok_or(Errno::EINVAL)
}

/// The slot of a process without one.
// SAFETY: atomics alone, for which zero is valid.
static NOWHERE: Slot = unsafe { std::mem::zeroed() };
/// The page to clear in a forked process, if the kernel does not.
static FALLBACK: AtomicPtr<OwnSlot> = AtomicPtr::new(std::ptr::null_mut());
static REGISTER: Once = Once::new();
const SIZE_OF_FILE: NonZeroUsize = match NonZeroUsize::new(FILE_SIZE) {
    Some(size) => size,
    None => panic!("a slot has bytes"),
};
