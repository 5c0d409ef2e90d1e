//! Buffers of a thread's earlier requests, reused for later ones: malloc's per-thread cache is too small for the
//! requests of one poll.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::thread::LocalKey;

/// Empty vectors with capacity. There is one pool per thread, in a `thread_local!`.
pub(crate) struct VecPool<T>(RefCell<Vec<Vec<T>>>);

impl<T: 'static> VecPool<T> {
    /// Creates an empty pool.
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Takes a vector from the thread's pool, if there is one.
    pub(crate) fn take(threads: &'static LocalKey<Self>) -> Option<Vec<T>> {
        threads.try_with(|spares| spares.0.borrow_mut().pop()).ok().flatten()
    }

    /// Clears a vector and keeps it, unless the pool is full or the capacity is not within `room`.
    pub(crate) fn keep(
        threads: &'static LocalKey<Self>,
        mut vector: Vec<T>,
        room: RangeInclusive<usize>,
    ) {
        // Checked first: a vector without memory, of which each request has one, needs no access to the
        // pool.
        if !room.contains(&vector.capacity()) {
            return;
        }
        vector.clear();
        // Fails while the thread ends: then the memory is freed.
        let _ = threads.try_with(|spares| {
            let mut spares = spares.0.borrow_mut();
            if spares.len() < SPARES_MAX {
                spares.push(vector);
            }
        });
    }
}

/// The maximum size of a pool. A thread needs up to two vectors of a kind for each request that it handles at the
/// same time: as many as one poll reports under load.
const SPARES_MAX: usize = 16;
