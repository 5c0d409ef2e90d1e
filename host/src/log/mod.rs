//! The error log and the access log: what is written, how, and where to.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`error`] | the error log, and the `tracing` subscriber in front of it |
//! | [`file`] | a log's file: whole lines, reopened on USR1 |
//!
//! **Invariants:** a line is one write(2) in append mode; no log starts a thread or holds a lock
//! that a fork could leave locked; a log that cannot be written disturbs nobody.

mod clock;
pub mod error;
mod escape;
pub mod file;

pub use error::ErrorLog;
pub use file::LogFile;
