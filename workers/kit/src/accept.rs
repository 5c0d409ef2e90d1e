//! What a listener's errors mean to whoever accepts from it: which concern one connection alone, for how long accepting
//! rests after the others, and a descriptor that is kept for the time when there is no other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use worker_api::Interest;

use crate::clock::now_ns;
use crate::poll;
use crate::socket::{self, Accepted, Acceptor, is_transient};

/// What taking a connection gave.
#[derive(Debug)]
pub enum AcceptResult {
    /// A connection.
    Connection(Accepted),
    /// No connection is waiting.
    Empty,
    /// None can be accepted now, for want of descriptors or memory, or since the system forbids it: stop watching the
    /// listener for this long, or its poller reports it without end. The log has the reason.
    Rest(Duration),
}

/// What the acceptors of a worker share.
#[derive(Debug, Default)]
pub(crate) struct AcceptState {
    /// Whether `inner` is to be looked at before the next accept: there is no spare descriptor, or the last accept failed.
    troubled: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    spare: Option<EventFd>,
    /// The pause after the last failure; zero where accepting works.
    pause: Duration,
    /// The error that was logged last, and when.
    logged: Option<(Option<i32>, u64)>,
}

impl AcceptState {
    /// With a spare descriptor, where one is to be had.
    pub(crate) fn new() -> Arc<Self> {
        let state = Self::default();
        state.lock().refill(&state.troubled);
        Arc::new(state)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepting works.
    fn succeeded(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut inner = self.lock();
            inner.pause = Duration::ZERO;
            inner.refill(&self.troubled);
        }
    }

    /// Accepting does not work: for how long it is to rest. Logs each reason once a minute at most.
    fn failed(&self, error: &io::Error) -> Duration {
        self.troubled.store(true, Ordering::Relaxed);
        let mut inner = self.lock();
        let (errno, now) = (error.raw_os_error(), now_ns());
        let is_known = |&(logged, at_ns): &(Option<i32>, u64)| {
            logged == errno && now.saturating_sub(at_ns) < LOG_PAUSE_NS
        };
        if !inner.logged.as_ref().is_some_and(is_known) {
            inner.logged = Some((errno, now));
            tracing::warn!(
                "cannot accept connections: {error}; trying again, with pauses of up to 1 s"
            );
        }
        inner.pause = (inner.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        inner.pause
    }
}

impl Inner {
    fn refill(&mut self, troubled: &AtomicBool) {
        if self.spare.is_none() {
            self.spare = EventFd::new().ok();
        }
        troubled.store(self.spare.is_none() || !self.pause.is_zero(), Ordering::Relaxed);
    }
}

impl Acceptor {
    /// Takes one connection that waits. Where the process has no descriptor left, the spare one is given up for it, so
    /// that one client at a time is served even then.
    pub fn take(&self) -> AcceptResult {
        let mut passed = 0;
        loop {
            match self.accept_with_spare() {
                Ok(accepted) => {
                    self.state.succeeded();
                    return AcceptResult::Connection(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state.succeeded();
                    return AcceptResult::Empty;
                }
                Err(error) if is_transient(&error) && passed < PASSING_MAX => passed += 1,
                // Also where no one waits: only a connection that is kept waiting is a failure.
                Err(error) if is_exhaustion(&error) && !self.has_waiting() => {
                    return AcceptResult::Empty;
                }
                Err(error) => return AcceptResult::Rest(self.state.failed(&error)),
            }
        }
    }

    /// How many connections wait to be accepted; of a unix socket, whose kernel does not tell, a few where there is one.
    pub fn waiting(&self) -> usize {
        if !self.has_waiting() {
            return 0;
        }
        // Of a listening socket, tcpi_unacked is the length of the accept queue.
        socket::tcp_info(socket::borrow(self.fd()))
            .map_or(WAITING_UNKNOWN, |info| info.tcpi_unacked.max(1) as usize)
    }

    /// Whether a connection waits to be accepted; where that is not known, one may.
    fn has_waiting(&self) -> bool {
        poll::wait(self.fd(), Interest::READ, now_ns(), || ()).unwrap_or(true)
    }

    fn accept_with_spare(&self) -> io::Result<Accepted> {
        let result = self.accept();
        if !result.as_ref().is_err_and(is_exhaustion) {
            return result;
        }
        let mut inner = self.state.lock();
        let Some(spare) = inner.spare.take() else { return result };
        self.state.troubled.store(true, Ordering::Relaxed);
        drop(spare);
        let result = self.accept();
        if result.is_err() {
            inner.refill(&self.state.troubled);
        }
        result
    }
}

/// Whether there is no descriptor for another connection.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Connections in a row that were lost before they could be accepted, until accepting rests.
const PASSING_MAX: usize = 64;
/// How many connections a listener is taken to have where only the first is known of.
const WAITING_UNKNOWN: usize = 16;
/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the same reason is logged.
const LOG_PAUSE_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound_and_ends_with_success() {
        let state = AcceptState::new();
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let pauses: Vec<u128> = (0..9).map(|_| state.failed(&error).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        state.succeeded();
        assert_eq!(state.failed(&error), PAUSE_MIN);
    }
}
