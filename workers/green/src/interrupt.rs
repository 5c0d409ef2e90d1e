//! Why a blocking call returned without completing. Not an error of the operation itself: those stay
//! `io::Error`s, and an [`Interrupt`] is wrapped in one where a call returns `io::Result`.

use std::io;

/// Reason why a blocking call ended early.
///
/// gevent and eventlet raise an exception from the blocking call; here the call returns this. It is delivered
/// once: a greenlet that ignores it and blocks again does block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupt {
    /// The greenlet was killed (`GreenletExit`): clean up and return.
    #[error("the greenlet was killed")]
    Exit,
    /// A [`Timeout`](crate::Timeout) scope around the call expired.
    #[error("{0} ran out")]
    Timeout(TimeoutId),
    /// There is no greenlet to suspend: the call was made in a callback of the hub or on a thread without a
    /// hub.
    #[error("a blocking call was made outside a greenlet")]
    Outside,
    /// The greenlet unwinds from a panic. Suspending it would corrupt the thread's panic count.
    #[error("a blocking call was made while its greenlet unwinds")]
    Unwinding,
}

impl Interrupt {
    /// Returns the interrupt wrapped in an `io::Error`, if there is one.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

impl From<Interrupt> for io::Error {
    /// The kind is never [`io::ErrorKind::Interrupted`], which the standard library retries.
    fn from(interrupt: Interrupt) -> Self {
        let kind = match interrupt {
            Interrupt::Timeout(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, interrupt)
    }
}

/// Errors that can carry an [`Interrupt`], so that a timeout scope can recognize its own.
pub trait Interrupted {
    /// Returns the interrupt that caused this error, if any.
    fn interrupt(&self) -> Option<Interrupt>;
}

impl Interrupted for Interrupt {
    fn interrupt(&self) -> Option<Interrupt> {
        Some(*self)
    }
}

impl Interrupted for io::Error {
    fn interrupt(&self) -> Option<Interrupt> {
        Interrupt::of(self)
    }
}

/// Distinguishes the [`Timeout`](crate::Timeout)s of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeoutId(pub(crate) u64);

impl std::fmt::Display for TimeoutId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "timeout {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_survives_the_way_through_an_io_error() {
        let error = io::Error::from(Interrupt::Timeout(TimeoutId(7)));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.interrupt(), Some(Interrupt::Timeout(TimeoutId(7))));
        assert_eq!(Interrupt::of(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
