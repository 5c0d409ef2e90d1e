//! The error log and the access log: their content, format and targets.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`error`] | the error log, and its `tracing` subscriber |
//! | [`access`] | the access log of one worker |
//! | [`format`](mod@format) | gunicorn's access log format, compiled once |
//! | `layout` | width and precision of a value in that format |
//! | `syslog` | the same lines for a syslog daemon |
//! | [`mod@file`] | a log's file: whole lines, reopened on USR1 |
//! | `open` | opens that file with the right user's permissions |
//! | `held` | the lines that the arbiter keeps while a reader does not read |
//! | `wall_clock` | local time, as lines have it |
//! | `sink` | writes to a pipe, a terminal or a socket without waiting for its reader |
//!
//! **Invariants:** a line is one write(2) in append mode; no log starts a thread or holds a lock that a fork
//! could leave locked; a log that cannot be written does not disturb the service: the arbiter never waits for the
//! reader of a log but keeps some lines for it, other processes wait for a second at most, and lost lines are counted.

pub mod access;
pub mod error;
mod escape;
pub mod file;
pub mod format;
mod held;
mod layout;
pub mod open;
mod sink;
mod syslog;
mod wall_clock;

pub use access::{AccessLog, LeftLines};
pub use error::{ErrorLog, log_panics};
pub use file::{LogFile, LogRecord};
pub use format::AccessFormat;
pub use open::OpenError;
