//! The C library's allocator, which this crate, plugins and the application share.

use std::ffi::c_void;
use std::hint::black_box;

use nix::libc::{free, malloc};

/// Lets the allocator of this process keep up to 8 MiB of freed memory at the end of its heap, and use the heap for blocks
/// of up to 4 MiB.
///
/// At first, the allocator of glibc keeps 128 KiB, and gets each block of 128 KiB or more from the kernel. A request whose
/// body or response is larger then takes pages from the kernel and returns them, which costs more than the request. glibc
/// raises both limits when a program frees a large block (`M_MMAP_THRESHOLD` in mallopt(3)): this does it in advance. The
/// limits remain the allocator's, which raises them further, and those that the environment sets (`MALLOC_TRIM_THRESHOLD_`
/// and others) stay. The pages of the block are never touched, so this costs two system calls and no memory.
pub(crate) fn keep_freed_memory() {
    // SAFETY: the block is freed once and not accessed; null may be freed.
    unsafe { free(black_box::<*mut c_void>(malloc(BLOCK))) };
}

/// The largest block that comes from the heap afterwards. The memory kept is twice that.
const BLOCK: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    /// Returns how many page faults a request causes on this thread that uses three megabytes.
    fn faults() -> i64 {
        let count = || getrusage(UsageWho::RUSAGE_THREAD).expect("this thread").minor_page_faults();
        let before = count();
        let blocks = [1_u8, 2, 3].map(|byte| black_box(vec![byte; 1 << 20]));
        drop(blocks);
        count() - before
    }

    #[test]
    fn memory_that_a_request_has_freed_serves_the_next() {
        keep_freed_memory();
        faults();
        let faults: Vec<i64> = (0..20).map(|_| faults()).collect();
        assert!(faults.iter().all(|count| *count < 64), "{faults:?} page faults");
    }
}
