//! Compresses messages.

use flate2::{Compress, Compression, FlushCompress};

use super::{Direction, TAIL};

/// Compressor of one end, created by the first message that is compressed.
#[derive(Debug)]
pub(crate) struct Compressor {
    direction: Direction,
    level: u32,
    stream: Option<Compress>,
}

impl Compressor {
    pub(crate) fn new(direction: Direction, level: u32) -> Self {
        Self { direction, level: level.min(LEVEL_MAX), stream: None }
    }

    /// Appends the compressed payload of a message to `out`.
    pub(crate) fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if payload.is_empty() {
            // The compressor would produce nothing after its last flush (RFC 7692 7.2.3.6).
            out.push(EMPTY_BLOCK);
            return;
        }
        let (direction, level) = (self.direction, self.level);
        let stream = self.stream.get_or_insert_with(|| {
            Compress::new_with_window_bits(Compression::new(level), false, direction.zlib_bits())
        });
        let start = out.len();
        let mut rest = payload;
        out.reserve(payload.len() / 2 + ROOM_MIN);
        loop {
            let before = stream.total_in();
            stream
                .compress_vec(rest, out, FlushCompress::Sync)
                .expect("a compressor that is flushed and never finished is in a valid state");
            rest = &rest[(stream.total_in() - before) as usize..];
            // Room that is left means that everything was flushed.
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(rest.len().max(ROOM_MIN));
        }
        if out[start..].ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        if direction.no_context_takeover {
            stream.reset();
        }
    }

    /// Frees the compressor if the next message does not depend on it.
    pub(crate) fn shrink(&mut self) {
        if self.direction.no_context_takeover {
            self.stream = None;
        }
    }
}

/// An empty stored block without its last four bytes.
const EMPTY_BLOCK: u8 = 0x00;
/// Room for a flush: more than six bytes, so that zlib does not repeat the marker (its manual on `deflate`).
const ROOM_MIN: usize = 64;
/// The best and slowest level.
const LEVEL_MAX: u32 = 9;
