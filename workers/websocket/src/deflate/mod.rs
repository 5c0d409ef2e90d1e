//! permessage-deflate (RFC 7692): parameters, compressor and decompressor.
//!
//! A message is one piece of a raw deflate stream that ends with an empty stored block, of which the last four
//! bytes are not sent (RFC 7692 7.2.1). Windows of 8 bits exist in the protocol and not in zlib: its
//! decompressor, with a larger window, reads them; its compressor cannot produce them.

mod compress;
mod decompress;

pub(super) use compress::Compressor;
pub(super) use decompress::{Decompressor, Inflated};

/// Parameters that both ends have agreed on (RFC 7692 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeflateParams {
    /// Whether the server compresses each message on its own.
    pub server_no_context_takeover: bool,
    /// Whether the client compresses each message on its own.
    pub client_no_context_takeover: bool,
    /// Logarithm of the server's window: 9 to 15 for a [`Role::Server`](crate::Role::Server), else 8 to 15.
    pub server_max_window_bits: u8,
    /// Logarithm of the client's window: 9 to 15 for a [`Role::Client`](crate::Role::Client), else 8 to 15.
    pub client_max_window_bits: u8,
}

impl Default for DeflateParams {
    /// The parameters of a response without any.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: WINDOW_BITS_MAX,
            client_max_window_bits: WINDOW_BITS_MAX,
        }
    }
}

/// How one end compresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Direction {
    pub(super) no_context_takeover: bool,
    pub(super) window_bits: u8,
}

impl DeflateParams {
    pub(super) const fn server(self) -> Direction {
        Direction {
            no_context_takeover: self.server_no_context_takeover,
            window_bits: self.server_max_window_bits,
        }
    }

    pub(super) const fn client(self) -> Direction {
        Direction {
            no_context_takeover: self.client_no_context_takeover,
            window_bits: self.client_max_window_bits,
        }
    }
}

impl Direction {
    /// Returns the window for zlib's compressor.
    fn zlib_bits(self) -> u8 {
        self.window_bits.clamp(ZLIB_BITS_MIN, WINDOW_BITS_MAX)
    }
}

/// The largest window (RFC 7692 7.1.2).
pub(super) const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window of the protocol.
pub(super) const WINDOW_BITS_MIN: u8 = 8;
/// The smallest window of zlib's raw streams.
pub(super) const ZLIB_BITS_MIN: u8 = 9;
/// The end of an empty stored block, which is not sent (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
