//! Receives: bytes in, events out.
//!
//! ```text
//!     Header ──▶ Payload ──▶ Header ──▶ …     a data frame appends to the message, a control frame does not
//!       │           └──▶ Closed               after a Close frame: all bytes are dropped
//!       └──────────────▶ Failed(error)        every later call returns the error
//! ```

use super::assembly::Assembly;
use super::close::Close;
use super::deflate::Decompressor;
use super::error::ProtocolError;
use super::frame::{CONTROL_MAX, FrameHeader, Opcode, PartialHeader};
use super::mask::apply_mask;
use super::message::Event;
use super::role::Role;
use super::settings::Settings;

/// Receiving half of a connection: decodes frames, reassembles and decompresses messages.
#[derive(Debug)]
pub struct Receiver {
    role: Role,
    state: State,
    assembly: Assembly,
    control: [u8; CONTROL_MAX],
    control_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before or in a header.
    Header(PartialHeader),
    Payload(Frame),
    Closed,
    Failed(ProtocolError),
}

/// A frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    /// Number of bytes that have not arrived.
    remaining: u64,
    /// Mask of the next byte and the three after it.
    mask: Option<[u8; 4]>,
}

/// What is complete.
enum Ready {
    Message,
    Control(Opcode),
}

impl Receiver {
    /// Creates the receiving half for this end.
    pub fn new(role: Role, settings: &Settings) -> Self {
        let peer = settings.deflate.as_ref().map(|params| match role {
            Role::Server => params.client(),
            Role::Client { .. } => params.server(),
        });
        Self {
            role,
            state: State::Header(PartialHeader::EMPTY),
            assembly: Assembly::new(settings.max_message_size, peer.map(Decompressor::new)),
            control: [0; CONTROL_MAX],
            control_len: 0,
        }
    }

    /// Reads from `input`, removes what it has read, and returns the next event; `None` if that has not arrived
    /// completely, and after a Close frame. Call it again until it returns `None`: the input is then used up.
    ///
    /// Text is checked as it arrives: an invalid byte is reported at once, not at the end of its message.
    #[inline]
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Event<'_>>, ProtocolError> {
        match self.advance(input) {
            Ok(None) => Ok(None),
            Ok(Some(Ready::Message)) => Ok(Some(Event::Message(self.assembly.message()))),
            Ok(Some(Ready::Control(opcode))) => self.control_event(opcode).map(Some),
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Returns whether a Close frame was received. What the peer sends after it is dropped.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Frees memory that only the next message needs: for connections that are idle. A decompressor is kept if
    /// the next message depends on it.
    pub fn shrink(&mut self) {
        self.assembly.shrink();
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Ready>, ProtocolError> {
        loop {
            match &mut self.state {
                State::Header(partial) => {
                    let Some(header) = partial.read(input)? else { return Ok(None) };
                    let frame = self.begin_frame(&header)?;
                    self.state = State::Payload(frame);
                }
                State::Payload(frame) => {
                    let mut frame = *frame;
                    self.read_payload(&mut frame, input)?;
                    if frame.remaining > 0 {
                        self.state = State::Payload(frame);
                        return Ok(None);
                    }
                    self.state = State::Header(PartialHeader::EMPTY);
                    if frame.opcode.is_control() {
                        return Ok(Some(Ready::Control(frame.opcode)));
                    }
                    if frame.fin {
                        self.assembly.end()?;
                        return Ok(Some(Ready::Message));
                    }
                }
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Failed(error) => return Err(*error),
            }
        }
    }

    fn begin_frame(&mut self, header: &FrameHeader) -> Result<Frame, ProtocolError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::Unmasked),
            (Role::Client { .. }, Some(_)) => return Err(ProtocolError::Masked),
            _ => {}
        }
        if header.opcode.is_control() {
            if header.compressed {
                return Err(ProtocolError::ReservedBit);
            }
            self.control_len = 0;
        } else {
            self.assembly.begin_frame(header)?;
        }
        let FrameHeader { opcode, fin, length, mask, .. } = *header;
        Ok(Frame { opcode, fin, remaining: length, mask })
    }

    /// Removes the next bytes of the frame from `input`, and unmasks them where they are collected.
    fn read_payload(&mut self, frame: &mut Frame, input: &mut &[u8]) -> Result<(), ProtocolError> {
        let len = input.len().min(usize::try_from(frame.remaining).unwrap_or(usize::MAX));
        let (bytes, rest) = input.split_at(len);
        *input = rest;
        frame.remaining -= len as u64;
        if frame.opcode.is_control() {
            let place = &mut self.control[self.control_len..self.control_len + len];
            place.copy_from_slice(bytes);
            frame.mask = frame.mask.map(|mask| apply_mask(place, mask));
            self.control_len += len;
            return Ok(());
        }
        self.assembly.append(bytes, &mut frame.mask)
    }

    fn control_event(&mut self, opcode: Opcode) -> Result<Event<'_>, ProtocolError> {
        let payload = &self.control[..self.control_len];
        match opcode {
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            _ => match Close::parse(payload) {
                Ok(close) => {
                    self.state = State::Closed;
                    Ok(Event::Close(close))
                }
                Err(error) => {
                    self.state = State::Failed(error);
                    Err(error)
                }
            },
        }
    }
}
