//! The outcome does not depend on how the bytes are split: random connections, valid and damaged.

#![allow(clippy::unwrap_used)]

use jimu_websocket::{DeflateParams, Message, Receiver, Role, Sender, Settings};
use peer::{
    BINARY, CLOSE, FIN, Got, PING, PONG, RSV1, TEXT, fragments, frame, receive, split_frames,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

mod peer;

const LIMIT: usize = 3000;

/// What the client does.
#[derive(Clone, Debug)]
enum Step {
    Text { text: String, compress: bool, sizes: Vec<usize> },
    Binary { payload: Vec<u8>, compress: bool, sizes: Vec<usize> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || vec(0_usize..50, 0..4);
    prop_oneof![
        4 => (".{0,80}", any::<bool>(), sizes())
            .prop_map(|(text, compress, sizes)| Step::Text { text, compress, sizes }),
        4 => (vec(0_u8..4, 0..200), 1_usize..20, any::<bool>(), sizes()).prop_map(
            |(unit, times, compress, sizes)| {
                Step::Binary { payload: unit.repeat(times), compress, sizes }
            }
        ),
        1 => vec(any::<u8>(), 0..126).prop_map(Step::Ping),
        1 => vec(any::<u8>(), 0..126).prop_map(Step::Pong),
        1 => Just(Step::Close),
    ]
}

/// Encodes the steps, and returns what a receiver is to return for them.
fn encode(steps: &[Step], settings: &Settings) -> (Vec<u8>, Vec<Got>) {
    // Unmasked, so that its frames can be split further: the parameters are the same in both directions.
    let mut sender = Sender::new(Role::Server, settings);
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for step in steps {
        let (message, compress, sizes) = match step {
            Step::Text { text, compress, sizes } => {
                expected.push(Got::text(text));
                (Message::text(text), *compress, sizes)
            }
            Step::Binary { payload, compress, sizes } => {
                expected.push(Got::Binary(payload.clone()));
                (Message::binary(payload), *compress, sizes)
            }
            Step::Ping(payload) => {
                expected.push(Got::Ping(payload.clone()));
                bytes.extend(frame(FIN | PING, payload));
                continue;
            }
            Step::Pong(payload) => {
                expected.push(Got::Pong(payload.clone()));
                bytes.extend(frame(FIN | PONG, payload));
                continue;
            }
            Step::Close => {
                expected.push(Got::Close(Some(1000), "bye".to_owned()));
                bytes.extend(frame(FIN | CLOSE, b"\x03\xe8bye"));
                break;
            }
        };
        let mut out = Vec::new();
        if compress {
            sender.message(message, &mut out).unwrap();
        } else {
            sender.message_uncompressed(message, &mut out).unwrap();
        }
        for (first, payload) in split_frames(&out) {
            bytes.extend(fragments(first, &payload, sizes).concat());
        }
    }
    (bytes, expected)
}

fn settings(bits: u8, no_context_takeover: bool) -> Settings {
    let params = DeflateParams {
        server_no_context_takeover: no_context_takeover,
        client_no_context_takeover: no_context_takeover,
        server_max_window_bits: bits,
        client_max_window_bits: bits,
    };
    Settings {
        max_message_size: 200 * 20,
        deflate: Some(params),
        compression_threshold: 0,
        ..Settings::default()
    }
}

/// Splits the bytes after each of these numbers of bytes, again and again.
fn chunks<'b>(mut bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut chunks = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = *sizes.next().unwrap_or(&bytes.len());
        let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn valid_connections(
        steps in vec(step(), 0..8),
        bits in 9_u8..=15,
        no_context_takeover: bool,
        sizes in vec(1_usize..300, 1..8),
    ) {
        let settings = settings(bits, no_context_takeover);
        let (bytes, expected) = encode(&steps, &settings);
        let whole = receive(&mut Receiver::new(Role::Server, &settings), [&bytes[..]]);
        prop_assert_eq!(&whole, &expected);
        let split = chunks(&bytes, &sizes);
        prop_assert_eq!(receive(&mut Receiver::new(Role::Server, &settings), split), expected);
    }

    #[test]
    fn damaged_connections(
        steps in vec(step(), 1..8),
        bits in 9_u8..=15,
        no_context_takeover: bool,
        sizes in vec(1_usize..300, 1..8),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let settings =
            Settings { max_message_size: LIMIT, ..settings(bits, no_context_takeover) };
        let (mut bytes, _) = encode(&steps, &settings);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        let outcome = |chunks| receive(&mut Receiver::new(Role::Server, &settings), chunks);
        let whole = outcome(vec![&bytes[..]]);
        prop_assert_eq!(&outcome(chunks(&bytes, &sizes)), &whole);
        prop_assert_eq!(&outcome(bytes.chunks(1).collect()), &whole);
    }

    /// Frames with random headers: most are invalid.
    #[test]
    fn random_frames(
        frames in vec((prop::sample::select(FIRST), vec(any::<u8>(), 0..200)), 0..6),
        rest in vec(any::<u8>(), 0..20),
        sizes in vec(1_usize..40, 1..8),
    ) {
        let settings = settings(15, false);
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(first, p)| frame(*first, p)).collect();
        bytes.extend(rest);
        let outcome = |chunks| receive(&mut Receiver::new(Role::Server, &settings), chunks);
        let whole = outcome(vec![&bytes[..]]);
        prop_assert_eq!(&outcome(chunks(&bytes, &sizes)), &whole);
        prop_assert_eq!(&outcome(bytes.chunks(1).collect()), &whole);
    }
}

const FIRST: &[u8] = &[
    0x0,
    FIN,
    TEXT,
    BINARY,
    RSV1 | BINARY,
    FIN | BINARY,
    FIN | RSV1 | TEXT,
    FIN | RSV1 | BINARY,
    FIN | PING,
    FIN | PONG,
    FIN | CLOSE,
];
