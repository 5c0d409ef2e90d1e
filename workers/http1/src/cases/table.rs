//! The form of the table: one case each, and the words with which the tables are written.

use super::driver::End;

/// Bytes that a client sends, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is special about the bytes.
    pub name: &'static str,
    /// Where it is written what a server has to do.
    pub rfc: &'static str,
    /// The bytes.
    pub bytes: &'static [u8],
    /// What becomes of them.
    pub expect: Expect,
}

/// What becomes of the bytes of a case.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The requests that are served, in order, with their bodies.
    pub served: &'static [Request],
    /// How it ends.
    pub end: End,
}

/// A request as an application sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The target as it was sent.
    pub target: &'static str,
    /// The authority.
    pub authority: &'static str,
    /// The body, without framing.
    pub body: &'static str,
}

/// A request for `http://a/` by that method, with that body: most cases are about something else than the target.
pub(super) const fn request(method: &'static str, body: &'static str) -> Request {
    Request { method, target: "/", authority: "a", body }
}

/// A GET request for that target.
pub(super) const fn get(target: &'static str, authority: &'static str) -> Request {
    Request { method: "GET", target, authority, body: "" }
}

/// A request line, with the usual field behind it.
macro_rules! first {
    ($line:literal) => {
        concat!($line, "\r\nHost: a\r\n\r\n").as_bytes()
    };
}

/// One field, or more, in a GET request.
macro_rules! field {
    ($field:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: a\r\n", $field, "\r\n\r\n").as_bytes()
    };
}

/// Fields in a POST request, and what follows its head.
macro_rules! post {
    ($fields:literal, $rest:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n\r\n", $rest).as_bytes()
    };
}

/// What follows the head of a chunked POST request.
macro_rules! chunked {
    ($rest:literal) => {
        post!("Transfer-Encoding: chunked", $rest)
    };
}

/// A table: groups of cases that have the place in the RFCs and the outcome in common.
macro_rules! cases {
    ($($rfc:literal, $served:expr, $end:expr => { $($name:literal: $bytes:expr,)* })*) => {
        &[$($(Case {
            name: $name,
            rfc: $rfc,
            bytes: $bytes,
            expect: Expect { served: &$served, end: $end },
        },)*)*]
    };
}

pub(super) use {cases, chunked, field, first, post};
