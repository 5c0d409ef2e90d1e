//! Black-box tests of every behavior, for every worker class, over real sockets and processes.
//!
//! This library is the harness; the behaviors are in `matrix/`, and `tidy.rs` checks conventions of the source.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`artifacts`] | the executables and shared libraries under test, built if they do not exist yet |
//! | [`cell`] | worker class × application |
//! | `probe` | what a worker class supports |
//! | [`runner`] | behaviors as tests: names, time limits, how many run at once |
//! | `scene` | what a running test has started, and what its failure reports |
//! | [`server`] | a running `host`: start, readiness, log, signals, hostctl, exit |
//! | [`debugger`] | a process stopped as a debugger does it |
//! | [`load`] | many concurrent clients, and an account of every request |
//! | [`fleet`] | several servers, each on a machine with a separate network, behind a proxy |
//! | [`tools`] | programs of this machine that some tests need |
//! | [`imports`] | imports between the files of a crate, and their cycles |
//! | [`support`] | HTTP client, processes, output: what it shares with other tests |
//!
//! # Invariants
//!
//! - Only http1's table of raw requests is linked: what is tested is what is shipped.
//! - Tests await events (a datagram, a line, a descriptor) with a limit; they do not sleep for a fixed time.
//!   Conditions without an event are polled, only by [`wait::until`]. Where a pause is the subject
//!   (nothing happens in an idle second, a client sends a byte per second), a comment says so.
//! - Every process that a test starts, with its descendants, is in a separate process group and is reaped.
//! - Traffic stays on loopback, on addresses derived from this process's PID, so that two runs do not collide, or in network
//!   namespaces of one test.
// A harness fails its test by panicking; that is its contract, not an accident to document on each function.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

pub mod artifacts;
pub mod cell;
pub mod debugger;
pub mod fleet;
pub mod imports;
pub mod load;
mod probe;
pub mod runner;
mod scene;
pub mod server;
pub mod tools;

pub use support::{
    compiler, executable, http, launch, mounts, network, output, process, seccomp, tls, wait,
};
