//! HTTP/1.1 syntax without I/O: bytes in; decisions and bytes out. No sockets, clocks or threads.
//!
//! | module | what it decides | reference |
//! | --- | --- | --- |
//! | [`policy`](Policy) | limits and strictness from the settings | gunicorn's settings |
//! | [`scan`](HeadScan) | whether a head is complete; enforces limits as it arrives | RFC 9112 2.2, 3, 5 |
//! | [`head`](parse_head) | the meaning of a head, or its rejection | RFC 9112 3, 5, 6 |
//! | [`body`](BodyDecoder), `chunked` | where the body is and where it ends | RFC 9112 6, 7 |
//! | [`response`] | response head, framing, chunks and trailers | RFC 9110 6–8, RFC 9112 4, 6, 7 |
//! | [`date`] | the Date header, formatted once per second | RFC 9110 6.6.1 |
//! | [`reject`](Reject) | rejections and error responses | RFC 9110 15.5 |
//! | [`proxy`] | the PROXY protocol, versions 1 and 2 | its specification |
//! | [`forwarded`] | which peers are trusted, and with what | gunicorn's settings |
//!
//! The feature `cases` adds `cases`: raw requests with their expected outcomes, to test this crate and servers.
//!
//! # How a connection uses it
//!
//! 1. [`proxy::parse_proxy`] once, if the setting asks for it.
//! 2. [`HeadScan::advance`] after each read until it returns [`Scan::Complete`]; if [`Policy::rewrites`],
//!    [`normalize`] on the same bytes; then [`parse_head`].
//! 3. [`BodyDecoder::decode`] on the bytes that follow, as the application reads; [`BodyDecoder::eof`] at the end
//!    of input.
//! 4. [`response::encode_head`], then the body as its [`BodyPlan`] says.
//!
//! # Invariants
//!
//! - Whatever the bytes and however they are split: no panic, the same outcome, and nothing beyond the end of a
//!   message is consumed.
//! - A [`Reject`] is final: the framing is in doubt, so the connection is closed after the response, and no byte
//!   after it is parsed as a request.
//! - Accepting a request does not allocate, except for the vector of headers, which the caller reuses.

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod date;
pub mod forwarded;
pub mod proxy;
pub mod response;

mod body;
mod chunked;
mod decoded;
mod fields;
mod head;
mod policy;
mod reason;
mod reject;
mod request_line;
mod scan;
mod style;
mod target;
mod tokens;

pub use body::BodyDecoder;
pub use decoded::Decoded;
pub use fields::{ConnectionOptions, Framing};
pub use head::{Head, normalize, parse_head};
pub use policy::{HEAD_MAX, LINE_MAX, Policy};
pub use reject::{Reject, error_answer};
pub use response::{BodyKind, BodyPlan, HeaderFault, ResponseContext, encode_head, left_out};
pub use scan::{HeadScan, Scan};
pub use style::{ErrorPage, ResponseStyle};
pub use target::Authority;
pub use worker_api::{HeaderMap, ProxyProtocol};

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
