//! What a peer does wrong, and what a caller cannot send.

use super::code::CloseCode;

/// Violation of the protocol or of a limit by the peer. It is final: send a Close frame with
/// [`close_code`](Self::close_code), then close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set that no accepted extension has given a meaning, in this frame (RFC 6455 5.2).
    #[error("a frame has a reserved bit set")]
    ReservedBit,
    /// The opcode is reserved (RFC 6455 5.2).
    #[error("a frame has the reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// The client sent a frame without a mask (RFC 6455 5.1).
    #[error("a frame of the client is not masked")]
    Unmasked,
    /// The server sent a frame with a mask (RFC 6455 5.1).
    #[error("a frame of the server is masked")]
    Masked,
    /// A length is not in its shortest form (RFC 6455 5.2).
    #[error("the length of a frame is not in its shortest form")]
    LengthNotMinimal,
    /// A length has its highest bit set (RFC 6455 5.2).
    #[error("the length of a frame has more than 63 bits")]
    LengthOverflow,
    /// A control frame is a fragment (RFC 6455 5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame has more than 125 bytes (RFC 6455 5.5).
    #[error("a control frame has more than 125 bytes")]
    LongControl,
    /// There is no message to continue (RFC 6455 5.4).
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A message begins within another one (RFC 6455 5.4).
    #[error("a message begins before the previous one has ended")]
    InterruptedMessage,
    /// The payload of a Close frame has one byte (RFC 6455 5.5.1).
    #[error("a Close frame has one byte")]
    TruncatedCloseCode,
    /// A Close frame has a code that may not be sent (RFC 6455 7.4).
    #[error("a Close frame has the code {0}, which may not be sent")]
    InvalidCloseCode(CloseCode),
    /// A text or a reason is not UTF-8 (RFC 6455 8.1).
    #[error("a text is not valid UTF-8")]
    InvalidUtf8,
    /// A compressed message cannot be decompressed (RFC 7692 7.2.2).
    #[error("a compressed message cannot be decompressed")]
    InvalidDeflate,
    /// A message is longer than the limit, after decompression.
    #[error("a message is longer than {limit} bytes")]
    MessageTooBig {
        /// The limit.
        limit: usize,
    },
}

impl ProtocolError {
    /// Returns the code to close the connection with.
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_DATA,
            Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Frame that cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// A Close frame was sent: nothing may follow it (RFC 6455 5.5.1).
    #[error("a Close frame was already sent")]
    Closed,
    /// The payload of a ping or pong has more than 125 bytes.
    #[error("a ping or pong of {0} bytes: at most 125 are possible")]
    LongControl(usize),
    /// The code may not be sent; see [`CloseCode::is_sendable`].
    #[error("the close code {0} may not be sent")]
    InvalidCloseCode(CloseCode),
}
