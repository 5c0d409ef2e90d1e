//! A fleet: servers on machines with separate networks, joined by a bridge, behind a reverse proxy that is configured by a
//! recipe of `docs/deploy`.
//!
//! ```text
//!     clients, proxy 10.0.0.1 ─ bridge ─┬─ 10.0.0.11 one
//!                                       ├─ 10.0.0.12 two
//!                                       └─ 10.0.0.13 three
//! ```
//!
//! The addresses are those of the recipes. The networks are namespaces without a name, so they can be the same in each run.

mod haproxy;
mod machine;
mod network;
mod nginx;
mod proxy;
mod recipe;

pub use haproxy::{Haproxy, State};
pub use machine::{Machine, Origin, Release};
pub use network::{HOSTS, Network};
pub use nginx::Nginx;
pub use recipe::Recipe;
