//! Memory of a thread's earlier requests, kept for the next ones: malloc's own cache is small for what a turn brings.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::thread::LocalKey;

/// Empty vectors with room. One for each thread, in a `thread_local!`.
pub(crate) struct VecPool<T>(RefCell<Vec<Vec<T>>>);

impl<T: 'static> VecPool<T> {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// One of the thread's, if there is one.
    pub(crate) fn take(threads: &'static LocalKey<Self>) -> Option<Vec<T>> {
        threads.try_with(|spares| spares.0.borrow_mut().pop()).ok().flatten()
    }

    /// Empties a vector and keeps it, unless there are enough of them or its room is not within `room`.
    pub(crate) fn keep(
        threads: &'static LocalKey<Self>,
        mut vector: Vec<T>,
        room: RangeInclusive<usize>,
    ) {
        // First: a vector without memory, as there is one in each request, costs no look at the thread.
        if !room.contains(&vector.capacity()) {
            return;
        }
        vector.clear();
        // Where the thread ends, its memory is freed.
        let _ = threads.try_with(|spares| {
            let mut spares = spares.0.borrow_mut();
            if spares.len() < SPARES_MAX {
                spares.push(vector);
            }
        });
    }
}

/// A thread needs two of its kind at the most for each request that it has at once: as many as a poller tells of in one
/// turn under load.
const SPARES_MAX: usize = 16;
