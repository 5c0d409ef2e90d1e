//! The kit on top of the hub: what the cooperative worker classes have in common. Each class decides how it accepts,
//! limits and stops.
//!
//! | module | contents |
//! | --- | --- |
//! | `process` | a worker's hub, signals, heartbeat and stop; with or without a guest loop |
//! | `connections` | the connections of the worker, each with an entry: parked there, or lent to an exchange |
//! | `entry` | one connection's registration in the hub, and what waits for it |
//! | `driver` | how an exchange waits in a greenlet, and what follows for its connection |
//! | `runtime` | the runtime for the application: sleep, descriptors, tasks, threads |
//! | `request_deadlines` | the enforcement of `request_timeout` |
//! | `listener` | a listening socket in the hub |
//! | [`stream_server`] | a worker like gevent's: a stream server for each listener, and a pool |
//!
//! # Invariants
//!
//! - **A connection that waits has neither a greenlet nor a stack**: it is a record in its entry.
//! - **A request on a connection that is kept alive costs a read, a write and its share of a wait**: the connection is
//!   registered once, edge-triggered, and the registration does not change while the client reads its response.
//! - **An application is never called on the hub's stack**, unless it has a guest loop, whose calls all happen there.
//! - **Every pending operation is woken**: readiness is stored when it arrives, and cleared only right before the
//!   operation is tried again.

#![forbid(unsafe_code)]

mod connections;
mod driver;
mod entry;
mod listener;
mod process;
mod request_deadlines;
mod runtime;
pub mod stream_server;

pub use connections::{Connections, Serve};
pub use listener::Listening;
pub use process::{CAPABILITIES, Process, ProcessCell, WorkerState};

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
