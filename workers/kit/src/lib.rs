//! What worker classes are built from: HTTP/1.1, connections, exchanges, the base worker.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`http`] | HTTP/1.1 without I/O: what octets mean |
//! | [`socket`], [`stream`], [`tls`] | accepting; octets in and out of a connection |
//! | [`accept`] | what a listener's errors mean, and the spare descriptor |
//! | [`connection`] | a connection between requests: the state machine that every class drives |
//! | `exchange`, `turn`, `request`, `response` | a connection during one request: the exchange of `worker-api` |
//! | `queueing` | how long requests have waited before |
//! | [`home`] | the seam: how a class waits, and takes its connections back |
//! | [`line`] | waiting for connections side by side with the other workers |
//! | [`base`], [`kit`], [`config`] | what every worker has: host, application, settings |
//! | [`background`] | what the application does beside requests, and a worker that ends waits for |
//! | [`threads`] | the stacks of threads that call the application |
//! | [`blocking`], [`poll`], [`overtime`] | waiting with system calls, and its limit, for classes whose threads may block |
//!
//! # Invariants
//!
//! - Nothing in here waits but [`poll`] and [`blocking`]: a connection answers what it waits for, its class waits.
//! - No class is known by name, and no class's loop is in here.
//! - Bytes and framing are decided here alone; a class sees requests, an application sees exchanges.

pub mod accept;
pub mod background;
pub mod base;
pub mod blocking;
pub mod clock;
pub mod config;
pub mod connection;
pub mod home;
pub mod http;
pub mod kit;
pub mod line;
pub mod overtime;
pub mod poll;
pub mod socket;
pub mod stream;
pub mod threads;
pub mod tls;

mod buffer;
mod exchange;
mod kept;
mod pace;
mod queueing;
mod relay;
mod request;
mod response;
mod spares;
mod tickets;
mod turn;

pub use accept::Taken;
pub use base::Base;
pub use connection::{Advance, Connection};
pub use home::Home;
pub use kept::TlsKept;
pub use kit::Kit;
pub use line::Line;
pub use overtime::{Overtime, RanOver};
pub use socket::Acceptor;
