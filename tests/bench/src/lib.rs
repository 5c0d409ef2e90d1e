//! Measures Jimu against its peers: what `cargo xtask bench` runs. It is not a test: it only judges the figures
//! that were set as targets.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`scenario`] | what is measured, and in which order |
//! | [`contender`] | what is compared, and the commands that start it |
//! | [`setup`], [`environment`] | programs built here, virtual environments of the peers |
//! | [`server`], [`proc`] | a server under measurement, and its processes' resource use |
//! | [`load`] | the load generator |
//! | [`result`], [`target`] | figures, ratios and targets |
//! | [`report`], [`machine`] | docs/performance.md and its picture |
//! | [`profile`] | docs/profiles: where the CPU time of a scenario goes |
//! | [`history`] | docs/performance-history.tsv: figures of earlier commits |
//!
//! The executables beside it: `bare-epoll` is the floor; `host-sync` and `host-gthread` are `host` with a worker
//! class linked in.
//!
//! **Invariants:** the load generator runs on another processor than the servers; a contender that fails is
//! reported and not measured further, and never stops the rest; all traffic is on the loopback.

#![forbid(unsafe_code)]
// Figures are shown with three digits: the precision that a float loses of a count is irrelevant.
#![allow(clippy::cast_precision_loss)]

pub mod contender;
pub mod environment;
pub mod history;
pub mod load;
pub mod machine;
pub mod proc;
pub mod profile;
pub mod report;
pub mod result;
pub mod scenario;
pub mod server;
pub mod setup;
pub mod target;
