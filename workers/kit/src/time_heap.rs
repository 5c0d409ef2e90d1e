//! A priority queue of times, at most one for each descriptor.
//!
//! A connection that is kept alive gets a new deadline with each request, and hardly ever reaches one. Setting a later
//! time, or clearing it, therefore only writes the key of the descriptor: its slot in the heap keeps the earlier time
//! until that is reached, and is moved or removed then. A slot that a closed connection has left is used by the next
//! connection with the same descriptor. So the heap is never longer than the number of descriptors.
//!
//! ```text
//!     keys, by descriptor                   slots, a heap ordered by `at`
//!     ┌──────┬────────┬──────────┐          ┌────┬────┐
//!     │ time │ queued │ position ├─────────►│ at │ fd │          at = queued <= time
//!     └──────┴────────┴──────────┘          └────┴────┘
//! ```

/// Times by descriptor.
#[derive(Default)]
pub(crate) struct TimeHeap {
    keys: Vec<Key>,
    slots: Vec<Slot>,
    /// The number of slots that were read or moved, to count in tests what an operation costs.
    #[cfg(test)]
    pub(crate) steps: usize,
}

#[derive(Clone, Copy)]
struct Key {
    /// The time that was set last.
    time: u64,
    /// The time of its slot; [`NEVER`] if it has none.
    queued: u64,
    /// The index of its slot, if it has one.
    position: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    at: u64,
    fd: usize,
}

impl TimeHeap {
    /// Sets the time of a descriptor; [`NEVER`] clears it. O(1) unless the time is earlier than that of the slot.
    pub(crate) fn set(&mut self, fd: usize, time: u64) {
        if self.keys.len() <= fd {
            self.keys.resize(fd + 1, Key::UNSET);
        }
        let key = &mut self.keys[fd];
        key.time = time;
        if time >= key.queued {
            return;
        }
        let slot = Slot { at: time, fd };
        let position = if key.queued == NEVER { self.slots.len() } else { key.position };
        if position == self.slots.len() {
            self.slots.push(slot);
        }
        self.sift_up(position, slot);
    }

    /// Returns a time that is not later than any of those set; [`NEVER`] if there is no slot. O(1).
    pub(crate) fn lower_bound(&self) -> u64 {
        self.slots.first().map_or(NEVER, |slot| slot.at)
    }

    /// Returns the earliest time; [`NEVER`] if none is set. Corrects all slots that are earlier.
    pub(crate) fn earliest(&mut self) -> u64 {
        self.correct_first(NEVER).map_or(NEVER, |slot| slot.at)
    }

    /// Clears the earliest time, if it is not later than `until`, and returns its descriptor.
    pub(crate) fn pop(&mut self, until: u64) -> Option<usize> {
        let first = self.correct_first(until)?;
        self.remove_first();
        self.keys[first.fd].time = NEVER;
        Some(first.fd)
    }

    /// Moves or removes the first slot until it has the time of its descriptor, and returns it; `None` if it is later than
    /// `until`.
    fn correct_first(&mut self, until: u64) -> Option<Slot> {
        while let Some(&first) = self.slots.first()
            && first.at <= until
        {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            match self.keys[first.fd].time {
                time if time == first.at => return Some(first),
                NEVER => self.remove_first(),
                later => self.sift_down(Slot { at: later, fd: first.fd }),
            }
        }
        None
    }

    fn remove_first(&mut self) {
        self.keys[self.slots[0].fd].queued = NEVER;
        let last = self.slots.pop();
        if let Some(last) = last
            && !self.slots.is_empty()
        {
            self.sift_down(last);
        }
    }

    /// Places a slot at `position`, or nearer to the first one.
    fn sift_up(&mut self, mut position: usize, slot: Slot) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if self.slots[parent].at <= slot.at {
                break;
            }
            self.place(position, self.slots[parent]);
            position = parent;
        }
        self.place(position, slot);
    }

    /// Places a slot first, or as far from there as its time requires.
    fn sift_down(&mut self, slot: Slot) {
        let mut position = 0;
        loop {
            let first_child = position * ARITY + 1;
            let end = (first_child + ARITY).min(self.slots.len());
            let Some(least) = (first_child..end).min_by_key(|child| self.slots[*child].at) else {
                break;
            };
            if self.slots[least].at >= slot.at {
                break;
            }
            self.place(position, self.slots[least]);
            position = least;
        }
        self.place(position, slot);
    }

    fn place(&mut self, position: usize, slot: Slot) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        self.slots[position] = slot;
        let key = &mut self.keys[slot.fd];
        key.queued = slot.at;
        key.position = position;
    }
}

impl Key {
    const UNSET: Self = Self { time: NEVER, queued: NEVER, position: 0 };
}

/// The time of a descriptor without one: later than any other.
pub(crate) const NEVER: u64 = u64::MAX;
/// Children per node: four keep the heap shallow, and the children of a node in one or two cache lines.
const ARITY: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_popped_in_order() {
        let mut heap = TimeHeap::default();
        for (fd, time) in [(3, 30), (1, 10), (4, 40), (2, 20), (5, 50)] {
            heap.set(fd, time);
        }
        heap.set(1, 35);
        heap.set(5, 5);
        heap.set(4, NEVER);
        assert_eq!(heap.lower_bound(), 5);
        let popped: Vec<usize> = std::iter::from_fn(|| heap.pop(34)).collect();
        assert_eq!(popped, [5, 2, 3]);
        assert_eq!(heap.earliest(), 35);
        assert_eq!((heap.pop(35), heap.pop(NEVER)), (Some(1), None));
        assert_eq!(heap.lower_bound(), NEVER);
    }

    #[test]
    fn a_later_time_does_not_touch_the_heap() {
        let mut heap = TimeHeap::default();
        (0..100).for_each(|fd| heap.set(fd, 10));
        let steps = heap.steps;
        for time in 10..1_000 {
            (0..100).for_each(|fd| heap.set(fd, time));
        }
        heap.set(7, NEVER);
        assert_eq!(heap.steps, steps);
        assert_eq!(heap.slots.len(), 100);
        assert_eq!(heap.earliest(), 999);
    }

    #[test]
    fn a_descriptor_that_is_used_again_has_one_slot() {
        let mut heap = TimeHeap::default();
        for time in (1..100).rev() {
            heap.set(3, time);
            heap.set(3, NEVER);
        }
        assert_eq!(heap.slots.len(), 1);
        assert_eq!(heap.pop(NEVER), None);
        assert!(heap.slots.is_empty());
    }
}
