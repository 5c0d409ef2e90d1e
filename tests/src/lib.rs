//! Black-box tests of every behaviour, for every worker class, over real sockets and real processes.
//!
//! This library is the harness; the behaviours themselves are in `matrix/`, and `tidy.rs` checks habits of the source.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`artifacts`] | the executables and shared libraries under test, built when they are not there yet |
//! | [`cell`] | worker class × application, and what a class can do |
//! | [`runner`] | behaviours as tests: names, time limits, how many run at once |
//! | [`server`] | one running `host`: start, readiness, log, signals, hostctl, end |
//! | [`output`] | what a process writes, awaited line by line |
//! | [`process`] | `/proc`, signals, process groups |
//! | [`mounts`] | file systems that a server does without |
//! | [`debugger`] | a process stopped as a debugger stops it |
//! | [`seccomp`] | system calls that the kernel refuses |
//! | [`http`] | a client of our own that sends bytes as they are and reads answers strictly |
//! | [`tls`] | certificates made for a test, and clients that trust and show them |
//! | [`load`] | many clients at once, and what became of each request |
//! | [`wait`] | looking again and again at what has no event |
//!
//! # Invariants
//!
//! - Nothing of the server is linked but the kit's table of raw requests: what is tested is what is shipped.
//! - Waiting means waiting for an event (a datagram, a line, a descriptor) with a limit, never sleeping and hoping. What
//!   has no event is looked at until it is there, by [`wait::until`] alone.
//! - Every process that a test starts, and what that starts, is in a process group of its own and is reaped.
//! - Traffic stays on loopback, on addresses made from this process's number, so that two runs never meet.
// A harness fails its test by panicking; that is its contract, not an accident to document on each function.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

pub mod artifacts;
pub mod cell;
pub mod debugger;
pub mod http;
pub mod load;
pub mod mounts;
pub mod output;
pub mod process;
pub mod runner;
pub mod seccomp;
pub mod server;
pub mod tls;
pub mod wait;
