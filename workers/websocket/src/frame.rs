//! The header of a frame (RFC 6455 5.2).
//!
//! ```text
//!     byte 0     FIN RSV1 RSV2 RSV3 opcode(4)
//!     byte 1     MASK length(7): up to 125, or 126: two more bytes, or 127: eight more bytes
//!     then       2 or 8 bytes of length, 4 bytes of mask if MASK
//! ```

use super::error::ProtocolError;

/// Opcode of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, ProtocolError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return Err(ProtocolError::ReservedOpcode(bits)),
        })
    }

    pub(super) const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHeader {
    pub(super) fin: bool,
    /// RSV1: the message is compressed (RFC 7692 6).
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) length: u64,
    pub(super) mask: Option<[u8; 4]>,
}

/// Length of the longest header.
pub(super) const HEADER_MAX: usize = 14;
/// Maximum number of bytes in the payload of a control frame (RFC 6455 5.5).
pub(super) const CONTROL_MAX: usize = 125;

impl FrameHeader {
    /// Parses the header at the start of `bytes` and returns it with its length, or `None` if it is incomplete.
    /// What is wrong in the first two bytes is reported when these have arrived.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & (RSV2 | RSV3) != 0 {
            return Err(ProtocolError::ReservedBit);
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        let fin = first & FIN != 0;
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(ProtocolError::FragmentedControl);
            }
            if usize::from(short) > CONTROL_MAX {
                return Err(ProtocolError::LongControl);
            }
        }
        let Some((length, length_len)) = parse_length(short, rest)? else { return Ok(None) };
        let (mask, mask_len) = match second & MASK {
            0 => (None, 0),
            _ => match rest[length_len..].first_chunk::<4>() {
                Some(mask) => (Some(*mask), 4),
                None => return Ok(None),
            },
        };
        let header = Self { fin, compressed: first & RSV1 != 0, opcode, length, mask };
        Ok(Some((header, 2 + length_len + mask_len)))
    }

    /// Appends the header to `out`.
    #[inline]
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (bytes, len) = self.to_bytes();
        out.extend_from_slice(&bytes[..len]);
    }

    /// Returns the header's bytes and their number.
    #[inline]
    pub(super) fn to_bytes(self) -> ([u8; HEADER_MAX], usize) {
        let mut bytes = [0; HEADER_MAX];
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.compressed { RSV1 } else { 0 };
        bytes[0] = fin | rsv1 | self.opcode as u8;
        let mut len = match self.length {
            0..=125 => {
                bytes[1] = self.length as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = LENGTH_16;
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = LENGTH_64;
                bytes[2..10].copy_from_slice(&self.length.to_be_bytes());
                10
            }
        };
        if let Some(mask) = self.mask {
            bytes[1] |= MASK;
            bytes[len..len + 4].copy_from_slice(&mask);
            len += 4;
        }
        (bytes, len)
    }
}

/// Returns the length of the payload and the number of bytes after the first two that it is read from.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    let (length, len, longest_of_shorter) = match short {
        LENGTH_16 => match rest.first_chunk() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2, 125),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.first_chunk() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8, 0xffff),
            None => return Ok(None),
        },
        _ => return Ok(Some((u64::from(short), 0))),
    };
    if length <= longest_of_shorter {
        return Err(ProtocolError::LengthNotMinimal);
    }
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthOverflow);
    }
    Ok(Some((length, len)))
}

/// Header of a frame of which only a part has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialHeader {
    bytes: [u8; HEADER_MAX],
    len: u8,
}

impl PartialHeader {
    pub(super) const EMPTY: Self = Self { bytes: [0; HEADER_MAX], len: 0 };

    /// Removes the next bytes of the header from `input`. Returns it once it is complete.
    #[inline]
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, ProtocolError> {
        if self.len == 0
            && let Some((header, len)) = FrameHeader::parse(input)?
        {
            *input = &input[len..];
            return Ok(Some(header));
        }
        self.read_rest(input)
    }

    /// Reads byte by byte, so that no byte of the payload is taken.
    fn read_rest(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, ProtocolError> {
        while let Some((byte, rest)) = input.split_first() {
            self.bytes[usize::from(self.len)] = *byte;
            self.len += 1;
            *input = rest;
            if let Some((header, _)) = FrameHeader::parse(&self.bytes[..usize::from(self.len)])? {
                self.len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASK: u8 = 0x80;
/// Marks a length of two bytes.
const LENGTH_16: u8 = 126;
/// Marks a length of eight bytes.
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_length_with_and_without_mask() {
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000, u64::MAX >> 1] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let opcode = Opcode::Binary;
                let header = FrameHeader { fin: true, compressed: false, opcode, length, mask };
                let mut bytes = Vec::new();
                header.encode(&mut bytes);
                for len in 0..bytes.len() {
                    assert_eq!(FrameHeader::parse(&bytes[..len]), Ok(None), "{header:?} {len}");
                }
                bytes.push(0xee);
                assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, bytes.len() - 1))));
                let mut partial = PartialHeader::EMPTY;
                let (before, mut last) = bytes.split_at(bytes.len() - 2);
                for byte in before.chunks(1) {
                    assert_eq!(partial.read(&mut &*byte), Ok(None));
                }
                assert_eq!(partial.read(&mut last), Ok(Some(header)));
                assert_eq!(last, [0xee]);
            }
        }
    }

    #[test]
    fn invalid_headers() {
        let cases: &[(&[u8], ProtocolError)] = &[
            (b"\xa1\x80", ProtocolError::ReservedBit),
            (b"\x91\x80", ProtocolError::ReservedBit),
            (b"\x83\x80", ProtocolError::ReservedOpcode(3)),
            (b"\x87\x80", ProtocolError::ReservedOpcode(7)),
            (b"\x8b\x80", ProtocolError::ReservedOpcode(11)),
            (b"\x8f\x80", ProtocolError::ReservedOpcode(15)),
            (b"\x09\x80", ProtocolError::FragmentedControl),
            (b"\x08\x80", ProtocolError::FragmentedControl),
            (b"\x8a\xfe", ProtocolError::LongControl),
            (b"\x89\xff", ProtocolError::LongControl),
            (b"\x81\xfe\x00\x7d", ProtocolError::LengthNotMinimal),
            (b"\x81\xff\0\0\0\0\0\0\xff\xff", ProtocolError::LengthNotMinimal),
            (b"\x81\xff\x80\0\0\0\0\0\0\0", ProtocolError::LengthOverflow),
        ];
        for (bytes, error) in cases {
            assert_eq!(FrameHeader::parse(bytes), Err(*error), "{bytes:?}");
        }
    }
}
