//! The connections of a worker by descriptor, with two orders: by deadline, and by how long they have waited.
//!
//! What an entry contains is up to the user: sync keeps the connections that wait, gthread also those that a thread has,
//! [`RequestDeadlines`](crate::RequestDeadlines) the requests that the application serves. The registry makes no system
//! call.
//!
//! | operation | cost, with n entries |
//! | --- | --- |
//! | find, insert or remove an entry | O(1) |
//! | begin or end a wait | O(1), as long as the deadline of the descriptor moves to a later time |
//! | begin a wait with an earlier deadline | O(log n) |
//! | return a lower bound of all deadlines | O(1) |
//! | take an entry that has expired, or that has waited longest | O(log n), and O(log n) for an earlier time that is out of date, at most one for each descriptor |

use std::os::fd::RawFd;

use crate::deadline::Deadline;
use crate::time_heap::{NEVER, TimeHeap};

/// Entries by descriptor.
pub struct Registry<E> {
    entries: Vec<Option<E>>,
    len: usize,
    deadlines: TimeHeap,
    /// Since when each entry waits.
    waits: TimeHeap,
}

impl<E> Registry<E> {
    /// Adds the entry of a descriptor; it waits for nothing. Returns the entry that it replaces.
    pub fn insert(&mut self, fd: RawFd, entry: E) -> Option<E> {
        let index = index(fd)?;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let replaced = self.entries[index].replace(entry);
        match &replaced {
            Some(_) => self.end_wait(fd),
            None => self.len += 1,
        }
        replaced
    }

    /// Removes the entry of a descriptor.
    pub fn remove(&mut self, fd: RawFd) -> Option<E> {
        let entry = self.entries.get_mut(index(fd)?)?.take()?;
        self.len -= 1;
        self.end_wait(fd);
        Some(entry)
    }

    /// Returns the entry of a descriptor.
    pub fn get_mut(&mut self, fd: RawFd) -> Option<&mut E> {
        self.entries.get_mut(index(fd)?)?.as_mut()
    }

    /// Begins a wait until `deadline`. `since` is the place of the entry among
    /// those that [`Registry::pop_oldest`] returns, the lowest first; it does not return an entry without one.
    pub fn begin_wait(&mut self, fd: RawFd, deadline: Deadline, since: Option<u64>) {
        if let Some(index) = index(fd).filter(|index| self.contains(*index)) {
            self.deadlines.set(index, deadline.ns());
            self.waits.set(index, since.unwrap_or(NEVER));
        }
    }

    /// Ends the wait of an entry, which stays.
    pub fn end_wait(&mut self, fd: RawFd) {
        if let Some(index) = index(fd).filter(|index| *index < self.entries.len()) {
            self.deadlines.set(index, NEVER);
            self.waits.set(index, NEVER);
        }
    }

    /// Returns a lower bound of all deadlines.
    pub fn deadline(&self) -> Deadline {
        Deadline::at_ns(self.deadlines.lower_bound())
    }

    /// Returns the earliest deadline. Unlike [`Registry::deadline`], it corrects the times that are out of
    /// date: for a caller that is woken for nothing else.
    pub fn earliest_deadline(&mut self) -> Deadline {
        Deadline::at_ns(self.deadlines.earliest())
    }

    /// Ends the wait with the earliest deadline, if that has passed at `now_ns`, and returns its descriptor.
    pub fn pop_expired(&mut self, now_ns: u64) -> Option<RawFd> {
        let index = self.deadlines.pop(now_ns)?;
        self.waits.set(index, NEVER);
        Some(index as RawFd)
    }

    /// Ends the wait with the lowest `since`, if that is `until` at most, and returns its descriptor.
    pub fn pop_oldest(&mut self, until: u64) -> Option<RawFd> {
        let index = self.waits.pop(until)?;
        self.deadlines.set(index, NEVER);
        Some(index as RawFd)
    }

    /// Sets the deadline of each entry to what `deadline` returns for it: `None` to leave it as it is. The cost is
    /// proportional to the highest descriptor.
    pub fn update_deadlines(&mut self, mut deadline: impl FnMut(&mut E) -> Option<Deadline>) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let Some(deadline) = entry.as_mut().and_then(&mut deadline) {
                self.deadlines.set(index, deadline.ns());
            }
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn contains(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(Option::is_some)
    }
}

impl<E> Default for Registry<E> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            len: 0,
            deadlines: TimeHeap::default(),
            waits: TimeHeap::default(),
        }
    }
}

/// Returns the index of a descriptor; `None` if it is negative.
fn index(fd: RawFd) -> Option<usize> {
    usize::try_from(fd).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(RawFd),
        Remove(RawFd),
        /// A deadline and a beginning, relative to the current time.
        BeginWait(RawFd, u64, Option<u64>),
        EndWait(RawFd),
        Expire(u64),
        Evict(u64),
    }

    /// An entry of the model: its deadline and since when it waits.
    type Waits = (Option<u64>, Option<u64>);

    fn step() -> impl Strategy<Value = Step> {
        let fd = 0..12_i32;
        prop_oneof![
            2 => fd.clone().prop_map(Step::Insert),
            1 => fd.clone().prop_map(Step::Remove),
            6 => (fd.clone(), 0..100_u64, proptest::option::of(0..50_u64))
                .prop_map(|(fd, left, age)| Step::BeginWait(fd, left, age)),
            2 => fd.prop_map(Step::EndWait),
            2 => (0..60_u64).prop_map(Step::Expire),
            1 => (0..60_u64).prop_map(Step::Evict),
        ]
    }

    /// Removes the waits of the model that `time` says to be over at `until`; returns the times and descriptors.
    fn over(
        model: &mut BTreeMap<RawFd, Waits>,
        until: u64,
        time: impl Fn(&Waits) -> Option<u64>,
    ) -> Vec<(u64, RawFd)> {
        let mut over = Vec::new();
        for (fd, waits) in model {
            if let Some(time) = time(waits).filter(|time| *time <= until) {
                over.push((time, *fd));
                *waits = (None, None);
            }
        }
        over.sort_unstable();
        over
    }

    proptest! {
        /// Against a plain map that is searched.
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec(step(), 1..300)) {
            let mut registry = Registry::default();
            let mut model: BTreeMap<RawFd, Waits> = BTreeMap::new();
            let mut now = 1_000;
            for step in steps {
                match step {
                    Step::Insert(fd) => {
                        let known = model.insert(fd, (None, None)).is_some();
                        prop_assert_eq!(registry.insert(fd, fd).is_some(), known);
                    }
                    Step::Remove(fd) => {
                        let known = model.remove(&fd).is_some();
                        prop_assert_eq!(registry.remove(fd), known.then_some(fd));
                    }
                    Step::BeginWait(fd, left, age) => {
                        let deadline = if left == 0 { NEVER } else { now + left };
                        let since = age.map(|age| now - age);
                        registry.begin_wait(fd, Deadline::at_ns(deadline), since);
                        if let Some(waits) = model.get_mut(&fd) {
                            *waits = ((left != 0).then_some(deadline), since);
                        }
                    }
                    Step::EndWait(fd) => {
                        registry.end_wait(fd);
                        model.entry(fd).and_modify(|waits| *waits = (None, None));
                    }
                    Step::Expire(passed) => {
                        now += passed;
                        let times = model.clone();
                        let popped = std::iter::from_fn(|| registry.pop_expired(now));
                        let mut popped: Vec<_> =
                            popped.map(|fd| (times[&fd].0.unwrap(), fd)).collect();
                        prop_assert!(popped.is_sorted_by_key(|(time, _)| *time));
                        popped.sort_unstable();
                        prop_assert_eq!(popped, over(&mut model, now, |waits| waits.0));
                    }
                    Step::Evict(age) => {
                        let until = now - age;
                        let times = model.clone();
                        let popped = std::iter::from_fn(|| registry.pop_oldest(until));
                        let mut popped: Vec<_> =
                            popped.map(|fd| (times[&fd].1.unwrap(), fd)).collect();
                        prop_assert!(popped.is_sorted_by_key(|(since, _)| *since));
                        popped.sort_unstable();
                        prop_assert_eq!(popped, over(&mut model, until, |waits| waits.1));
                    }
                }
                prop_assert_eq!(registry.len(), model.len());
                let deadlines = model.values().filter_map(|waits| waits.0);
                if let Some(first) = deadlines.min() {
                    prop_assert!(registry.deadline().ns() <= first);
                }
            }
            let first = model.values().filter_map(|waits| waits.0).min();
            prop_assert_eq!(registry.earliest_deadline().ns(), first.unwrap_or(NEVER));
            let mut all = Vec::new();
            registry.update_deadlines(|fd| {
                all.push(*fd);
                Some(Deadline::at_ns(*fd as u64 + 1))
            });
            prop_assert_eq!(&all, &model.keys().copied().collect::<Vec<_>>());
            let popped: Vec<RawFd> = std::iter::from_fn(|| registry.pop_expired(NEVER)).collect();
            prop_assert_eq!(popped, all);
        }
    }

    /// Ten thousand connections that are kept alive for `KEEPALIVE`, each since its own nanosecond.
    fn ten_thousand() -> Registry<()> {
        let mut registry = Registry::default();
        for fd in 0..CONNECTIONS {
            registry.insert(fd, ());
            registry.begin_wait(fd, Deadline::at_ns(KEEPALIVE + fd as u64), Some(fd as u64));
        }
        registry
    }

    #[test]
    fn a_request_of_ten_thousand_connections_inspects_no_other() {
        let mut registry = ten_thousand();
        let before = steps(&registry);
        for fd in 0..CONNECTIONS {
            registry.end_wait(fd);
            registry.begin_wait(fd, Deadline::at_ns(2 * KEEPALIVE + fd as u64), Some(KEEPALIVE));
        }
        assert_eq!(steps(&registry), before);
    }

    #[test]
    fn expiry_of_ten_thousand_connections_inspects_those_that_expire() {
        let mut registry = ten_thousand();
        for expired in 0..CONNECTIONS {
            let before = steps(&registry);
            let now = KEEPALIVE + expired as u64;
            assert_eq!(registry.pop_expired(now), Some(expired));
            assert_eq!(registry.pop_expired(now), None);
            assert!(steps(&registry) - before <= DEPTH_MAX + 2);
        }
        assert!(registry.deadline().is_never());
    }

    #[test]
    fn eviction_from_ten_thousand_connections_inspects_those_that_are_evicted() {
        let mut registry = ten_thousand();
        for oldest in 0..CONNECTIONS {
            let before = steps(&registry);
            assert_eq!(registry.pop_oldest(NEVER), Some(oldest));
            assert!(registry.remove(oldest).is_some());
            assert!(steps(&registry) - before <= DEPTH_MAX + 2);
        }
        assert!(registry.is_empty());
    }

    /// Returns how many slots all operations so far have read or moved.
    fn steps(registry: &Registry<()>) -> usize {
        registry.deadlines.steps + registry.waits.steps
    }

    const CONNECTIONS: RawFd = 10_000;
    const KEEPALIVE: u64 = 1_000_000;
    /// The depth of a heap of ten thousand slots with four children each.
    const DEPTH_MAX: usize = 8;
}
