//! The memory of Python's own allocator, for objects of up to 512 bytes.
//!
//! CPython takes that memory from the kernel in arenas (1 MiB each; 256 KiB before 3.10) and returns an arena once nothing is
//! left in it. A request that creates many objects, such as the rows of a query, thereby takes pages from the kernel and
//! returns them, which costs a good part of its time. A worker keeps some arenas for the next request. For larger blocks,
//! `host/src/allocator.rs` does the same.

use std::ffi::c_void;
use std::sync::Mutex;

use crate::attach::Python;
use crate::library::Library;

/// `PyObjectArenaAllocator` (CPython's C API, "Customize pymalloc Arena Allocator").
#[repr(C)]
#[derive(Clone, Copy)]
struct ArenaAllocator {
    context: *mut c_void,
    alloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// Signature of `PyObject_GetArenaAllocator` and `PyObject_SetArenaAllocator`.
type Access = unsafe extern "C" fn(*mut ArenaAllocator);

/// The context of the allocator that keeps arenas.
struct Keeper {
    /// CPython's, which gets arenas from the kernel.
    kernel: ArenaAllocator,
    kept: Mutex<Vec<Arena>>,
}

/// An arena that CPython does not use. `start` is its address.
struct Arena {
    start: usize,
    size: usize,
}

/// From now on, keeps up to 8 MiB of arenas that are no longer used. Called once per process. Without an effect in an
/// interpreter that has no such allocator.
pub(crate) fn keep_freed(_: Python<'_>) {
    let Ok(library) = Library::of_process() else { return };
    // SAFETY: this is the signature of both since 3.4.
    let access = |name| unsafe { library.function::<Access>(name) };
    let (Ok(get), Ok(set)) =
        (access("PyObject_GetArenaAllocator"), access("PyObject_SetArenaAllocator"))
    else {
        return;
    };
    let mut allocator = ArenaAllocator { context: std::ptr::null_mut(), alloc, free };
    // SAFETY: attached, so no other thread uses the allocator. `get` fills the struct in, `set` copies it. The new functions
    // can free the arenas of the old ones: they pass them on. The context is never freed.
    unsafe {
        get(&raw mut allocator);
        let keeper = Keeper { kernel: allocator, kept: Mutex::new(Vec::with_capacity(KEPT_MAX)) };
        let context = Box::into_raw(Box::new(keeper)).cast();
        allocator = ArenaAllocator { context, alloc, free };
        set(&raw mut allocator);
    }
}

/// Returns a kept arena, or one from the kernel.
unsafe extern "C" fn alloc(context: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the context is what `keep_freed` has passed with this function, and is never freed.
    let keeper = unsafe { &*context.cast::<Keeper>() };
    // A process that was forked while another interpreter of the process was here keeps nothing.
    if let Ok(mut kept) = keeper.kept.try_lock()
        && let Some(at) = kept.iter().position(|arena| arena.size == size)
    {
        return kept.swap_remove(at).start as *mut c_void;
    }
    // SAFETY: called as CPython would have called it.
    unsafe { (keeper.kernel.alloc)(keeper.kernel.context, size) }
}

/// Keeps an arena, or returns it to the kernel.
unsafe extern "C" fn free(context: *mut c_void, start: *mut c_void, size: usize) {
    // SAFETY: as in `alloc`.
    let keeper = unsafe { &*context.cast::<Keeper>() };
    if let Ok(mut kept) = keeper.kept.try_lock()
        && kept.len() < KEPT_MAX
        && kept.iter().map(|arena| arena.size).sum::<usize>() + size <= KEPT_BYTES
    {
        kept.push(Arena { start: start as usize, size });
        return;
    }
    // SAFETY: called as CPython would have called it. The arena is from the same functions: those kept are, too.
    unsafe { (keeper.kernel.free)(keeper.kernel.context, start, size) }
}

/// Memory kept at most, in bytes, and the number of the smallest arenas that it amounts to.
const KEPT_BYTES: usize = 8 << 20;
const KEPT_MAX: usize = KEPT_BYTES / (256 << 10);
