//! What went wrong, as it crosses the boundary: a kind to act upon, a message to read, the chain of causes.
//!
//! Not for control flow that is no failure: "not yet" is [`crate::Step::NotYet`].

use std::error::Error;
use std::fmt;
use std::io;

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};

/// The result of every fallible call of this crate's Rust side.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What sort of failure it is: what a caller can act upon without reading the message.
///
/// A number and not an `enum`, so that a later minor version can add kinds: treat one that you do not know as
/// [`FailureKind::OTHER`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FailureKind(pub u8);

impl FailureKind {
    /// None of the others.
    pub const OTHER: Self = Self(0);
    /// A setting is wrong or missing: the operator has to act. At start the host ends with status 78.
    pub const CONFIG: Self = Self(1);
    /// A deadline passed: of the request, or of the call's own time limit.
    pub const TIMEOUT: Self = Self(2);
    /// The client is gone, or does not take what is sent to it.
    pub const GONE: Self = Self(3);
    /// What the client sent is malformed: the rest of the body cannot be read.
    pub const PROTOCOL: Self = Self(4);
    /// What the client sent is larger than a limit allows.
    pub const TOO_LARGE: Self = Self(5);
    /// The process or the greenlet is being ended.
    pub const INTERRUPTED: Self = Self(6);
    /// Code panicked.
    pub const PANIC: Self = Self(7);
    /// A system call failed.
    pub const IO: Self = Self(8);
    /// The other side does not offer this.
    pub const UNSUPPORTED: Self = Self(9);
    /// The application broke its contract: headers that may not be sent, a body that does not fit its length.
    pub const APPLICATION: Self = Self(10);
    /// The application could not be loaded: at start the host ends with status 4, as gunicorn does.
    pub const LOAD: Self = Self(11);

    /// The kind as a word of the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CONFIG => "configuration",
            Self::TIMEOUT => "timeout",
            Self::GONE => "client gone",
            Self::PROTOCOL => "malformed request",
            Self::TOO_LARGE => "request too large",
            Self::INTERRUPTED => "interrupted",
            Self::PANIC => "panic",
            Self::IO => "input/output",
            Self::UNSUPPORTED => "unsupported",
            Self::APPLICATION => "application",
            Self::LOAD => "application load",
            _ => "failure",
        }
    }
}

impl fmt::Debug for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// A failure with its kind, a message for the log and the messages of its causes, nearest first.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure it is.
    pub kind: FailureKind,
    /// The HTTP status that answers it while nothing is on the wire yet; 0 where the default (500) does.
    pub status: u16,
    /// What is wrong, where, and what to do: one line.
    pub message: RString,
    /// The causes, nearest first; a traceback is one entry of several lines.
    pub chain: RVec<RString>,
}

impl Failure {
    /// A failure of that kind with that message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { kind, status: 0, message: message.into(), chain: RVec::new() }
    }

    /// A setting is wrong: see [`FailureKind::CONFIG`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureKind::CONFIG, message)
    }

    /// The application broke its contract: see [`FailureKind::APPLICATION`].
    pub fn application(message: impl Into<String>) -> Self {
        Self::new(FailureKind::APPLICATION, message)
    }

    /// The other side does not offer this: see [`FailureKind::UNSUPPORTED`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FailureKind::UNSUPPORTED, message)
    }

    /// A system call failed: the error becomes the first cause.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::new(FailureKind::IO, what).caused_by(error)
    }

    /// The same failure, answered with this HTTP status where an answer is still possible.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same failure with one more cause at the end of its chain, and that cause's own sources.
    #[must_use]
    pub fn caused_by(mut self, cause: &dyn Error) -> Self {
        self.chain.push(cause.to_string().into());
        let mut source = cause.source();
        while let Some(next) = source {
            self.chain.push(next.to_string().into());
            source = next.source();
        }
        self
    }

    /// The same failure with text, a traceback for example, at the end of its chain.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        self.chain.push(detail.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.chain {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => FailureKind::GONE,
            io::ErrorKind::TimedOut => FailureKind::TIMEOUT,
            _ => FailureKind::IO,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::TIMEOUT => io::ErrorKind::TimedOut,
            FailureKind::GONE => io::ErrorKind::ConnectionReset,
            FailureKind::PROTOCOL | FailureKind::TOO_LARGE => io::ErrorKind::InvalidData,
            FailureKind::INTERRUPTED => io::ErrorKind::Interrupted,
            FailureKind::UNSUPPORTED => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_as_one_line() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let failure = Failure::io("cannot open ./app.so", &cause);
        assert_eq!(failure.to_string(), "cannot open ./app.so: no such file");
        assert_eq!(failure.kind, FailureKind::IO);
    }

    #[test]
    fn a_reset_connection_is_a_client_that_left() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(failure.kind, FailureKind::GONE);
    }
}
