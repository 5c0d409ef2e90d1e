//! Decompresses messages as their bytes arrive.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Direction, TAIL};

/// Decompressor of the peer's messages, created by the first compressed one.
#[derive(Debug)]
pub(crate) struct Decompressor {
    no_context_takeover: bool,
    stream: Option<Decompress>,
    position: Position,
}

/// Where the stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// Before the first byte of a message.
    MessageStart,
    /// In a message.
    Within,
    /// After a block that is marked as the last one (RFC 7692 7.2.3.4): what follows is another stream.
    StreamEnd,
}

/// Progress of [`Decompressor::inflate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inflated {
    /// All of the input is decompressed.
    All,
    /// The output has grown, and there is more.
    More,
    /// The input is not a deflate stream.
    Invalid,
}

impl Decompressor {
    pub(crate) fn new(direction: Direction) -> Self {
        let Direction { no_context_takeover, .. } = direction;
        Self { no_context_takeover, stream: None, position: Position::MessageStart }
    }

    /// Decompresses the next bytes of a message and appends a bounded number of bytes to `out`. Removes from
    /// `input` what it has used. Call again after [`Inflated::More`].
    pub(crate) fn inflate(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Inflated {
        if input.is_empty() && self.position != Position::Within {
            return Inflated::All;
        }
        // With the largest window, whatever was agreed on: zlib-rs has no memory for less, and only for this one
        // is a reset cheap.
        let stream = self.stream.get_or_insert_with(|| Decompress::new(false));
        if self.position == Position::StreamEnd {
            stream.reset(false);
        }
        self.position = Position::Within;
        out.reserve(input.len().saturating_mul(2).clamp(ROOM_MIN, ROOM_MAX));
        let (consumed, produced) = (stream.total_in(), stream.total_out());
        let result = stream.decompress_vec(input, out, FlushDecompress::Sync);
        *input = &input[(stream.total_in() - consumed) as usize..];
        match result {
            Ok(Status::StreamEnd) => {
                self.position = Position::StreamEnd;
                if input.is_empty() { Inflated::All } else { Inflated::More }
            }
            // Output that is full may be hiding more.
            Ok(_) if out.len() == out.capacity() => Inflated::More,
            Ok(_) if input.is_empty() => Inflated::All,
            Ok(_) if stream.total_out() > produced || stream.total_in() > consumed => {
                Inflated::More
            }
            Ok(_) | Err(_) => Inflated::Invalid,
        }
    }

    /// Returns the bytes that the peer has not sent at the end of the message, to be decompressed too.
    pub(crate) fn tail(&self) -> &'static [u8] {
        match self.position {
            Position::Within => &TAIL,
            // Without a block that is open the tail has no meaning.
            Position::MessageStart | Position::StreamEnd => &[],
        }
    }

    /// Ends a message.
    pub(crate) fn end_message(&mut self) {
        if let Some(stream) = &mut self.stream
            && (self.no_context_takeover || self.position == Position::StreamEnd)
        {
            stream.reset(false);
        }
        self.position = Position::MessageStart;
    }

    /// Frees the decompressor if the next message does not depend on it.
    pub(crate) fn shrink(&mut self) {
        if self.no_context_takeover && self.position == Position::MessageStart {
            self.stream = None;
        }
    }
}

/// Minimum room for a step of output.
const ROOM_MIN: usize = 256;
/// Maximum room that is made for a step of output.
const ROOM_MAX: usize = 64 * 1024;
