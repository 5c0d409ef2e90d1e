//! Texts: every split of valid ones, and the first invalid byte of others.

use jimu_websocket::{ProtocolError, Receiver, Role, Settings};
use peer::{FIN, Got, TEXT, fragments, frame, receive};
use proptest::collection::vec;
use proptest::prelude::*;

mod peer;

fn server() -> Receiver {
    Receiver::new(Role::Server, &Settings::default())
}

#[test]
fn valid_texts_split_anywhere() {
    let texts = [
        "κόσμε",
        "积木 blocks",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\0",
    ];
    for text in texts {
        let whole = frame(FIN | TEXT, text.as_bytes());
        for at in 0..=text.len() {
            let frames = fragments(TEXT, text.as_bytes(), &[at]).concat();
            assert_eq!(receive(&mut server(), [&frames[..]]), [Got::text(text)], "fragment {at}");
        }
        for at in 0..=whole.len() {
            let (before, after) = whole.split_at(at);
            assert_eq!(receive(&mut server(), [before, after]), [Got::text(text)], "read {at}");
        }
    }
}

/// An invalid byte is reported when it arrives: before the frame, let alone the message, is complete.
#[test]
fn the_first_invalid_byte_fails_at_once() {
    let cases: &[(&[u8], usize)] = &[
        (b"\x80", 0),
        (b"ok\xbf", 2),
        (b"\xc0\xaf", 0),
        (b"\xc1\x80", 0),
        (b"\xc2a", 1),
        (b"\xe0\x9f\xbf", 1),
        (b"\xe7\xa7a", 2),
        (b"\xed\xa0\x80", 1),
        (b"\xed\xbf\xbf", 1),
        (b"\xf0\x8f\xbf\xbf", 1),
        (b"\xf0\x90\x80a", 3),
        (b"\xf4\x90\x80\x80", 1),
        (b"\xf5\x80\x80\x80", 0),
        (b"\xfe", 0),
        (b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80edited", 6),
    ];
    for (text, invalid) in cases {
        let bytes = frame(TEXT, &[text, &[b'x'; 100][..]].concat());
        let header = bytes.len() - text.len() - 100;
        let mut receiver = server();
        let valid = &bytes[..header + invalid];
        assert_eq!(receive(&mut receiver, valid.chunks(1)), [], "{text:?}");
        let error = [Got::Error(ProtocolError::InvalidUtf8)];
        assert_eq!(receive(&mut receiver, [&bytes[valid.len()..=valid.len()]]), error, "{text:?}");
        assert_eq!(receive(&mut server(), [&bytes[..]]), error, "{text:?}");
    }
}

#[test]
fn a_text_may_not_end_within_a_character() {
    for text in [&b"\xc2"[..], b"a\xe7\xa7", b"\xf0\x9f\x8e"] {
        let error = [Got::Error(ProtocolError::InvalidUtf8)];
        let bytes = frame(FIN | TEXT, text);
        assert_eq!(receive(&mut server(), [&bytes[..]]), error, "{text:?}");
        let frames = fragments(TEXT, text, &[text.len()]).concat();
        assert_eq!(receive(&mut server(), [&frames[..]]), error, "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Texts with a few random bytes are valid exactly if the standard library accepts them.
    #[test]
    fn the_standard_library_agrees(
        text in ".{0,60}",
        noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        sizes in vec(0_usize..20, 0..4),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in noise {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let expected = match str::from_utf8(&bytes) {
            Ok(text) => Got::text(text),
            Err(_) => Got::Error(ProtocolError::InvalidUtf8),
        };
        let frames = fragments(TEXT, &bytes, &sizes).concat();
        prop_assert_eq!(receive(&mut server(), [&frames[..]]), [expected.clone()]);
        prop_assert_eq!(receive(&mut server(), frames.chunks(1)), [expected]);
    }
}
