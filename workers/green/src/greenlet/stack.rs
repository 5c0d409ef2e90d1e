//! The pool of stacks. One reservation of address space, cut into equal slots:
//!
//! ```text
//!   start                                                                     start + slots * slot
//!   |- guard -|------- stack 0 -------|- guard -|------- stack 1 -------|- guard - ...
//!   no access   read/write, grows <--   no access
//! ```
//!
//! A stack becomes accessible when it is first used and stays accessible; untouched pages cost nothing. Free
//! stacks are reused last in, first out, while their pages are warm. The pages of stacks that have been free for
//! some time, beyond a number, are returned to the system. Independent of what runs on a stack.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::rc::Rc;

use corosensei::stack::{Stack, StackPointer};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

use super::overflow;

/// Configuration of the stacks of a hub's greenlets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackConfig {
    /// Usable bytes per stack, rounded up to whole pages. Only touched pages use memory.
    pub size: usize,
    /// Inaccessible bytes below each stack, rounded up to whole pages. One page suffices for Rust code, which
    /// probes large frames. C code that does not could jump over it: use 64 KiB with foreign code.
    pub guard: usize,
    /// Maximum number of greenlets at a time. Each stack uses two of the process's mappings, whose number the
    /// kernel limits (`vm.max_map_count`).
    pub stacks_max: usize,
    /// Number of free stacks whose pages are always kept. The pages of other stacks are released when they
    /// have been free for about a second.
    pub warm_max: usize,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self { size: 256 << 10, guard: 64 << 10, stacks_max: 16 << 10, warm_max: 256 }
    }
}

/// Error of allocating a stack for a new greenlet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// All stacks of the pool are in use.
    #[error("all {0} coroutine stacks are in use: allow more, or bound the greenlets by a pool")]
    Exhausted(usize),
    /// The kernel would refuse mappings before the pool is full.
    #[error(
        "{wanted} coroutine stacks need {needed} mappings, vm.max_map_count allows {limit}: \
         raise that sysctl or allow at most {possible} stacks"
    )]
    TooMany {
        /// Number of stacks requested.
        wanted: usize,
        /// Number of mappings they need, including a reserve for the rest of the process.
        needed: usize,
        /// Value of `vm.max_map_count`.
        limit: usize,
        /// Number of stacks that would fit.
        possible: usize,
    },
    /// The address space could not be reserved or made accessible.
    #[error("cannot map coroutine stacks ({bytes} bytes)")]
    Map {
        /// Number of bytes requested.
        bytes: usize,
        /// Error of the kernel.
        source: io::Error,
    },
}

/// Pool of stacks. Used by one thread, like everything that runs on the stacks.
#[derive(Debug, Clone)]
pub struct StackPool {
    inner: Rc<Reservation>,
}

impl StackPool {
    /// Reserves the address space.
    pub fn new(config: StackConfig) -> Result<Self, StackError> {
        let page = page_size();
        let size = config.size.max(STACK_SIZE_MIN).next_multiple_of(page);
        let guard = config.guard.max(1).next_multiple_of(page);
        let slots = config.stacks_max.max(1);
        check_map_count(slots)?;
        let slot = size + guard;
        let bytes = slot.checked_mul(slots).and_then(NonZeroUsize::new);
        let too_big =
            || StackError::Map { bytes: usize::MAX, source: io::ErrorKind::OutOfMemory.into() };
        let bytes = bytes.ok_or_else(too_big)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_STACK;
        // SAFETY: an anonymous mapping at an address chosen by the kernel does not overlap other memory.
        let start = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, flags) }
            .map_err(|errno| StackError::Map { bytes: bytes.get(), source: errno.into() })?;
        overflow::watch_range(start.as_ptr() as usize, bytes.get(), slot, guard);
        Ok(Self {
            inner: Rc::new(Reservation {
                start: start.cast(),
                bytes: bytes.get(),
                slot,
                guard,
                slots,
                warm_max: config.warm_max,
                used: Cell::new(0),
                free: RefCell::new(Vec::new()),
                cold: Cell::new(0),
                free_least: Cell::new(0),
            }),
        })
    }

    /// Takes a stack, a warm one if possible.
    pub fn take(&self) -> Result<PooledStack, StackError> {
        let pool = &self.inner;
        let mut free = pool.free.borrow_mut();
        let index = match free.pop() {
            Some(index) => index,
            None => pool.open_slot()?,
        };
        pool.free_least.set(pool.free_least.get().min(free.len()));
        pool.cold.set(pool.cold.get().min(free.len()));
        drop(free);
        Ok(PooledStack { pool: Rc::clone(pool), index })
    }

    /// Releases the pages of stacks that have been free since the previous call, except for the warm ones and
    /// for at most `TRIMMED_MAX` per call. Call it periodically.
    ///
    /// The criterion is time and not number: a load of many greenlets that start and finish together would
    /// otherwise release and fault in the same pages all the time.
    pub fn trim(&self) {
        let pool = &self.inner;
        let free = pool.free.borrow();
        let cold = pool.cold.get();
        let colder = pool.free_least.replace(free.len()).saturating_sub(pool.warm_max);
        let colder = colder.min(cold + TRIMMED_MAX);
        if colder > cold {
            free[cold..colder].iter().for_each(|&index| pool.give_pages_back(index));
            pool.cold.set(colder);
        }
    }

    /// Returns the number of stacks in use.
    pub fn in_use(&self) -> usize {
        self.inner.used.get() - self.inner.free.borrow().len()
    }
}

/// One stack of a pool; returned to the pool when dropped.
#[derive(Debug)]
pub struct PooledStack {
    pool: Rc<Reservation>,
    index: usize,
}

// SAFETY: base and limit delimit a slot that this object owns exclusively until it is dropped. Its lowest `guard`
// bytes are never made accessible; the rest is at least `STACK_SIZE_MIN` bytes. Both are page-aligned, which
// exceeds STACK_ALIGNMENT.
unsafe impl Stack for PooledStack {
    fn base(&self) -> StackPointer {
        self.limit().saturating_add(self.pool.slot)
    }

    fn limit(&self) -> StackPointer {
        self.pool.slot_address(self.index)
    }
}

impl Drop for PooledStack {
    fn drop(&mut self) {
        self.pool.put(self.index);
    }
}

#[derive(Debug)]
struct Reservation {
    start: NonNull<u8>,
    bytes: usize,
    slot: usize,
    guard: usize,
    slots: usize,
    warm_max: usize,
    /// Number of slots made accessible so far: those below this index.
    used: Cell<usize>,
    free: RefCell<Vec<usize>>,
    /// Number of entries at the start of `free` that have no pages.
    cold: Cell<usize>,
    /// Minimum length of `free` since the last trim: that many entries at its start were free all the time.
    free_least: Cell<usize>,
}

impl Reservation {
    fn put(&self, index: usize) {
        self.free.borrow_mut().push(index);
    }

    fn open_slot(&self) -> Result<usize, StackError> {
        let index = self.used.get();
        if index == self.slots {
            return Err(StackError::Exhausted(self.slots));
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is the stack part of a slot of this reservation that is not in use yet.
        unsafe { mprotect(self.stack_of(index).cast(), self.slot - self.guard, access) }
            .map_err(|errno| StackError::Map { bytes: self.slot, source: errno.into() })?;
        self.used.set(index + 1);
        Ok(index)
    }

    fn give_pages_back(&self, index: usize) {
        // SAFETY: the stack at `index` is being returned by its only owner: no one reads it before it is
        // handed out again, and its contents are then meaningless.
        let advised = unsafe {
            let length = self.slot - self.guard;
            madvise(self.stack_of(index).cast(), length, MmapAdvise::MADV_DONTNEED)
        };
        debug_assert!(advised.is_ok(), "the range is mapped: {advised:?}");
    }

    fn slot_address(&self, index: usize) -> NonZeroUsize {
        debug_assert!(index < self.slots);
        self.start.addr().saturating_add(index * self.slot)
    }

    fn stack_of(&self, index: usize) -> NonNull<u8> {
        let address = self.slot_address(index).saturating_add(self.guard);
        self.start.with_addr(address)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        overflow::forget_range(self.start.as_ptr() as usize);
        // SAFETY: every stack holds a reference to the reservation, so no stack exists any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the range is mapped: {unmapped:?}");
    }
}

fn check_map_count(slots: usize) -> Result<(), StackError> {
    let Some(limit) = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
    else {
        return Ok(());
    };
    let needed = slots.saturating_mul(2).saturating_add(MAPPINGS_OF_OTHERS);
    if needed > limit {
        let possible = limit.saturating_sub(MAPPINGS_OF_OTHERS) / 2;
        return Err(StackError::TooMany { wanted: slots, needed, limit, possible });
    }
    Ok(())
}

pub(crate) fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(4096)
}

/// Each release is a system call, and together they must not delay the hub.
const TRIMMED_MAX: usize = 256;
/// Minimum size: below it, not even a formatted log line fits.
const STACK_SIZE_MIN: usize = 16 << 10;
/// Mappings reserved for the rest of the process: libraries, heaps, threads, Python's arenas.
const MAPPINGS_OF_OTHERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(stacks_max: usize, warm_max: usize) -> StackPool {
        let config = StackConfig { size: 64 << 10, guard: 4096, stacks_max, warm_max };
        StackPool::new(config).unwrap()
    }

    #[test]
    fn stacks_come_back_last_in_first_out_and_are_bounded() {
        let pool = pool(2, 8);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(matches!(pool.take(), Err(StackError::Exhausted(2))));
        let base = second.base();
        drop(first);
        drop(second);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.take().unwrap().base(), base);
    }

    #[test]
    fn pages_beyond_the_warm_ones_are_given_back_after_some_time() {
        let pool = pool(2, 1);
        let touch = |stack: &PooledStack| {
            let top = stack.pool.start.with_addr(stack.base()).as_ptr().wrapping_sub(8);
            // SAFETY: the topmost bytes of a stack that this test owns and on which nothing runs.
            unsafe { top.replace(42) }
        };
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!((touch(&first), touch(&second)), (0, 0));
        let mut taken = [first, second];
        for (trims, first_was) in [(1, 42), (2, 0)] {
            drop(taken);
            (0..trims).for_each(|_| pool.trim());
            let (second, first) = (pool.take().unwrap(), pool.take().unwrap());
            assert_eq!(touch(&second), 42, "the last one stays warm");
            assert_eq!(touch(&first), first_was, "free since {trims} looks");
            taken = [first, second];
        }
    }

    #[test]
    fn more_stacks_than_the_kernel_maps_are_refused_with_figures() {
        let config = StackConfig { stacks_max: usize::MAX / 4, ..StackConfig::default() };
        let error = StackPool::new(config).unwrap_err();
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
    }
}
