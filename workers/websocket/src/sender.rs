//! Sends: appends frames to a buffer of the caller.

use super::close::{Close, fit_reason};
use super::code::CloseCode;
use super::deflate::Compressor;
use super::error::{ProtocolError, SendError};
use super::frame::{CONTROL_MAX, FrameHeader, Opcode};
use super::mask::apply_mask;
use super::message::{Event, Message, MessageKind};
use super::role::Role;
use super::settings::Settings;

/// Sending half of a connection: encodes frames and compresses messages.
#[derive(Debug)]
pub struct Sender {
    role: Role,
    closed: bool,
    compressor: Option<Compressor>,
    compression_threshold: usize,
}

impl Sender {
    /// Creates the sending half for this end.
    pub fn new(role: Role, settings: &Settings) -> Self {
        let own = settings.deflate.as_ref().map(|params| match role {
            Role::Server => params.server(),
            Role::Client { .. } => params.client(),
        });
        Self {
            role,
            closed: false,
            compressor: own.map(|own| Compressor::new(own, settings.compression_level)),
            compression_threshold: settings.compression_threshold,
        }
    }

    /// Appends a message to `out`, compressed if both ends have agreed on that and it is long enough. The payload
    /// of a text must be UTF-8: it is not checked, and [`Message::text`] guarantees it.
    #[inline]
    pub fn message(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<(), SendError> {
        if message.payload.len() < self.compression_threshold || self.compressor.is_none() {
            return self.message_uncompressed(message, out);
        }
        self.message_compressed(message, out)
    }

    /// Appends a message without compression, for content that is compressed already.
    #[inline]
    pub fn message_uncompressed(
        &mut self,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.frame(opcode(message.kind), message.payload, out)
    }

    /// Appends a ping with at most 125 bytes.
    pub fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.control(Opcode::Ping, payload, out)
    }

    /// Appends a pong with at most 125 bytes.
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.control(Opcode::Pong, payload, out)
    }

    /// Appends a Close frame, after which nothing can be sent. A reason that does not fit is cut.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if !code.is_sendable() {
            return Err(SendError::InvalidCloseCode(code));
        }
        let reason = fit_reason(reason).as_bytes();
        let mut payload = [0; CONTROL_MAX];
        payload[..2].copy_from_slice(&code.0.to_be_bytes());
        payload[2..2 + reason.len()].copy_from_slice(reason);
        self.frame(Opcode::Close, &payload[..2 + reason.len()], out)?;
        self.closed = true;
        Ok(())
    }

    /// Appends the reply that the protocol demands: a pong for a ping, and for a Close frame one with the same
    /// code. Nothing for other events, and nothing after a Close frame was sent.
    pub fn reply(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let sent = match event {
            Event::Ping(payload) => self.pong(payload, out),
            Event::Close(Close { code: Some(code), .. }) => self.close(*code, "", out),
            Event::Close(Close { code: None, .. }) => self.close_without_code(out),
            Event::Message(_) | Event::Pong(_) => Ok(()),
        };
        debug_assert!(
            matches!(sent, Ok(()) | Err(SendError::Closed)),
            "the peer's frame was valid"
        );
    }

    /// Appends the Close frame for a peer that has violated the protocol, unless one was sent.
    pub fn fail(&mut self, error: &ProtocolError, out: &mut Vec<u8>) {
        let sent = self.close(error.close_code(), "", out);
        debug_assert!(matches!(sent, Ok(()) | Err(SendError::Closed)), "the code can be sent");
    }

    /// Returns whether a Close frame was sent.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Frees memory that only the next message needs: for connections that are idle. A compressor is kept if the
    /// next message depends on it.
    pub fn shrink(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            compressor.shrink();
        }
    }

    fn close_without_code(&mut self, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.frame(Opcode::Close, b"", out)?;
        self.closed = true;
        Ok(())
    }

    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if payload.len() > CONTROL_MAX {
            return Err(SendError::LongControl(payload.len()));
        }
        self.frame(opcode, payload, out)
    }

    #[inline]
    fn frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let mask = self.next_mask();
        let length = payload.len() as u64;
        let header = FrameHeader { fin: true, compressed: false, opcode, length, mask };
        header.encode(out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut out[start..], mask);
        }
        Ok(())
    }

    fn message_compressed(
        &mut self,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let mask = self.next_mask();
        let Some(compressor) = &mut self.compressor else {
            return self.message_uncompressed(message, out);
        };
        // The compressed length is unknown: leave room for the header of the whole length, and move the payload
        // in the rare case that the compressed one has a header of another size.
        let opcode = opcode(message.kind);
        let length = message.payload.len() as u64;
        let mut header = FrameHeader { fin: true, compressed: true, opcode, length, mask };
        let (bytes, guessed) = header.to_bytes();
        let start = out.len();
        out.extend_from_slice(&bytes[..guessed]);
        compressor.compress(message.payload, out);
        header.length = (out.len() - start - guessed) as u64;
        let (bytes, len) = header.to_bytes();
        if len == guessed {
            out[start..start + len].copy_from_slice(&bytes[..len]);
        } else {
            out.splice(start..start + guessed, bytes[..len].iter().copied());
        }
        if let Some(mask) = mask {
            apply_mask(&mut out[start + len..], mask);
        }
        Ok(())
    }

    fn next_mask(&self) -> Option<[u8; 4]> {
        match self.role {
            Role::Server => None,
            Role::Client { mask } => Some(mask()),
        }
    }
}

const fn opcode(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    }
}
