//! Eviction: which connections a worker at its limit (`worker_connections`) closes in favor of clients that wait
//! to be accepted. Otherwise clients that send nothing, or too little, could keep all others out.

use std::time::Duration;

use crate::clock::{nanoseconds, now_ns};
use crate::context::ServerContext;

/// Returns since when a connection must have waited to be evicted now: since then or earlier, in monotonic nanoseconds.
pub fn evictable_since_ns() -> u64 {
    now_ns().saturating_sub(nanoseconds(WAIT_MIN))
}

/// Selects the connections to close in favor of `needed` others. Each item of `waiting` is a connection with the
/// time since which it waits ([`crate::Connection::waits_since_ns`]). Those that have waited longest are
/// selected, if for at least half a second.
pub fn pick<T>(waiting: impl Iterator<Item = (u64, T)>, needed: usize) -> Vec<T> {
    let until_ns = evictable_since_ns();
    let mut waiting: Vec<(u64, T)> =
        waiting.filter(|(since_ns, _)| *since_ns <= until_ns).collect();
    if needed < waiting.len() {
        waiting.select_nth_unstable_by_key(needed, |(since_ns, _)| *since_ns);
        waiting.truncate(needed);
    }
    waiting.into_iter().map(|(_, connection)| connection).collect()
}

impl ServerContext {
    /// Logs evicted connections, at most once a minute.
    pub fn note_crowd(&self, closed: usize) {
        if closed > 0 && self.may_log_eviction(now_ns()) {
            tracing::warn!(
                "worker_connections ({}) reached: closed {closed} connections that waited longest for a request \
                 (logged once a minute)",
                self.config.worker_connections
            );
        }
    }
}

/// How long a worker at its limit leaves new connections to other workers before it evicts idle ones.
pub const PAUSE: Duration = Duration::from_millis(100);
/// The minimum wait before a connection may be evicted, however many others wait: an ordinary client sends its
/// request within this time after connecting.
const WAIT_MIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_that_waited_longest_are_evicted() {
        let now = now_ns();
        let second = 1_000_000_000;
        let waiting =
            || [(now - second, 1), (now, 2), (now - 3 * second, 3), (now - 2 * second, 4)];
        let evicted = |needed| {
            let mut evicted = pick(waiting().into_iter(), needed);
            evicted.sort_unstable();
            evicted
        };
        assert_eq!(evicted(0), []);
        assert_eq!(evicted(1), [3]);
        assert_eq!(evicted(2), [3, 4]);
        assert_eq!(evicted(9), [1, 3, 4], "a new connection stays");
    }
}
