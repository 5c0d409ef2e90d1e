//! The control socket: how `hostctl` and other programs talk to a running arbiter. The protocol is
//! described for its users in docs/control-socket.md.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `protocol` | requests and responses |
//! | `server` | the arbiter's side: never blocks, and bounds what clients may hold |
//! | [`client`] | the other side |

pub mod client;
mod protocol;
mod server;

pub use crate::message::LoadedLibrary;
pub use protocol::{
    GenerationStatus, MoldStatus, PastGeneration, Request, Response, Status, WorkerStatus,
};
pub use server::{ClientId, ControlServer};
