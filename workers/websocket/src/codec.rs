//! Both halves of a connection.

use super::error::ProtocolError;
use super::message::Event;
use super::receiver::Receiver;
use super::role::Role;
use super::sender::Sender;
use super::settings::Settings;

/// A connection after the handshake: two halves that can be borrowed at the same time, so that a message can be
/// sent while a received one is in use.
#[derive(Debug)]
pub struct Codec {
    /// Receiving half.
    pub receiver: Receiver,
    /// Sending half.
    pub sender: Sender,
}

impl Codec {
    /// Creates the codec of this end.
    pub fn new(role: Role, settings: &Settings) -> Self {
        Self { receiver: Receiver::new(role, settings), sender: Sender::new(role, settings) }
    }

    /// Receives as [`Receiver::receive`] does, and appends to `out` what the protocol demands in return: see
    /// [`Sender::reply`] and [`Sender::fail`].
    #[inline]
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'_>>, ProtocolError> {
        match self.receiver.receive(input) {
            Ok(Some(event)) => {
                self.sender.reply(&event, out);
                Ok(Some(event))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.sender.fail(&error, out);
                Err(error)
            }
        }
    }

    /// Returns whether the closing handshake is complete: each end has sent a Close frame (RFC 6455 7.1.4). The
    /// server closes the connection first.
    pub const fn is_closed(&self) -> bool {
        self.receiver.is_closed() && self.sender.is_closed()
    }

    /// Frees memory that only the next message needs: see [`Receiver::shrink`] and [`Sender::shrink`].
    pub fn shrink(&mut self) {
        self.receiver.shrink();
        self.sender.shrink();
    }
}
