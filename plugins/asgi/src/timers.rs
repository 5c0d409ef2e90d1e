//! When something is due for requests. The loop has one timer, for the earliest of them, so that an idle connection costs an
//! entry here and no timer of the loop.

use std::collections::BTreeSet;

/// The requests for which something is due.
#[derive(Default)]
pub(crate) struct Timers {
    /// Times and the numbers of their requests.
    due: BTreeSet<(u64, u64)>,
    /// When the loop's timer fires.
    armed_ns: Option<u64>,
}

impl Timers {
    /// Moves the time at which something is due for a request.
    pub(crate) fn set(&mut self, number: u64, from_ns: Option<u64>, to_ns: Option<u64>) {
        if from_ns == to_ns {
            return;
        }
        if let Some(from_ns) = from_ns {
            self.due.remove(&(from_ns, number));
        }
        if let Some(to_ns) = to_ns {
            self.due.insert((to_ns, number));
        }
    }

    /// Returns when the loop's timer has to fire, if that is earlier than it does: the caller sets it.
    pub(crate) fn rearm(&mut self) -> Option<u64> {
        let first_ns = self.due.first()?.0;
        if self.armed_ns.is_some_and(|armed_ns| armed_ns <= first_ns) {
            return None;
        }
        self.armed_ns = Some(first_ns);
        Some(first_ns)
    }

    /// Takes the requests that are due, after the loop's timer has fired.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Vec<u64> {
        self.armed_ns = None;
        let later = self.due.split_off(&(now_ns.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.due, later);
        due.into_iter().map(|(_, number)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_timer_is_set_for_the_earliest_only() {
        let mut timers = Timers::default();
        assert_eq!(timers.rearm(), None);
        timers.set(1, None, Some(50));
        assert_eq!(timers.rearm(), Some(50));
        timers.set(2, None, Some(70));
        assert_eq!(timers.rearm(), None, "a later one needs nothing");
        timers.set(2, Some(70), Some(30));
        assert_eq!(timers.rearm(), Some(30));
        timers.set(2, Some(30), None);
        assert_eq!(timers.rearm(), None, "the timer may fire for nothing");
    }

    #[test]
    fn what_is_due_is_taken_once() {
        let mut timers = Timers::default();
        for (number, due_ns) in [(1, 10), (2, 20), (3, 21)] {
            timers.set(number, None, Some(due_ns));
        }
        timers.rearm();
        assert_eq!(timers.take_due(20), [1, 2]);
        assert_eq!(timers.rearm(), Some(21));
        timers.set(1, None, Some(40));
        assert_eq!(timers.take_due(20), []);
        assert_eq!(timers.take_due(40), [3, 1]);
        assert_eq!(timers.rearm(), None);
    }
}
