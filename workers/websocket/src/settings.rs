//! Limits and compression of a connection.

use super::deflate::DeflateParams;

/// Settings of a connection after the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Maximum number of bytes in a message that is received, after decompression.
    pub max_message_size: usize,
    /// Parameters of permessage-deflate, if the handshake has accepted it.
    pub deflate: Option<DeflateParams>,
    /// Level of compression, 0 to 9 (the best and slowest).
    pub compression_level: u32,
    /// Number of bytes below which messages are sent without compression.
    pub compression_threshold: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_message_size: 16 * 1024 * 1024,
            deflate: None,
            compression_level: 1,
            compression_threshold: 64,
        }
    }
}
