//! What tests of a running server share: black-box tests, tests of the host's processes, and benchmarks.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`launch`] | a command in a process group, with its output |
//! | [`http`] | a client that sends given bytes and parses responses strictly |
//! | [`tls`] | certificates created for a test, and clients that trust and present them |
//! | [`output`] | the output of a process, awaited line by line |
//! | [`process`] | `/proc`, signals, process groups |
//! | [`mounts`] | file systems that a server has to do without |
//! | [`network`] | networks of several machines on one |
//! | [`seccomp`] | system calls that the kernel refuses |
//! | [`executable`] | copies of executables |
//! | [`compiler`] | C libraries compiled for a test |
//! | [`wait`] | polling for conditions without an event |
//!
//! # Invariants
//!
//! - Nothing of the server is linked: what is tested is what is shipped.
//! - Tests await events (a datagram, a line, a descriptor) with a limit. Conditions without an event are polled, only by
//!   [`wait::until`].
//! - Every process that a test starts, with its descendants, is in a separate process group and is reaped.
// A harness fails its test by panicking; that is its contract, not an accident to document on each function.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

pub mod compiler;
pub mod executable;
pub mod http;
pub mod launch;
pub mod mounts;
pub mod network;
pub mod output;
pub mod process;
pub mod seccomp;
pub mod tls;
pub mod wait;
