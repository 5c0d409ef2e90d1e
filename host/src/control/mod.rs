//! The control socket, through which `hostctl` and other programs control a running arbiter. The protocol is
//! described for its users in docs/control-socket.md.
//!
//! | module | purpose |
//! | --- | --- |
//! | `protocol` | requests and responses |
//! | `server` | the arbiter's side: never blocks, and bounds the memory of clients |
//! | [`client`] | the client's side |

pub mod client;
mod protocol;
mod server;

pub use crate::message::LoadedLibrary;
pub use protocol::{
    GenerationStatus, MoldStatus, PastGeneration, Request, Response, Status, WorkerStatus,
};
pub use server::{ClientId, ControlServer};
