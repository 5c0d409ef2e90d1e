//! What is received and sent.

use super::close::Close;

/// Type of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// A message, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'m> {
    /// Type of the message.
    pub kind: MessageKind,
    /// Content; valid UTF-8 if the message was received as a text.
    pub payload: &'m [u8],
}

impl<'m> Message<'m> {
    /// Creates a text.
    pub const fn text(text: &'m str) -> Self {
        Self { kind: MessageKind::Text, payload: text.as_bytes() }
    }

    /// Creates a message of bytes.
    pub const fn binary(payload: &'m [u8]) -> Self {
        Self { kind: MessageKind::Binary, payload }
    }

    /// Returns the text of a text message. It is checked again: `payload` is cheaper if bytes are enough.
    pub fn as_text(&self) -> Option<&'m str> {
        match self.kind {
            MessageKind::Text => simdutf8::basic::from_utf8(self.payload).ok(),
            MessageKind::Binary => None,
        }
    }
}

/// What the peer has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'r> {
    /// A message.
    Message(Message<'r>),
    /// A ping: send a pong with the same payload. [`Sender::reply`](crate::Sender::reply) does.
    Ping(&'r [u8]),
    /// A pong, solicited or not.
    Pong(&'r [u8]),
    /// The last frame: send a Close frame unless one was sent, then close the connection (RFC 6455 7.1).
    Close(Close<'r>),
}
