//! The hub's timers: an indexed heap of deadlines. Independent of clocks, descriptors and greenlets.
//!
//! A keep-alive timeout is set and canceled per request and hardly ever expires. Setting a timer later, or
//! cancelling it, therefore only writes its entry: the heap keeps the old, earlier position until that time, and
//! the timer is then repositioned or removed. A timer has at most one position in the heap, so the heap is never
//! longer than the number of timers.

use std::time::{Duration, Instant};

use slab::Slab;

/// Timers, each with an action of type `A`.
#[derive(Debug)]
pub(crate) struct Timers<A> {
    entries: Slab<Entry<A>>,
    heap: Vec<Slot>,
    sequence: u32,
    /// Times are kept as nanoseconds since then: a timer takes a third less memory.
    start: Instant,
}

/// Identifies a timer until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

#[derive(Debug)]
struct Entry<A> {
    action: A,
    /// Actual deadline, or `UNSET`. Never earlier than its position in the heap.
    deadline_ns: u64,
    /// Index in the heap, or `NOWHERE`.
    position: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    at_ns: u64,
    /// Timers due at the same instant run in the order in which they were set. It wraps around: timers for the same
    /// nanosecond are not set billions of others apart.
    sequence: u32,
    key: u32,
}

impl<A> Timers<A> {
    pub(crate) fn new() -> Self {
        Self { entries: Slab::new(), heap: Vec::new(), sequence: 0, start: Instant::now() }
    }

    /// Adds a timer, unset.
    pub(crate) fn add(&mut self, action: A) -> TimerKey {
        let entry = Entry { action, deadline_ns: UNSET, position: NOWHERE };
        TimerKey(u32::try_from(self.entries.insert(entry)).expect("timers fit in memory"))
    }

    /// Sets a timer, whether or not it was set before. O(1) if it moves later, O(log n) otherwise. After a
    /// [`drain`](Self::drain), keys are invalid and setting one has no effect.
    pub(crate) fn set(&mut self, key: TimerKey, at: Instant) {
        let at_ns = self.since_start(at);
        let Some(entry) = self.entries.get_mut(key.0 as usize) else { return };
        entry.deadline_ns = at_ns;
        let position = entry.position;
        self.sequence = self.sequence.wrapping_add(1);
        let slot = Slot { at_ns, sequence: self.sequence, key: key.0 };
        if position == NOWHERE {
            self.heap.push(slot);
            self.sift_up(self.heap.len() - 1);
        } else if at_ns < self.heap[position as usize].at_ns {
            self.heap[position as usize] = slot;
            self.sift_up(position as usize);
        }
    }

    /// Cancels a timer. It can be set again.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        if let Some(entry) = self.entries.get_mut(key.0 as usize) {
            entry.deadline_ns = UNSET;
        }
    }

    /// Removes a timer; `None` if all were drained before.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<A> {
        let entry = self.entries.try_remove(key.0 as usize)?;
        if entry.position != NOWHERE {
            self.take_slot(entry.position as usize);
        }
        Some(entry.action)
    }

    /// Returns a time before which nothing is due. It may be too early (see above), never too late.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|slot| self.start + Duration::from_nanos(slot.at_ns))
    }

    /// Cancels one timer that is due and returns its action; `None` when no more are due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<&A> {
        let now_ns = self.since_start(now);
        while let Some(&Slot { at_ns, key, .. }) = self.heap.first() {
            if at_ns > now_ns {
                return None;
            }
            let key = key as usize;
            let deadline_ns = self.entries[key].deadline_ns;
            if deadline_ns != UNSET && deadline_ns > at_ns {
                // It was postponed. Even if it is due by now, others may be due earlier.
                self.heap[0].at_ns = deadline_ns;
                self.sift_down(0);
                continue;
            }
            self.take_slot(0);
            let entry = &mut self.entries[key];
            entry.position = NOWHERE;
            entry.deadline_ns = UNSET;
            if deadline_ns != UNSET {
                return Some(&self.entries[key].action);
            }
        }
        None
    }

    /// Removes all timers; returns the actions so that the caller drops them outside any borrow.
    pub(crate) fn drain(&mut self) -> Vec<A> {
        self.heap.clear();
        self.entries.drain().map(|entry| entry.action).collect()
    }

    fn since_start(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since).unwrap_or(UNSET).min(UNSET - 1)
    }

    fn take_slot(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sift_down(position);
            self.sift_up(position);
        }
    }

    fn sift_up(&mut self, mut position: usize) {
        let slot = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if !slot.before(&self.heap[parent]) {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, slot);
    }

    fn sift_down(&mut self, mut position: usize) {
        let slot = self.heap[position];
        loop {
            let first = position * ARITY + 1;
            let end = (first + ARITY).min(self.heap.len());
            let mut least: Option<usize> = None;
            for child in first..end {
                if least.is_none_or(|best| self.heap[child].before(&self.heap[best])) {
                    least = Some(child);
                }
            }
            match least {
                Some(child) if self.heap[child].before(&slot) => {
                    self.place(position, self.heap[child]);
                    position = child;
                }
                _ => break,
            }
        }
        self.place(position, slot);
    }

    fn place(&mut self, position: usize, slot: Slot) {
        self.heap[position] = slot;
        self.entries[slot.key as usize].position = position as u32;
    }
}

impl Slot {
    fn before(&self, other: &Self) -> bool {
        let was_set_before = || self.sequence.wrapping_sub(other.sequence).cast_signed() < 0;
        self.at_ns < other.at_ns || (self.at_ns == other.at_ns && was_set_before())
    }
}

/// Children per node: four keep the heap shallow and a node's children in one or two cache lines.
const ARITY: usize = 4;
const NOWHERE: u32 = u32::MAX;
const UNSET: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, u64),
        Cancel(usize),
        Replace(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_usize, 0..100_u64).prop_map(|(t, ms)| Step::Set(t, ms)),
            2 => (0..12_usize).prop_map(Step::Cancel),
            1 => (0..12_usize).prop_map(Step::Replace),
            2 => (0..60_u64).prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Against a plain map of deadlines: the same timers run out, each in the order of its time.
        #[test]
        fn behaves_as_a_map_of_deadlines(steps in proptest::collection::vec(step(), 1..200)) {
            let mut timers = Timers::new();
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let mut keys: Vec<TimerKey> = (0..12_usize).map(|t| timers.add(t)).collect();
            let mut model: BTreeMap<usize, u64> = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Set(t, ms) => {
                        timers.set(keys[t], at(now + ms));
                        model.insert(t, now + ms);
                    }
                    Step::Cancel(t) => {
                        timers.cancel(keys[t]);
                        model.remove(&t);
                    }
                    Step::Replace(t) => {
                        prop_assert_eq!(timers.remove(keys[t]), Some(t));
                        keys[t] = timers.add(t);
                        model.remove(&t);
                    }
                    Step::Advance(ms) => {
                        now += ms;
                        let mut ran = Vec::new();
                        while let Some(&t) = timers.pop_due(at(now)) {
                            ran.push(t);
                        }
                        let times: Vec<u64> = ran.iter().map(|t| model[t]).collect();
                        prop_assert!(times.is_sorted(), "order {:?}", times);
                        let due: Vec<usize> =
                            model.iter().filter(|(_, d)| **d <= now).map(|(t, _)| *t).collect();
                        ran.sort_unstable();
                        prop_assert_eq!(&ran, &due);
                        model.retain(|_, deadline| *deadline > now);
                    }
                }
                prop_assert!(timers.heap.len() <= keys.len());
                if let Some(earliest) = model.values().min() {
                    prop_assert!(timers.next().is_some_and(|next| next <= at(*earliest)));
                }
            }
        }
    }

    /// Each connection has one.
    #[test]
    fn a_timer_takes_little_memory() {
        assert_eq!(size_of::<Slot>(), 16);
        assert_eq!(size_of::<Entry<usize>>(), 24);
    }

    #[test]
    fn timers_of_one_instant_keep_their_order() {
        let now = Instant::now();
        let mut timers = Timers::new();
        // The count of timers that were set wraps around on the way.
        timers.sequence = u32::MAX - 25;
        for name in 0..50 {
            let key = timers.add(name);
            timers.set(key, now);
        }
        let ran: Vec<i32> = std::iter::from_fn(|| timers.pop_due(now).copied()).collect();
        assert_eq!(ran, (0..50).collect::<Vec<_>>());
    }
}
