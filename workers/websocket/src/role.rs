//! Which end of the connection this is.

use std::fmt;

/// End of the connection. It decides which frames are masked (RFC 6455 5.1) and which parameters of
/// permessage-deflate are its own (RFC 7692 7.1).
#[derive(Clone, Copy)]
pub enum Role {
    /// The server: receives masked frames, sends unmasked ones.
    Server,
    /// The client: receives unmasked frames, sends masked ones.
    Client {
        /// Returns the masking key of the next frame, from a source that the peer cannot predict (RFC 6455
        /// 10.3).
        mask: fn() -> [u8; 4],
    },
}

impl Role {
    /// Returns whether this is the server.
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Server)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_server() { "Server" } else { "Client" })
    }
}
