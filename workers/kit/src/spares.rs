//! Memory of a thread's earlier requests, kept for the next ones: malloc's own cache is small for what a turn brings.

use std::cell::RefCell;
use std::ops::RangeInclusive;

/// Empty vectors with room. One for each thread, in a `thread_local!`.
pub(crate) struct Spares<T>(RefCell<Vec<Vec<T>>>);

impl<T> Spares<T> {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// One of them, if there is one.
    pub(crate) fn take(&self) -> Option<Vec<T>> {
        self.0.borrow_mut().pop()
    }

    /// Keeps an empty vector, unless there are enough of them or its room is not within `room`.
    pub(crate) fn keep(&self, vector: Vec<T>, room: RangeInclusive<usize>) {
        debug_assert!(vector.is_empty(), "what is kept is empty");
        let mut spares = self.0.borrow_mut();
        if spares.len() < SPARES_MAX && room.contains(&vector.capacity()) {
            spares.push(vector);
        }
    }
}

/// A thread needs two of its kind at the most for each request that it has at once: as many as a poller tells of in one
/// turn under load.
const SPARES_MAX: usize = 16;
