//! Frames, messages and the closing handshake, as the other end sees them.

#![allow(clippy::unwrap_used)]

use jimu_websocket::{
    CloseCode, Codec, Event, Message, ProtocolError, Receiver, Role, SendError, Sender, Settings,
};
use peer::{
    BINARY, CLOSE, CONTINUATION, FIN, Got, PING, PONG, RSV1, TEXT, bare_frame, exchange, fragments,
    frame, receive, split_frames,
};

mod peer;

const LIMIT: usize = 100_000;

fn settings() -> Settings {
    Settings { max_message_size: LIMIT, ..Settings::default() }
}

fn server() -> Codec {
    Codec::new(Role::Server, &settings())
}

fn got(bytes: &[u8]) -> Vec<Got> {
    receive(&mut server().receiver, [bytes])
}

#[test]
fn messages_of_every_form_of_length() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 0xffff, 0x1_0000, LIMIT] {
        let text = "x".repeat(len);
        assert_eq!(got(&frame(FIN | TEXT, text.as_bytes())), [Got::text(&text)], "{len}");
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let mut codec = server();
        let received = receive(&mut codec.receiver, [&frame(FIN | BINARY, &bytes)[..]]);
        assert_eq!(received, [Got::Binary(bytes.clone())], "{len}");
        let mut out = Vec::new();
        codec.sender.message(Message::binary(&bytes), &mut out).unwrap();
        assert_eq!(out, bare_frame(FIN | BINARY, &bytes), "{len}");
    }
}

#[test]
fn a_client_and_a_server_understand_each_other() {
    let mask = || [0xff, 0, 0xa5, 1];
    let (mut client, mut server) = (Codec::new(Role::Client { mask }, &settings()), server());
    let mut bytes = Vec::new();
    client.sender.message(Message::text("积木"), &mut bytes).unwrap();
    client.sender.ping(b"now", &mut bytes).unwrap();
    assert_eq!(bytes[1], 0x80 | 6, "masked");
    let mut out = Vec::new();
    let mut input = &bytes[..];
    while let Some(event) = server.receiver.receive(&mut input).unwrap() {
        server.sender.reply(&event, &mut out);
        if let Event::Message(message) = event {
            server.sender.message(message, &mut out).unwrap();
        }
    }
    let got = receive(&mut client.receiver, [&out[..]]);
    assert_eq!(got, [Got::text("积木"), Got::Pong(b"now".to_vec())]);
    let masked = receive(&mut client.receiver, [&frame(FIN | TEXT, b"x")[..]]);
    assert_eq!(masked, [Got::Error(ProtocolError::Masked)]);
}

#[test]
fn control_frames_between_fragments_come_first() {
    let mut frames = fragments(TEXT, "积木".as_bytes(), &[1, 0, 2]);
    frames.insert(1, frame(FIN | PING, b"one"));
    frames.insert(3, frame(FIN | PONG, b""));
    let (got, sent) = exchange(&mut server(), &frames.concat());
    let expected = [Got::Ping(b"one".to_vec()), Got::Pong(Vec::new()), Got::text("积木")];
    assert_eq!(got, expected);
    assert_eq!(sent, [(FIN | PONG, b"one".to_vec())]);
}

#[test]
fn the_peer_s_close_frame_between_fragments_ends_the_connection() {
    let mut frames = fragments(TEXT, b"never whole", &[3]);
    frames.insert(1, frame(FIN | CLOSE, b"\x03\xe9bye"));
    let (got, sent) = exchange(&mut server(), &frames.concat());
    assert_eq!(got, [Got::Close(Some(1001), "bye".to_owned())]);
    assert_eq!(sent, [(FIN | CLOSE, b"\x03\xe9".to_vec())]);
}

#[test]
fn violations_and_the_codes_to_close_with() {
    let text = frame(TEXT, b"a");
    let then = |first: &[u8], second: &[u8]| [first, second].concat();
    let mut unmasked = bare_frame(FIN | TEXT, b"a");
    unmasked.extend(b"more");
    let cases: Vec<(Vec<u8>, ProtocolError, u16)> = vec![
        (unmasked, ProtocolError::Unmasked, 1002),
        (frame(FIN | RSV1 | TEXT, b"a"), ProtocolError::ReservedBit, 1002),
        (frame(FIN | RSV1 | PING, b"a"), ProtocolError::ReservedBit, 1002),
        (frame(FIN | 0x20 | TEXT, b"a"), ProtocolError::ReservedBit, 1002),
        (frame(FIN | 0x10 | BINARY, b""), ProtocolError::ReservedBit, 1002),
        (frame(FIN | 0x3, b""), ProtocolError::ReservedOpcode(3), 1002),
        (frame(FIN | 0xb, b""), ProtocolError::ReservedOpcode(11), 1002),
        (frame(PING, b""), ProtocolError::FragmentedControl, 1002),
        (frame(FIN | PING, &[0; 126]), ProtocolError::LongControl, 1002),
        (frame(FIN | CLOSE, &[3; 126]), ProtocolError::LongControl, 1002),
        (frame(FIN | CONTINUATION, b"a"), ProtocolError::UnexpectedContinuation, 1002),
        (frame(CONTINUATION, b"a"), ProtocolError::UnexpectedContinuation, 1002),
        (then(&text, &text), ProtocolError::InterruptedMessage, 1002),
        (then(&text, &frame(FIN | BINARY, b"")), ProtocolError::InterruptedMessage, 1002),
        (frame(FIN | CLOSE, b"x"), ProtocolError::TruncatedCloseCode, 1002),
        (frame(FIN | CLOSE, b"\x03\xed"), ProtocolError::InvalidCloseCode(CloseCode(1005)), 1002),
        (frame(FIN | CLOSE, b"\x03\xe8\xff"), ProtocolError::InvalidUtf8, 1007),
        (frame(FIN | TEXT, b"\xff"), ProtocolError::InvalidUtf8, 1007),
        (frame(FIN | TEXT, b"\xe7\xa7"), ProtocolError::InvalidUtf8, 1007),
        (
            frame(FIN | BINARY, &vec![0; LIMIT + 1]),
            ProtocolError::MessageTooBig { limit: LIMIT },
            1009,
        ),
    ];
    for (bytes, error, code) in cases {
        let mut codec = server();
        let (got, sent) = exchange(&mut codec, &bytes);
        assert_eq!(got, [Got::Error(error)]);
        assert_eq!(sent, [(FIN | CLOSE, u16::to_be_bytes(code).to_vec())], "{error}");
        let again = codec.sender.message(Message::text("a"), &mut Vec::new());
        assert_eq!(again, Err(SendError::Closed));
        // Byte by byte the outcome is the same.
        assert_eq!(receive(&mut server().receiver, bytes.chunks(1)), [Got::Error(error)]);
    }
}

#[test]
fn what_was_received_before_a_violation_is_returned() {
    let bytes =
        [frame(FIN | TEXT, b"first"), frame(FIN | PING, b""), frame(FIN | 0x5, b"")].concat();
    let error = Got::Error(ProtocolError::ReservedOpcode(5));
    assert_eq!(got(&bytes), [Got::text("first"), Got::Ping(Vec::new()), error]);
}

#[test]
fn a_message_that_is_too_big_is_refused_by_its_header() {
    let too_big = Got::Error(ProtocolError::MessageTooBig { limit: LIMIT });
    let whole = frame(FIN | BINARY, &vec![0; LIMIT + 1]);
    assert_eq!(got(&whole[..14]), std::slice::from_ref(&too_big));
    let parts = fragments(BINARY, &vec![0; LIMIT + 1], &[LIMIT]);
    let second_header = &parts[1][..6];
    assert_eq!(got(&[&parts[0], second_header].concat()), std::slice::from_ref(&too_big));
    let huge = [&[FIN | TEXT, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
    assert_eq!(got(&huge), [too_big]);
}

#[test]
fn the_peer_s_close_frame_is_echoed_once() {
    let mut codec = server();
    let close = frame(FIN | CLOSE, b"\x0f\xa0\xe7\xa7\xaf");
    let dropped = frame(FIN | PING, b"late");
    let (got, sent) = exchange(&mut codec, &[&close[..], &dropped, &close].concat());
    assert_eq!(got, [Got::Close(Some(4000), "积".to_owned())]);
    assert_eq!(sent, [(FIN | CLOSE, b"\x0f\xa0".to_vec())]);
    assert!(codec.is_closed());
    let mut out = Vec::new();
    assert_eq!(codec.sender.message(Message::text(""), &mut out), Err(SendError::Closed));
    assert_eq!(codec.sender.ping(b"", &mut out), Err(SendError::Closed));
    assert_eq!(codec.sender.close(CloseCode::NORMAL, "", &mut out), Err(SendError::Closed));
    assert_eq!(out, b"");
}

#[test]
fn an_empty_close_frame_is_echoed_empty() {
    let (got, sent) = exchange(&mut server(), &frame(FIN | CLOSE, b""));
    assert_eq!(got, [Got::Close(None, String::new())]);
    assert_eq!(sent, [(FIN | CLOSE, Vec::new())]);
}

#[test]
fn after_closing_what_was_on_the_way_still_arrives() {
    let mut codec = server();
    let mut out = Vec::new();
    codec.sender.close(CloseCode::SERVICE_RESTART, &"é".repeat(100), &mut out).unwrap();
    let reason = [&b"\x03\xf4"[..], "é".repeat(61).as_bytes()].concat();
    assert_eq!(split_frames(&out), [(FIN | CLOSE, reason)]);
    assert!(codec.sender.is_closed() && !codec.is_closed());
    let input =
        [frame(FIN | TEXT, b"late"), frame(FIN | PING, b"late"), frame(FIN | CLOSE, b"\x03\xf4")];
    let (got, sent) = exchange(&mut codec, &input.concat());
    let expected =
        [Got::text("late"), Got::Ping(b"late".to_vec()), Got::Close(Some(1012), String::new())];
    assert_eq!((got, sent), (expected.to_vec(), Vec::new()));
    assert!(codec.is_closed());
}

#[test]
fn what_cannot_be_sent_leaves_no_bytes() {
    let mut sender = Sender::new(Role::Server, &settings());
    let mut out = Vec::new();
    assert_eq!(sender.ping(&[0; 126], &mut out), Err(SendError::LongControl(126)));
    assert_eq!(sender.pong(&[0; 200], &mut out), Err(SendError::LongControl(200)));
    for code in [CloseCode::NO_STATUS, CloseCode::ABNORMAL, CloseCode(0), CloseCode(5000)] {
        assert_eq!(sender.close(code, "", &mut out), Err(SendError::InvalidCloseCode(code)));
    }
    assert!(out.is_empty() && !sender.is_closed());
    sender.ping(&[0; 125], &mut out).unwrap();
    assert_eq!(out.len(), 127);
}

#[test]
fn frames_are_appended() {
    let mut sender = Sender::new(Role::Server, &settings());
    let mut out = b"before".to_vec();
    sender.message(Message::text("a"), &mut out).unwrap();
    sender.message_uncompressed(Message::binary(b"b"), &mut out).unwrap();
    assert_eq!(out, b"before\x81\x01a\x82\x01b");
}

#[test]
fn shrinking_keeps_a_message_that_is_arriving() {
    let mut receiver = Receiver::new(Role::Server, &settings());
    let frames = fragments(TEXT, "积木".as_bytes(), &[4]);
    assert_eq!(receive(&mut receiver, [&frames[0][..]]), []);
    receiver.shrink();
    assert_eq!(receive(&mut receiver, [&frames[1][..]]), [Got::text("积木")]);
    receiver.shrink();
    assert_eq!(receive(&mut receiver, [&frame(FIN | TEXT, b"next")[..]]), [Got::text("next")]);
}

/// With a cost per byte that grows with the message, this takes minutes.
#[test]
fn a_large_text_byte_by_byte() {
    let text = "积".repeat(300_000);
    let settings = Settings::default();
    let mut receiver = Receiver::new(Role::Server, &settings);
    let bytes = frame(FIN | TEXT, text.as_bytes());
    assert_eq!(receive(&mut receiver, bytes.chunks(1)), [Got::Text(text.clone())]);
    let sizes = vec![1; text.len()];
    let bytes = fragments(TEXT, text.as_bytes(), &sizes).concat();
    assert_eq!(receive(&mut receiver, [&bytes[..]]), [Got::Text(text)]);
}
