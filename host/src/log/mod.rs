//! The error log and the access log: what is written, how, and where to.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`error`] | the error log, and the `tracing` subscriber in front of it |
//! | [`access`] | the access log of one worker |
//! | [`format`](mod@format) | gunicorn's access log format, compiled once |
//! | `layout` | width and precision of a value in that format |
//! | `syslog` | the same lines for a syslog daemon |
//! | [`mod@file`] | a log's file: whole lines, reopened on USR1 |
//! | `open` | opens that file, and decides whose rights it is opened with |
//! | `sink` | writes to a pipe, a terminal or a socket without waiting for its reader |
//!
//! **Invariants:** a line is one write(2) in append mode; no log starts a thread or holds a lock that a fork could
//! leave locked; a log that cannot be written disturbs no one: the arbiter never waits for the reader of a log, other
//! processes for a second at most, and what is lost is counted.

pub mod access;
mod clock;
pub mod error;
mod escape;
pub mod file;
pub mod format;
mod layout;
pub mod open;
mod sink;
mod syslog;

pub use access::{AccessLog, LeftLines};
pub use error::ErrorLog;
pub use file::LogFile;
pub use format::AccessFormat;
pub use open::OpenError;
