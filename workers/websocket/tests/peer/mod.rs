//! The other end, by hand: frames byte by byte, and events that outlive the codec's buffers.

// Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use jimu_websocket::{Codec, Event, MessageKind, ProtocolError, Receiver};

pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns a masked frame; `first` is FIN, reserved bits and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, 0x80, payload.len());
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// Returns a frame without a mask.
pub fn bare_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, 0, payload.len());
    bytes.extend(payload);
    bytes
}

fn header(first: u8, mask: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(mask | len as u8),
        126..=0xffff => {
            bytes.push(mask | 0x7e);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 0x7f);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes
}

/// Returns the frames of a message that is split into fragments of these sizes, and the rest.
pub fn fragments(first: u8, payload: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let (mut first, mut rest) = (first & !FIN, payload);
    for size in sizes {
        let (fragment, after) = rest.split_at((*size).min(rest.len()));
        frames.push(frame(first, fragment));
        (first, rest) = (CONTINUATION, after);
    }
    frames.push(frame(first | FIN, rest));
    frames
}

/// Splits the frames of a server: first byte and payload of each.
pub fn split_frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (len, rest) = match second {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk().unwrap())), &rest[2..]),
            127 => (u64::from_be_bytes(*rest.first_chunk().unwrap()) as usize, &rest[8..]),
            len => (usize::from(*len), rest),
        };
        assert!(len <= rest.len(), "the frame is whole and has no mask");
        frames.push((*first, rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty());
    frames
}

/// What a receiver returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Error(ProtocolError),
}

impl Got {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Message(message) if message.kind == MessageKind::Text => {
                assert_eq!(message.as_text().map(str::as_bytes), Some(message.payload));
                Self::Text(String::from_utf8(message.payload.to_vec()).unwrap())
            }
            Event::Message(message) => Self::Binary(message.payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => {
                Self::Close(close.code.map(|code| code.0), close.reason.to_owned())
            }
        }
    }
}

/// Feeds the chunks one after the other, up to an error.
pub fn receive<'i>(
    receiver: &mut Receiver,
    chunks: impl IntoIterator<Item = &'i [u8]>,
) -> Vec<Got> {
    let mut got = Vec::new();
    for mut chunk in chunks {
        loop {
            match receiver.receive(&mut chunk) {
                Ok(Some(event)) => got.push(Got::of(&event)),
                Ok(None) => break,
                Err(error) => {
                    got.push(Got::Error(error));
                    assert_eq!(receiver.receive(&mut chunk), Err(error), "an error is final");
                    return got;
                }
            }
        }
        assert!(chunk.is_empty(), "all input is used up");
    }
    got
}

/// Feeds all bytes at once to a codec that replies. Returns what was received, and the frames that were sent.
pub fn exchange(codec: &mut Codec, mut input: &[u8]) -> (Vec<Got>, Vec<(u8, Vec<u8>)>) {
    let (mut got, mut out) = (Vec::new(), Vec::new());
    loop {
        match codec.receive(&mut input, &mut out) {
            Ok(Some(event)) => got.push(Got::of(&event)),
            Ok(None) => return (got, split_frames(&out)),
            Err(error) => {
                got.push(Got::Error(error));
                return (got, split_frames(&out));
            }
        }
    }
}
