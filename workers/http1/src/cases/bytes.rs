//! Every byte at every position for which the grammars list the permitted bytes: it is accepted where it is
//! permitted, and nowhere else, and what follows a rejected one is not parsed as a request.

use crate::Policy;

use super::driver::serve;

/// A position within a message, and the bytes permitted there.
struct Place {
    rfc: &'static str,
    name: &'static str,
    before: &'static str,
    after: &'static str,
    permits: fn(u8) -> bool,
}

#[test]
fn an_byte_is_served_where_it_is_permitted_and_nowhere_else() {
    let policy = Policy::default();
    let mut wrong = Vec::new();
    for place in PLACES {
        for byte in 0..=255 {
            let message = [place.before.as_bytes(), &[byte], place.after.as_bytes()].concat();
            let served = serve([&message[..]], &policy).served.len();
            if served != usize::from((place.permits)(byte)) {
                wrong.push(format!("{} (RFC {}), {byte:#04x}: {served}", place.name, place.rfc));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn behind_an_byte_that_is_not_permitted_nothing_is_served() {
    let policy = Policy::default();
    for place in PLACES {
        for byte in (0..=255).filter(|byte| !(place.permits)(*byte)) {
            let message = [place.before.as_bytes(), &[byte], place.after.as_bytes(), NEXT].concat();
            let transcript = serve([&message[..]], &policy);
            let smuggled = transcript.served.iter().any(|served| served.target == b"/next");
            assert!(!smuggled, "{} (RFC {}), {byte:#04x}: {transcript:?}", place.name, place.rfc);
        }
    }
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// Columns of the table: RFC, name, what precedes the byte, what follows it, permitted bytes.
macro_rules! places {
    ($($rfc:literal, $name:literal: $before:expr, $after:expr, $permits:expr;)*) => {
        &[$(Place { rfc: $rfc, name: $name, before: $before, after: $after, permits: $permits }),*]
    };
}

macro_rules! head {
    ($text:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: a\r\n", $text)
    };
}

macro_rules! post {
    ($text:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $text)
    };
}

macro_rules! chunks {
    ($text:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $text)
    };
}

const REST: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";
const HELLO: &str = "\r\nhello\r\n0\r\n\r\n";

static PLACES: &[Place] = places! {
    "9110 9.1", "in a method": "GE", "T / HTTP/1.1\r\nHost: a\r\n\r\n", is_method;
    "9110 9.1", "before a method": "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", is_method;
    "9112 3", "after a method": "GET", "/ HTTP/1.1\r\nHost: a\r\n\r\n", |byte| byte == b' ';
    "9112 3.2", "in a path": "GET /a", REST, is_visible;
    "9112 3.2", "in a query": "GET /a?b", REST, is_visible;
    "9112 3", "after a target": "GET /", "HTTP/1.1\r\nHost: a\r\n\r\n", |byte| byte == b' ';
    "9112 2.3", "for the major version": "GET / HTTP/", ".1\r\nHost: a\r\n\r\n", |byte| byte == b'1';
    "9112 2.3", "for the dot": "GET / HTTP/1", "1\r\nHost: a\r\n\r\n", |byte| byte == b'.';
    "9112 2.3", "for the minor version": "GET / HTTP/1.", "\r\nHost: a\r\n\r\n", is_digit;
    "9112 3", "after a version": "GET / HTTP/1.1", "\r\nHost: a\r\n\r\n", nothing;
    "9112 2.2", "after the CR of the request line": "GET / HTTP/1.1\r", "Host: a\r\n\r\n", is_lf;
    "9112 5.1", "before a name": head!(""), "X: y\r\n\r\n", is_token;
    "9112 5.1", "in a name": head!("X"), "Y: z\r\n\r\n", |byte| is_token(byte) || byte == b':';
    "9112 5.1", "before the colon": head!("X"), ": y\r\n\r\n", |byte| is_token(byte) || byte == b':';
    "9112 5.1", "for the colon": "GET / HTTP/1.1\r\nHost", "a\r\n\r\n", |byte| byte == b':';
    "9110 5.5", "before a value": head!("X:"), "y\r\n\r\n", is_value;
    "9110 5.5", "in a value": head!("X: y"), "z\r\n\r\n", is_value;
    "9110 5.5", "after a value": head!("X: y"), "\r\n\r\n", is_value;
    "9112 2.2", "after the CR of a field": head!("X: y\r"), "Y: z\r\n\r\n", is_lf;
    "9112 2.2", "after the last CR": head!("\r"), "", is_lf;
    "9112 3.2", "in a host": "GET / HTTP/1.1\r\nHost: a", "b\r\n\r\n", is_host;
    "9112 3.2", "in a port": "GET / HTTP/1.1\r\nHost: a:8", "0\r\n\r\n", is_digit;
    "9112 6.3", "before a length": post!("Content-Length: "), "5\r\n\r\nhello",
        |byte| is_blank(byte) || byte == b'0';
    "9112 6.3", "after a length": post!("Content-Length: 5"), "\r\n\r\nhello", is_blank;
    "9112 6.1", "before a coding": post!("Transfer-Encoding: "), "chunked\r\n\r\n0\r\n\r\n", is_blank;
    "9112 6.1", "in a coding": post!("Transfer-Encoding: chun"), "ked\r\n\r\n0\r\n\r\n", nothing;
    "9112 6.1", "after a coding": post!("Transfer-Encoding: chunked"), "\r\n\r\n0\r\n\r\n", is_blank;
    "9112 7.1", "before a chunk's size": chunks!(""), "5\r\nhello\r\n0\r\n\r\n", |byte| byte == b'0';
    "9112 7.1", "after a chunk's size": chunks!("5"), HELLO, nothing;
    "9112 7.1", "after the CR of a size": chunks!("5\r"), "hello\r\n0\r\n\r\n", is_lf;
    "9112 7.1.1", "in an extension's name": chunks!("5;a"), HELLO, is_token;
    "9112 7.1.1", "in an extension's value": chunks!("5;a=b"), HELLO, is_token;
    "9112 7.1.1", "in quotes": chunks!("5;a=\""), "\"\r\nhello\r\n0\r\n\r\n",
        |byte| is_value(byte) && byte != b'"' && byte != b'\\';
    "9112 7.1.1", "behind a backslash": chunks!("5;a=\"\\"), "\"\r\nhello\r\n0\r\n\r\n", is_value;
    "9112 7.1", "after a chunk's data": chunks!("5\r\nhello"), "\r\n0\r\n\r\n", nothing;
    "9112 7.1", "after the CR of the data": chunks!("5\r\nhello\r"), "0\r\n\r\n", is_lf;
    "9112 7.1", "after the last size": chunks!("5\r\nhello\r\n0"), "\r\n\r\n", |byte| byte == b'0';
    "9112 7.1.2", "in a trailer's name": chunks!("0\r\nX"), "Y: z\r\n\r\n",
        |byte| is_token(byte) || byte == b':';
    "9112 7.1.2", "in a trailer's value": chunks!("0\r\nX: y"), "z\r\n\r\n", is_value;
    "9112 7.1", "after the body's last CR": chunks!("0\r\n\r"), "", is_lf;
};

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A token, as gunicorn accepts it as a method.
fn is_method(byte: u8) -> bool {
    is_token(byte) && !byte.is_ascii_lowercase() && byte != b'#'
}

/// RFC 9110 5.5, 5.6.4.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// RFC 3986 2, and what gunicorn accepts in addition.
fn is_visible(byte: u8) -> bool {
    (b'!'..=b'~').contains(&byte)
}

/// RFC 3986 3.2.2, without escapes.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_lf(byte: u8) -> bool {
    byte == b'\n'
}

fn nothing(_: u8) -> bool {
    false
}
