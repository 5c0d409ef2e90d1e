//! HTTP/1.1 without I/O: octets in, decisions and octets out. No socket, no clock, no thread is known in here.
//!
//! | module | what it decides | reference |
//! | --- | --- | --- |
//! | [`policy`](Policy) | the limits and strictness that the settings ask for | gunicorn's settings |
//! | [`scan`](HeadScan) | whether the head has come whole, limits enforced as it comes | RFC 9112 2.2, 3, 5 |
//! | [`head`](parse_head) | what a head means, or how it is refused | RFC 9112 3, 5, 6 |
//! | [`body`](BodyDecoder), `chunked` | where the body is and where it ends | RFC 9112 6, 7 |
//! | [`response`] | the head of an answer, its framing, chunks and trailers | RFC 9110 6–8, RFC 9112 4, 6, 7 |
//! | [`date`] | the Date field, formatted once a second | RFC 9110 6.6.1 |
//! | [`reject`](Reject) | refusals, and the answer to them | RFC 9110 15.5 |
//! | [`proxy`] | the PROXY protocol, versions 1 and 2 | its specification |
//! | [`forwarded`] | which peers are believed, and what they may say | gunicorn's settings |
//!
//! The feature `cases` adds `cases`: raw requests with what becomes of them, for tests of this layer and of servers.
//!
//! # How a connection uses it
//!
//! 1. [`proxy::parse_proxy`] once, where the setting asks for it.
//! 2. [`HeadScan::advance`] after each read until it answers [`Scan::Complete`]; where [`Policy::rewrites`] says so,
//!    [`normalize`] on the same octets; then [`parse_head`].
//! 3. [`BodyDecoder::decode`] on what follows, as the application asks for it; [`BodyDecoder::eof`] at the end of input.
//! 4. [`response::encode_head`], and what its [`BodyPlan`] says.
//!
//! # Invariants
//!
//! - Whatever the octets and however they are split: no panic, the same outcome, and nothing beyond the end of
//!   a message is consumed.
//! - A [`Reject`] is final: the framing is in doubt, so the connection is closed after the answer, and no octet after
//!   it is read as a request.
//! - Nothing allocates while a request is accepted, but the vector of headers, which the caller reuses.

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod date;
pub mod forwarded;
pub mod proxy;
pub mod response;

mod body;
mod chunked;
mod fields;
mod head;
mod manners;
mod policy;
mod reason;
mod reject;
mod request_line;
mod scan;
mod target;
mod tokens;

pub use body::{BodyDecoder, Decoded};
pub use head::{ConnectionOptions, Framing, Head, normalize, parse_head};
pub use manners::{ErrorPage, Manners};
pub use policy::{HEAD_MAX, HeaderMap, LINE_MAX, Policy};
pub use reject::{Reject, error_answer};
pub use response::{BodyKind, BodyPlan, HeaderFault, ResponseContext, encode_head, left_out};
pub use scan::{HeadScan, Scan};
pub use target::Authority;
