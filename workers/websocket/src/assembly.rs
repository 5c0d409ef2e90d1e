//! The message that is arriving: fragments are joined, decompressed, checked as UTF-8 and bounded.

use super::deflate::{Decompressor, Inflated};
use super::error::ProtocolError;
use super::frame::{FrameHeader, Opcode};
use super::mask::apply_mask;
use super::message::{Message, MessageKind};

/// The message of which frames arrive, or the one that was returned last.
#[derive(Debug)]
pub(super) struct Assembly {
    state: State,
    kind: MessageKind,
    /// Content of the message so far.
    payload: Vec<u8>,
    /// Number of bytes of the payload that are known to be UTF-8.
    valid: usize,
    max_message_size: usize,
    decompressor: Option<Decompressor>,
    /// Compressed bytes without their mask, until they are decompressed.
    unmasked: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between messages.
    Idle,
    Plain,
    Compressed,
}

impl Assembly {
    pub(super) fn new(max_message_size: usize, decompressor: Option<Decompressor>) -> Self {
        Self {
            state: State::Idle,
            kind: MessageKind::Binary,
            payload: Vec::new(),
            valid: 0,
            max_message_size,
            decompressor,
            unmasked: Vec::new(),
        }
    }

    /// Begins a data frame: the first of a message or a later one.
    pub(super) fn begin_frame(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        if header.opcode == Opcode::Continuation {
            if self.state == State::Idle {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            if header.compressed {
                return Err(ProtocolError::ReservedBit);
            }
        } else {
            if self.state != State::Idle {
                return Err(ProtocolError::InterruptedMessage);
            }
            self.begin_message(header)?;
        }
        let room = self.max_message_size - self.payload.len();
        if self.state == State::Plain && header.length > room as u64 {
            return Err(self.too_big());
        }
        Ok(())
    }

    /// Appends bytes of a frame and checks them. `mask` is that of the first byte, then of the byte that follows.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        mask: &mut Option<[u8; 4]>,
    ) -> Result<(), ProtocolError> {
        if self.state == State::Compressed {
            for bytes in bytes.chunks(COMPRESSED_STEP) {
                self.unmasked.clear();
                self.unmasked.extend_from_slice(bytes);
                *mask = mask.map(|mask| apply_mask(&mut self.unmasked, mask));
                let unmasked = std::mem::take(&mut self.unmasked);
                let result = self.inflate(&unmasked);
                self.unmasked = unmasked;
                result?;
            }
            return Ok(());
        }
        let start = self.payload.len();
        self.payload.extend_from_slice(bytes);
        *mask = mask.map(|mask| apply_mask(&mut self.payload[start..], mask));
        self.check_text()
    }

    /// Ends the message with the last byte of its last frame.
    pub(super) fn end(&mut self) -> Result<(), ProtocolError> {
        if self.state == State::Compressed
            && let Some(tail) = self.decompressor.as_ref().map(Decompressor::tail)
        {
            self.inflate(tail)?;
        }
        if let Some(decompressor) = &mut self.decompressor
            && self.state == State::Compressed
        {
            decompressor.end_message();
        }
        self.state = State::Idle;
        if self.kind == MessageKind::Text && self.valid < self.payload.len() {
            return Err(ProtocolError::InvalidUtf8);
        }
        Ok(())
    }

    /// Returns the message that has ended.
    #[inline]
    pub(super) fn message(&self) -> Message<'_> {
        Message { kind: self.kind, payload: &self.payload }
    }

    /// Frees what only the next message needs.
    pub(super) fn shrink(&mut self) {
        if self.state == State::Idle {
            self.payload = Vec::new();
        }
        self.unmasked = Vec::new();
        if let Some(decompressor) = &mut self.decompressor {
            decompressor.shrink();
        }
    }

    fn begin_message(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        self.state = match (header.compressed, &self.decompressor) {
            (false, _) => State::Plain,
            (true, Some(_)) => State::Compressed,
            (true, None) => return Err(ProtocolError::ReservedBit),
        };
        self.kind = match header.opcode {
            Opcode::Text => MessageKind::Text,
            _ => MessageKind::Binary,
        };
        self.payload.clear();
        self.payload.shrink_to(CAPACITY_KEPT);
        self.valid = 0;
        Ok(())
    }

    /// Decompresses to the end of `bytes`, or until the message is too big.
    fn inflate(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let Some(decompressor) = &mut self.decompressor else { return Ok(()) };
        loop {
            let inflated = decompressor.inflate(&mut bytes, &mut self.payload);
            // Before the other checks, so that the outcome does not depend on how the bytes are split.
            check_text(self.kind, &self.payload, &mut self.valid)?;
            if self.payload.len() > self.max_message_size {
                return Err(self.too_big());
            }
            match inflated {
                Inflated::All => return Ok(()),
                Inflated::More => {}
                Inflated::Invalid => return Err(ProtocolError::InvalidDeflate),
            }
        }
    }

    #[inline]
    fn check_text(&mut self) -> Result<(), ProtocolError> {
        check_text(self.kind, &self.payload, &mut self.valid)
    }

    const fn too_big(&self) -> ProtocolError {
        ProtocolError::MessageTooBig { limit: self.max_message_size }
    }
}

/// Checks what was appended to a text: everything is UTF-8, except for the start of a character at the end, which
/// must be the start of a valid one. Each byte is checked once, but for those of such a character.
#[inline]
fn check_text(kind: MessageKind, payload: &[u8], valid: &mut usize) -> Result<(), ProtocolError> {
    if kind == MessageKind::Binary {
        return Ok(());
    }
    match simdutf8::compat::from_utf8(&payload[*valid..]) {
        Ok(_) => *valid = payload.len(),
        Err(error) if error.error_len().is_none() => *valid += error.valid_up_to(),
        Err(_) => return Err(ProtocolError::InvalidUtf8),
    }
    Ok(())
}

/// Number of compressed bytes that are unmasked and decompressed at a time.
const COMPRESSED_STEP: usize = 16 * 1024;
/// Maximum number of bytes that the buffer keeps from one message to the next.
const CAPACITY_KEPT: usize = 256 * 1024;
