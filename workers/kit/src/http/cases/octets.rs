//! Every octet in every place where the grammars name the octets that they permit: it is served where it is permitted,
//! and nowhere else, and what comes behind it then is no request.

use crate::http::Policy;

use super::driver::serve;

/// A place within a message, and the octets that may stand there.
struct Place {
    rfc: &'static str,
    name: &'static str,
    before: &'static str,
    after: &'static str,
    permits: fn(u8) -> bool,
}

#[test]
fn an_octet_is_served_where_it_is_permitted_and_nowhere_else() {
    let policy = Policy::default();
    let mut wrong = Vec::new();
    for place in PLACES {
        for octet in 0..=255 {
            let message = [place.before.as_bytes(), &[octet], place.after.as_bytes()].concat();
            let served = serve([&message[..]], &policy).served.len();
            if served != usize::from((place.permits)(octet)) {
                wrong.push(format!("{} (RFC {}), {octet:#04x}: {served}", place.name, place.rfc));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn behind_an_octet_that_is_not_permitted_nothing_is_served() {
    let policy = Policy::default();
    for place in PLACES {
        for octet in (0..=255).filter(|octet| !(place.permits)(*octet)) {
            let message =
                [place.before.as_bytes(), &[octet], place.after.as_bytes(), NEXT].concat();
            let transcript = serve([&message[..]], &policy);
            let smuggled = transcript.served.iter().any(|served| served.target == b"/next");
            assert!(!smuggled, "{} (RFC {}), {octet:#04x}: {transcript:?}", place.name, place.rfc);
        }
    }
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// The table's columns: RFC, name, what comes before the octet, what comes after it, what is permitted.
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
    "9112 3", "after a method": "GET", "/ HTTP/1.1\r\nHost: a\r\n\r\n", |octet| octet == b' ';
    "9112 3.2", "in a path": "GET /a", REST, is_visible;
    "9112 3.2", "in a query": "GET /a?b", REST, is_visible;
    "9112 3", "after a target": "GET /", "HTTP/1.1\r\nHost: a\r\n\r\n", |octet| octet == b' ';
    "9112 2.3", "for the major version": "GET / HTTP/", ".1\r\nHost: a\r\n\r\n", |octet| octet == b'1';
    "9112 2.3", "for the dot": "GET / HTTP/1", "1\r\nHost: a\r\n\r\n", |octet| octet == b'.';
    "9112 2.3", "for the minor version": "GET / HTTP/1.", "\r\nHost: a\r\n\r\n", is_digit;
    "9112 3", "after a version": "GET / HTTP/1.1", "\r\nHost: a\r\n\r\n", nothing;
    "9112 2.2", "after the CR of the request line": "GET / HTTP/1.1\r", "Host: a\r\n\r\n", is_lf;
    "9112 5.1", "before a name": head!(""), "X: y\r\n\r\n", is_token;
    "9112 5.1", "in a name": head!("X"), "Y: z\r\n\r\n", |octet| is_token(octet) || octet == b':';
    "9112 5.1", "before the colon": head!("X"), ": y\r\n\r\n", |octet| is_token(octet) || octet == b':';
    "9112 5.1", "for the colon": "GET / HTTP/1.1\r\nHost", "a\r\n\r\n", |octet| octet == b':';
    "9110 5.5", "before a value": head!("X:"), "y\r\n\r\n", is_value;
    "9110 5.5", "in a value": head!("X: y"), "z\r\n\r\n", is_value;
    "9110 5.5", "after a value": head!("X: y"), "\r\n\r\n", is_value;
    "9112 2.2", "after the CR of a field": head!("X: y\r"), "Y: z\r\n\r\n", is_lf;
    "9112 2.2", "after the last CR": head!("\r"), "", is_lf;
    "9112 3.2", "in a host": "GET / HTTP/1.1\r\nHost: a", "b\r\n\r\n", is_host;
    "9112 3.2", "in a port": "GET / HTTP/1.1\r\nHost: a:8", "0\r\n\r\n", is_digit;
    "9112 6.3", "before a length": post!("Content-Length: "), "5\r\n\r\nhello",
        |octet| is_blank(octet) || octet == b'0';
    "9112 6.3", "after a length": post!("Content-Length: 5"), "\r\n\r\nhello", is_blank;
    "9112 6.1", "before a coding": post!("Transfer-Encoding: "), "chunked\r\n\r\n0\r\n\r\n", is_blank;
    "9112 6.1", "in a coding": post!("Transfer-Encoding: chun"), "ked\r\n\r\n0\r\n\r\n", nothing;
    "9112 6.1", "after a coding": post!("Transfer-Encoding: chunked"), "\r\n\r\n0\r\n\r\n", is_blank;
    "9112 7.1", "before a chunk's size": chunks!(""), "5\r\nhello\r\n0\r\n\r\n", |octet| octet == b'0';
    "9112 7.1", "after a chunk's size": chunks!("5"), HELLO, nothing;
    "9112 7.1", "after the CR of a size": chunks!("5\r"), "hello\r\n0\r\n\r\n", is_lf;
    "9112 7.1.1", "in an extension's name": chunks!("5;a"), HELLO, is_token;
    "9112 7.1.1", "in an extension's value": chunks!("5;a=b"), HELLO, is_token;
    "9112 7.1.1", "in quotes": chunks!("5;a=\""), "\"\r\nhello\r\n0\r\n\r\n",
        |octet| is_value(octet) && octet != b'"' && octet != b'\\';
    "9112 7.1.1", "behind a backslash": chunks!("5;a=\"\\"), "\"\r\nhello\r\n0\r\n\r\n", is_value;
    "9112 7.1", "after a chunk's data": chunks!("5\r\nhello"), "\r\n0\r\n\r\n", nothing;
    "9112 7.1", "after the CR of the data": chunks!("5\r\nhello\r"), "0\r\n\r\n", is_lf;
    "9112 7.1", "after the last size": chunks!("5\r\nhello\r\n0"), "\r\n\r\n", |octet| octet == b'0';
    "9112 7.1.2", "in a trailer's name": chunks!("0\r\nX"), "Y: z\r\n\r\n",
        |octet| is_token(octet) || octet == b':';
    "9112 7.1.2", "in a trailer's value": chunks!("0\r\nX: y"), "z\r\n\r\n", is_value;
    "9112 7.1", "after the body's last CR": chunks!("0\r\n\r"), "", is_lf;
};

/// RFC 9110 5.6.2.
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// A token, as gunicorn takes it for a method.
fn is_method(octet: u8) -> bool {
    is_token(octet) && !octet.is_ascii_lowercase() && octet != b'#'
}

/// RFC 9110 5.5, 5.6.4.
fn is_value(octet: u8) -> bool {
    octet == b'\t' || octet >= b' ' && octet != 0x7f
}

/// RFC 3986 2, and what gunicorn takes besides.
fn is_visible(octet: u8) -> bool {
    (b'!'..=b'~').contains(&octet)
}

/// RFC 3986 3.2.2, without escapes.
fn is_host(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&octet)
}

fn is_digit(octet: u8) -> bool {
    octet.is_ascii_digit()
}

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

fn is_lf(octet: u8) -> bool {
    octet == b'\n'
}

fn nothing(_: u8) -> bool {
    false
}
