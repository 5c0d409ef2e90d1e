//! Black-box tests of every behavior, for every worker class, over real sockets and real processes.
//!
//! This library is the harness; the behaviors themselves are in `matrix/`, and `tidy.rs` checks conventions of the source.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`artifacts`] | the executables and shared libraries under test, built when they are not there yet |
//! | [`cell`] | worker class × application, and what a class can do |
//! | [`runner`] | behaviors as tests: names, time limits, how many run at once |
//! | [`server`] | one running `host`: start, readiness, log, signals, hostctl, end |
//! | [`output`] | what a process writes, read line by line with a time limit |
//! | [`process`] | `/proc`, signals, process groups |
//! | [`mounts`] | file systems to run a server without |
//! | [`debugger`] | a process stopped as a debugger stops it |
//! | [`seccomp`] | system calls that the kernel refuses |
//! | [`http`] | a client that sends bytes unchanged and parses responses strictly |
//! | [`tls`] | certificates created for a test, and clients that trust and present them |
//! | [`load`] | many clients at once, and the outcome of each request |
//! | [`wait`] | polling for what has no event |
//!
//! # Invariants
//!
//! - Nothing of the server is linked except the table of raw requests of `http1`: what is tested is what ships.
//! - A test waits for an event (a datagram, a line, a descriptor) with a time limit, and never sleeps for a fixed time. Only
//!   [`wait::until`] polls, for what has no event.
//! - Each process that a test starts is in a separate process group with its descendants, and all of them are reaped.
//! - Traffic stays on loopback, on addresses derived from this process's ID, so that two runs do not interfere.
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
