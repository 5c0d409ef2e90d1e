//! A worker that has all the connections it may have (`worker_connections`): which of them give way to clients that
//! wait to be accepted. Without it, so many clients that send nothing, or too little, would keep all others out.

use std::time::Duration;

use crate::clock::{nanoseconds, now_ns};
use crate::context::ServerContext;

/// Picks, of the connections that wait since the time beside them ([`crate::Connection::waits_since_ns`]), those that
/// are to give way to `needed` others: the ones that have waited longest, and for at least half a second.
pub fn pick<T>(waiting: impl Iterator<Item = (u64, T)>, needed: usize) -> Vec<T> {
    let until_ns = now_ns().saturating_sub(nanoseconds(PATIENCE));
    let mut waiting: Vec<(u64, T)> =
        waiting.filter(|(since_ns, _)| *since_ns <= until_ns).collect();
    if needed < waiting.len() {
        waiting.select_nth_unstable_by_key(needed, |(since_ns, _)| *since_ns);
        waiting.truncate(needed);
    }
    waiting.into_iter().map(|(_, connection)| connection).collect()
}

impl ServerContext {
    /// Logs that connections gave way to others: once a minute at most.
    pub fn note_crowd(&self, closed: usize) {
        if closed > 0 && self.is_news_of_crowd(now_ns()) {
            tracing::warn!(
                "worker_connections ({}) reached: closed {closed} connections that waited longest for a request \
                 (logged once a minute)",
                self.config.worker_connections
            );
        }
    }
}

/// How long a worker at its limit leaves new connections to other workers before it makes room for them.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may wait for a request however many others wait: the time that an ordinary client needs to send
/// one after it has connected.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_waited_longest_give_way() {
        let now = now_ns();
        let second = 1_000_000_000;
        let waiting =
            || [(now - second, 1), (now, 2), (now - 3 * second, 3), (now - 2 * second, 4)];
        let picked = |needed| {
            let mut picked = pick(waiting().into_iter(), needed);
            picked.sort_unstable();
            picked
        };
        assert_eq!(picked(0), []);
        assert_eq!(picked(1), [3]);
        assert_eq!(picked(2), [3, 4]);
        assert_eq!(picked(9), [1, 3, 4], "one that has just come stays");
    }
}
