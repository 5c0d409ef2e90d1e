//! Measures Jimu against its peers: what `cargo xtask bench` runs. Not a test: it judges nothing but
//! the figures that were asked for, and those it prints.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`scenario`] | what is measured, and in which turns |
//! | [`contender`] | who is measured, and the commands that start them |
//! | [`setup`] | programs built here, the virtual environment of the peers |
//! | [`server`], [`proc`] | a server under measurement, and what the kernel says of it |
//! | [`load`] | the load generator |
//! | [`result`], [`target`] | figures, ratios, and what they should be |
//! | [`report`], [`machine`] | docs/performance.md and its picture |
//!
//! The executables beside it: `bare-epoll` is the floor, `host-sync` and `host-gthread` are `host` with
//! a worker class linked in.
//!
//! **Invariants:** the load generator runs on another processor than the servers; a contender that
//! fails is named and measured no further, and never stops the rest; all traffic is on the loopback.

#![forbid(unsafe_code)]
// Figures are shown with three digits: what a float loses of a count is not among them.
#![allow(clippy::cast_precision_loss)]

pub mod contender;
pub mod load;
pub mod machine;
pub mod proc;
pub mod report;
pub mod result;
pub mod scenario;
pub mod server;
pub mod setup;
pub mod target;
