//! Errors that cross the boundary: a kind to match on, a message, the chain of causes.
//!
//! An operation that cannot complete yet is not a failure; it returns [`crate::Step::Pending`].

use std::error::Error;
use std::fmt;
use std::io;

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};

/// Result of the fallible functions of this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Kind of a failure, for callers to match on.
///
/// | kind | created by | of an exchange, the client receives | logged as |
/// | --- | --- | --- | --- |
/// | [`OTHER`](Self::OTHER), [`IO`](Self::IO) | every side | [`Failure::status`], or 500 | error |
/// | [`APPLICATION`](Self::APPLICATION) | application; class, for an invalid response | [`Failure::status`], or 500 | error |
/// | [`PANIC`](Self::PANIC) | the adapters of this crate | 500 | error |
/// | [`UNSUPPORTED`](Self::UNSUPPORTED) | every side | [`Failure::status`], or 500 | error |
/// | [`TIMEOUT`](Self::TIMEOUT) | class | 500 for `request_timeout`; 408 for a body that is too slow | warning |
/// | [`PROTOCOL`](Self::PROTOCOL) | class, for a malformed body | 400 | warning |
/// | [`TOO_LARGE`](Self::TOO_LARGE) | class; [`crate::Exchange::read_to_end`] | 413 | warning |
/// | [`GONE`](Self::GONE) | class | nothing | debug |
/// | [`INTERRUPTED`](Self::INTERRUPTED) | class, when a worker ends | 500, if the connection is still there | debug |
/// | [`CONFIG`](Self::CONFIG), [`LOAD`](Self::LOAD), [`INTERFACE`](Self::INTERFACE) | constructors, `setup`, `load` | 500; they refuse a start or a reload | error |
///
/// The last two columns are those of a class that is built from the kit. If a part of the response has been sent, the
/// connection is closed instead, so that the client detects the truncation. An application that lets a failure of the
/// class through, by `?` for example, therefore responds with the right status.
///
/// A number instead of an `enum`, so that a minor version can add kinds. Treat unknown kinds as [`FailureKind::OTHER`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FailureKind(pub u8);

impl FailureKind {
    /// Any other failure.
    pub const OTHER: Self = Self(0);
    /// A setting is wrong or missing. At start the host exits with status 78.
    pub const CONFIG: Self = Self(1);
    /// The deadline of the request or of the call has passed.
    pub const TIMEOUT: Self = Self(2);
    /// The client has disconnected or does not read the response.
    pub const GONE: Self = Self(3);
    /// The client sent malformed data; the rest of the body cannot be read.
    pub const PROTOCOL: Self = Self(4);
    /// The client sent more than a limit allows.
    pub const TOO_LARGE: Self = Self(5);
    /// The process or the greenlet is being terminated.
    pub const INTERRUPTED: Self = Self(6);
    /// Code panicked.
    pub const PANIC: Self = Self(7);
    /// A system call failed.
    pub const IO: Self = Self(8);
    /// The other side does not support the operation.
    pub const UNSUPPORTED: Self = Self(9);
    /// The application violated its contract: invalid response headers, a body that does not match its length.
    pub const APPLICATION: Self = Self(10);
    /// The application could not be loaded. At start the host exits with status 4, as gunicorn does.
    pub const LOAD: Self = Self(11);
    /// The application speaks another interface than the worker class calls: ASGI instead of WSGI, or the reverse. If the
    /// operator has not chosen the class, the host tries the one for the other interface.
    pub const INTERFACE: Self = Self(12);

    /// Returns the name of the kind for log messages.
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
            Self::LOAD | Self::INTERFACE => "application load",
            _ => "failure",
        }
    }
}

impl fmt::Debug for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// An error with its kind, a message for the log, and the messages of its causes.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind of the failure.
    pub kind: FailureKind,
    /// HTTP status to send if no part of the response has been sent; 0 for the default (500). Any status of an error
    /// response, 400 to 599; the class writes the body.
    pub status: u16,
    /// One line: what failed, where, and what to do.
    pub message: RString,
    /// Causes, nearest first. A traceback is one entry with several lines.
    pub chain: RVec<RString>,
}

impl Failure {
    /// Creates a failure.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { kind, status: 0, message: message.into(), chain: RVec::new() }
    }

    /// Creates a failure of kind [`FailureKind::CONFIG`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureKind::CONFIG, message)
    }

    /// Creates a failure of kind [`FailureKind::APPLICATION`].
    pub fn application(message: impl Into<String>) -> Self {
        Self::new(FailureKind::APPLICATION, message)
    }

    /// Creates a failure of kind [`FailureKind::UNSUPPORTED`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FailureKind::UNSUPPORTED, message)
    }

    /// Creates a failure of kind [`FailureKind::IO`] with `error` as its first cause.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::new(FailureKind::IO, what).caused_by(error)
    }

    /// Sets the HTTP status to send if a response is still possible.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Appends a cause and its sources to the chain.
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

    /// Appends text, a traceback for example, to the chain.
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
