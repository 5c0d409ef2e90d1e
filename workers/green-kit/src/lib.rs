//! The kit on the hub: what the cooperative worker classes have in common. How they accept, bound and stop is
//! theirs, and differs on purpose.
//!
//! | module | what it is |
//! | --- | --- |
//! | `process` | a worker's hub, signals, heartbeat and end; with or without a guest loop |
//! | `connections` | the connections of the worker: each has a place, and is parked there or lent to an exchange |
//! | `place` | one connection's registration in the hub, and who waits for it |
//! | `driver` | how an exchange waits in a greenlet, and where its connection goes afterwards |
//! | `runtime` | waiting for the application: sleep, descriptors, tasks, threads |
//! | `request_deadlines` | requests that run over `request_timeout` |
//! | `listener` | a listening socket in the hub |
//!
//! # Invariants
//!
//! - **A connection that waits holds neither greenlet nor stack**: it is a record in its place.
//! - **A request on a kept connection costs a read, a write and its share of a wait**: its registration is
//!   edge-triggered, made once, and never changed while the client reads what it is sent.
//! - **An application is never called on the hub's own stack**, but for a guest loop, which is called nowhere else.
//! - **Whoever is told "not yet" is told "now"**: readiness is noted when it comes, and forgotten only right before
//!   an operation is tried again.

#![forbid(unsafe_code)]

mod connections;
mod driver;
mod listener;
mod place;
mod process;
mod request_deadlines;
mod runtime;
pub mod stream_server;

pub use connections::{Connections, Serve};
pub use listener::Listening;
pub use process::{Process, WorkerState};
