//! The error log and the access log: what is written, how, and where to.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`error`] | the error log, and the `tracing` subscriber in front of it |
//! | [`access`] | the access log of one worker |
//! | [`format`](mod@format) | gunicorn's access log format, compiled once |
//! | [`buffer`] | access lines that outlive the worker that wrote them |
//! | `syslog` | the same lines for a syslog daemon |
//! | [`mod@file`] | a log's file: whole lines, reopened on USR1 |
//!
//! **Invariants:** a line is one write(2) in append mode; no log starts a thread or holds a lock
//! that a fork could leave locked; a log that cannot be written disturbs nobody.

pub mod access;
pub mod buffer;
mod clock;
pub mod error;
mod escape;
pub mod file;
pub mod format;
mod syslog;

pub use access::AccessLog;
pub use buffer::AccessBuffers;
pub use error::ErrorLog;
pub use file::LogFile;
pub use format::AccessFormat;
