//! The form of the table: a case, and the macros with which the tables are written.

use super::driver::End;

/// Bytes that a client sends, and their outcome.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is special about the bytes.
    pub name: &'static str,
    /// Source of the required behavior.
    pub rfc: &'static str,
    /// The bytes.
    pub bytes: &'static [u8],
    /// The outcome.
    pub expect: Expect,
}

/// Outcome of a case.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Requests that are served, in order, with their bodies.
    pub served: &'static [Request],
    /// How it ends.
    pub end: End,
}

/// A request as seen by an application.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Method.
    pub method: &'static str,
    /// Target as sent.
    pub target: &'static str,
    /// Authority.
    pub authority: &'static str,
    /// Body, without framing.
    pub body: &'static str,
}

/// A request for `http://a/` with this method and body: most cases are not about the target.
pub(super) const fn request(method: &'static str, body: &'static str) -> Request {
    Request { method, target: "/", authority: "a", body }
}

/// A GET request for this target.
pub(super) const fn get(target: &'static str, authority: &'static str) -> Request {
    Request { method: "GET", target, authority, body: "" }
}

/// A request line, followed by the usual header.
macro_rules! first {
    ($line:literal) => {
        concat!($line, "\r\nHost: a\r\n\r\n").as_bytes()
    };
}

/// One or more headers in a GET request.
macro_rules! field {
    ($field:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: a\r\n", $field, "\r\n\r\n").as_bytes()
    };
}

/// Headers in a POST request, and what follows its head.
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

/// A table: groups of cases with a common source and outcome.
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
