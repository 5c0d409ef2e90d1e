//! Frames of a client: the split does not matter, compressed or not, and no message is above the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use jimu_websocket::{DeflateParams, Event, MessageKind, ProtocolError, Receiver, Role, Settings};

fuzz_target!(|bytes: &[u8]| {
    let single = DeflateParams { client_no_context_takeover: true, ..DeflateParams::default() };
    for deflate in [None, Some(DeflateParams::default()), Some(single)] {
        let settings = Settings { max_message_size: LIMIT, deflate, ..Settings::default() };
        let whole = receive([bytes], &settings);
        assert_eq!(whole, receive(bytes.chunks(1), &settings));
        assert_eq!(whole, receive(bytes.chunks(7), &settings));
    }
});

/// Returns the events, with a copy of what they contain, and the error that ended them.
fn receive<'i>(
    chunks: impl IntoIterator<Item = &'i [u8]>,
    settings: &Settings,
) -> (Vec<(u8, Vec<u8>)>, Option<ProtocolError>) {
    let mut receiver = Receiver::new(Role::Server, settings);
    let mut events = Vec::new();
    for mut chunk in chunks {
        loop {
            match receiver.receive(&mut chunk) {
                Ok(Some(event)) => events.push(copy(&event)),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fn copy(event: &Event<'_>) -> (u8, Vec<u8>) {
    match event {
        Event::Message(message) => {
            assert!(message.payload.len() <= LIMIT);
            let is_text = message.kind == MessageKind::Text;
            assert!(!is_text || std::str::from_utf8(message.payload).is_ok());
            (u8::from(is_text), message.payload.to_vec())
        }
        Event::Ping(payload) => (2, payload.to_vec()),
        Event::Pong(payload) => (3, payload.to_vec()),
        Event::Close(close) => (4, format!("{:?} {}", close.code, close.reason).into_bytes()),
    }
}

const LIMIT: usize = 4096;
