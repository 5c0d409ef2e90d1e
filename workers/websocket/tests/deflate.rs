//! permessage-deflate against a peer that compresses by hand, and decompresses with another library in a window of
//! the agreed size.

#![allow(clippy::unwrap_used)]

use flate2::{Compress, Compression, FlushCompress};
use jimu_websocket::{
    Codec, DeflateParams, Message, ProtocolError, Receiver, Role, Sender, Settings,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use peer::{
    BINARY, CLOSE, CONTINUATION, FIN, Got, RSV1, TEXT, exchange, fragments, frame, receive,
    split_frames,
};

mod peer;

const LIMIT: usize = 1 << 20;
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

fn settings(params: DeflateParams) -> Settings {
    Settings {
        max_message_size: LIMIT,
        deflate: Some(params),
        compression_level: 6,
        compression_threshold: 0,
    }
}

fn server() -> Receiver {
    Receiver::new(Role::Server, &settings(DeflateParams::default()))
}

/// Client that keeps or drops its windows by itself.
struct HandClient {
    params: DeflateParams,
    deflate: Compress,
    inflate: DecompressorOxide,
    ring: Vec<u8>,
    position: usize,
}

impl HandClient {
    fn new(params: DeflateParams) -> Self {
        let own = params.client_max_window_bits.max(9);
        Self {
            params,
            deflate: Compress::new_with_window_bits(Compression::best(), false, own),
            inflate: DecompressorOxide::new(),
            ring: vec![0; 1 << params.server_max_window_bits],
            position: 0,
        }
    }

    fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            return vec![0];
        }
        if self.params.client_no_context_takeover {
            self.deflate.reset();
        }
        let mut out = Vec::with_capacity(2 * payload.len() + 100);
        self.deflate.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        let len = out.strip_suffix(&TAIL).unwrap().len();
        out.truncate(len);
        out
    }

    /// Decompresses into a ring as large as the window: a distance beyond it reads the wrong bytes.
    fn decompress(&mut self, payload: &[u8]) -> Vec<u8> {
        if self.params.server_no_context_takeover {
            self.ring.fill(0);
        }
        let input = [payload, &TAIL].concat();
        let (mut out, mut rest) = (Vec::new(), &input[..]);
        loop {
            let (inflate, ring) = (&mut self.inflate, &mut self.ring);
            let flags = TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) = decompress(inflate, rest, ring, self.position, flags);
            rest = &rest[read..];
            out.extend(&ring[self.position..self.position + written]);
            self.position = (self.position + written) % ring.len();
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if rest.is_empty() => return out,
                status => panic!("{status:?} with {} bytes left", rest.len()),
            }
        }
    }
}

/// Returns messages that repeat their content and that of the previous ones at distances below and beyond every
/// window.
fn messages() -> Vec<Vec<u8>> {
    let mut seed = 1_u32;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    };
    let block = noise(120);
    let mut messages = vec![Vec::new(), b"Hello".to_vec(), b"Hello".to_vec(), block.clone()];
    for distance in [200, 253, 500, 900, 1800, 4000, 8000, 16_000, 32_700] {
        messages.push([&block[..], &noise(distance - 120), &block].concat());
    }
    messages.push(vec![0; 100_000]);
    messages.push(Vec::new());
    messages.push(block);
    messages
}

#[test]
fn every_window_with_and_without_context_takeover() {
    let messages = messages();
    for takeover in 0..4 {
        // The directions do not depend on each other: each window occurs once in each.
        for client_bits in 8..=15 {
            let params = DeflateParams {
                server_no_context_takeover: takeover & 1 != 0,
                client_no_context_takeover: takeover & 2 != 0,
                server_max_window_bits: (23 - client_bits).max(9),
                client_max_window_bits: client_bits,
            };
            echo_all(params, &messages);
        }
    }
}

fn echo_all(params: DeflateParams, messages: &[Vec<u8>]) {
    let mut client = HandClient::new(params);
    let mut server = Codec::new(Role::Server, &settings(params));
    for (number, message) in messages.iter().enumerate() {
        let payload = client.compress(message);
        let frames = if number % 2 == 0 {
            frame(FIN | RSV1 | BINARY, &payload)
        } else {
            fragments(RSV1 | BINARY, &payload, &[1, payload.len() / 2]).concat()
        };
        let got = receive(&mut server.receiver, frames.chunks(1000));
        assert!(got == [Got::Binary(message.clone())], "{params:?} {number}");
        let mut out = Vec::new();
        server.sender.message(Message::binary(message), &mut out).unwrap();
        let sent = split_frames(&out);
        assert_eq!((sent.len(), sent[0].0), (1, FIN | RSV1 | BINARY), "{params:?} {number}");
        assert!(client.decompress(&sent[0].1) == *message, "{params:?} {number}");
        if number % 3 == 0 {
            server.shrink();
        }
    }
}

#[test]
fn both_roles_of_the_codec_understand_each_other() {
    let params = DeflateParams {
        server_no_context_takeover: true,
        client_max_window_bits: 10,
        ..DeflateParams::default()
    };
    let mask = || [1, 2, 3, 4];
    let mut client = Codec::new(Role::Client { mask }, &settings(params));
    let mut server = Codec::new(Role::Server, &settings(params));
    for message in messages() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.sender.message(Message::binary(&message), &mut there).unwrap();
        assert!(receive(&mut server.receiver, [&there[..]]) == [Got::Binary(message.clone())]);
        server.sender.message(Message::binary(&message), &mut back).unwrap();
        assert!(receive(&mut client.receiver, [&back[..]]) == [Got::Binary(message)]);
    }
}

/// The forms that RFC 7692 7.2.3 describes.
#[test]
fn the_examples_of_the_rfc() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let mut receiver = server();
    let first = frame(FIN | RSV1 | TEXT, hello);
    let with_context = frame(FIN | RSV1 | TEXT, b"\xf2\x00\x11\x00\x00");
    let split = [frame(RSV1 | TEXT, &hello[..3]), frame(FIN | CONTINUATION, &hello[3..])].concat();
    let stored = frame(FIN | RSV1 | TEXT, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00");
    let last_block = frame(FIN | RSV1 | TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
    let two_blocks =
        frame(FIN | RSV1 | TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
    let all = [&first[..], &with_context, &split, &stored, &two_blocks, &last_block, &first];
    for bytes in all {
        assert_eq!(receive(&mut receiver, [bytes]), [Got::text("Hello")], "{bytes:x?}");
    }
    let bytes = all.concat();
    assert_eq!(receive(&mut server(), bytes.chunks(1)), vec![Got::text("Hello"); all.len()]);
}

#[test]
fn messages_without_content_or_without_compression_change_nothing() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let with_context = b"\xf2\x00\x11\x00\x00";
    let input = [
        frame(FIN | RSV1 | TEXT, hello),
        frame(FIN | RSV1 | BINARY, b"\x00"),
        frame(FIN | RSV1 | BINARY, b""),
        frame(FIN | TEXT, b"plain"),
        // One that ends with a last block, and nothing after it.
        frame(FIN | RSV1 | TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00"),
        frame(FIN | RSV1 | TEXT, hello),
        frame(FIN | RSV1 | TEXT, with_context),
    ];
    let empty = Got::Binary(Vec::new());
    let hello = Got::text("Hello");
    let expected = [
        hello.clone(),
        empty.clone(),
        empty,
        Got::text("plain"),
        hello.clone(),
        hello.clone(),
        hello,
    ];
    assert_eq!(receive(&mut server(), [&input.concat()[..]]), expected);
}

#[test]
fn only_the_first_frame_of_a_message_is_marked() {
    let bad = Got::Error(ProtocolError::ReservedBit);
    let twice = [frame(RSV1 | TEXT, b"\xf2"), frame(FIN | RSV1 | CONTINUATION, b"\x48")].concat();
    assert_eq!(receive(&mut server(), [&twice[..]]), std::slice::from_ref(&bad));
    let later = [frame(TEXT, b"a"), frame(FIN | RSV1 | CONTINUATION, b"b")].concat();
    assert_eq!(receive(&mut server(), [&later[..]]), std::slice::from_ref(&bad));
    let control = frame(FIN | RSV1 | CLOSE, b"");
    assert_eq!(receive(&mut server(), [&control[..]]), std::slice::from_ref(&bad));
    let mut without = Receiver::new(Role::Server, &Settings::default());
    let marked = frame(FIN | RSV1 | TEXT, b"\x00");
    assert_eq!(receive(&mut without, [&marked[..]]), [bad]);
}

#[test]
fn a_bomb_is_stopped_while_it_inflates() {
    let mut client = HandClient::new(DeflateParams::default());
    let exact = frame(FIN | RSV1 | BINARY, &client.compress(&vec![0; LIMIT]));
    let too_long = frame(FIN | RSV1 | BINARY, &client.compress(&vec![0; LIMIT + 1]));
    let mut codec = Codec::new(Role::Server, &settings(DeflateParams::default()));
    assert!(exchange(&mut codec, &exact) == (vec![Got::Binary(vec![0; LIMIT])], Vec::new()));
    let error = Got::Error(ProtocolError::MessageTooBig { limit: LIMIT });
    let close = (FIN | CLOSE, 1009_u16.to_be_bytes().to_vec());
    assert_eq!(exchange(&mut codec, &too_long), (vec![error.clone()], vec![close]));
    // The limit is reached before the end of the frame.
    let bomb = HandClient::new(DeflateParams::default()).compress(&vec![0; 50 * LIMIT]);
    let bytes = frame(RSV1 | BINARY, &bomb);
    assert_eq!(receive(&mut server(), [&bytes[..bytes.len() / 10]]), [error]);
}

#[test]
fn what_cannot_be_decompressed() {
    // A reserved type of block, a stored block with a wrong checksum, a distance before the start.
    for payload in [&b"\x06\x00"[..], b"\x00\x05\x00\x00\x00", b"\xf2\x00\x11\x00\x00"] {
        let mut codec = Codec::new(Role::Server, &settings(DeflateParams::default()));
        let (got, sent) = exchange(&mut codec, &frame(FIN | RSV1 | BINARY, payload));
        assert_eq!(got, [Got::Error(ProtocolError::InvalidDeflate)], "{payload:x?}");
        assert_eq!(sent, [(FIN | CLOSE, 1007_u16.to_be_bytes().to_vec())], "{payload:x?}");
    }
}

#[test]
fn a_compressed_text_is_checked_as_it_arrives() {
    let mut client = HandClient::new(DeflateParams::default());
    let payload = client.compress(&[b"valid \xff ".repeat(10), b"x".repeat(10_000)].concat());
    let bytes = frame(RSV1 | TEXT, &payload);
    let error = [Got::Error(ProtocolError::InvalidUtf8)];
    assert_eq!(receive(&mut server(), [&bytes[..bytes.len() - 4]]), error);
    let payload = HandClient::new(DeflateParams::default()).compress(b"valid \xe7\xa7");
    assert_eq!(receive(&mut server(), [&frame(FIN | RSV1 | TEXT, &payload)[..]]), error);
}

#[test]
fn short_messages_and_those_that_ask_for_it_are_sent_as_they_are() {
    let params = DeflateParams::default();
    let settings = Settings { compression_threshold: 10, ..settings(params) };
    let mut sender = Sender::new(Role::Server, &settings);
    let mut out = Vec::new();
    sender.message(Message::text("123456789"), &mut out).unwrap();
    sender.message_uncompressed(Message::text("1234567890"), &mut out).unwrap();
    sender.message(Message::text("1234567890"), &mut out).unwrap();
    let frames = split_frames(&out);
    let plain = [(FIN | TEXT, b"123456789".to_vec()), (FIN | TEXT, b"1234567890".to_vec())];
    assert_eq!(frames[..2], plain);
    assert_eq!(frames[2].0, FIN | RSV1 | TEXT);
    assert_eq!(HandClient::new(params).decompress(&frames[2].1), b"1234567890");
}

#[test]
fn compression_may_lengthen_or_shorten_the_header() {
    let mut client = HandClient::new(DeflateParams::default());
    let mut sender = Sender::new(Role::Server, &settings(DeflateParams::default()));
    let mut noise = messages().remove(12);
    noise.truncate(125);
    for payload in [noise, vec![b'a'; 126], vec![b'a'; 70_000]] {
        let mut out = b"before".to_vec();
        sender.message(Message::binary(&payload), &mut out).unwrap();
        let frames = split_frames(out.strip_prefix(b"before").unwrap());
        assert!(client.decompress(&frames[0].1) == payload, "{}", payload.len());
    }
}
