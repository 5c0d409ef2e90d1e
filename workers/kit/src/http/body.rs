//! The body of a request: which of the octets behind the head are its data, and where it ends (RFC 9112 6, 7).

use std::ops::Range;

use super::chunked::Chunked;
use super::head::Framing;
use super::policy::Policy;
use super::reject::Reject;

/// What [`BodyDecoder::decode`] made of its input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// So many octets of the input are done with; the rest is for the next call, or of the next request where `done`.
    pub consumed: usize,
    /// Where in the input the data is that this call found; may be empty. Always within what was consumed.
    pub data: Range<usize>,
    /// Whether the body is at its end.
    pub done: bool,
}

/// Finds the data of one request's body in the octets that follow its head.
///
/// After an error it stays in error: the rest of the connection means nothing any more.
#[derive(Clone, Debug)]
pub struct BodyDecoder(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// So many octets are left.
    Length(u64),
    Chunked(Chunked),
}

impl BodyDecoder {
    /// A decoder for a body of that framing, with the limits of the policy.
    pub fn new(framing: Framing, policy: &Policy) -> Self {
        Self(match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(Chunked::new(policy)),
        })
    }

    /// Decodes a part of `input`: up to the end of the first run of data in it, as a rule. Call it again with what
    /// was not consumed, followed by what has come since; an empty input is no end of input ([`BodyDecoder::eof`] is).
    /// All of the input is consumed unless data was found or the body ended before.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Reject> {
        match &mut self.0 {
            Kind::Length(left) => {
                let len = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                Ok(Decoded { consumed: len, data: 0..len, done: *left == 0 })
            }
            Kind::Chunked(chunked) => chunked.decode(input),
        }
    }

    /// Whether the body is at its end.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Length(left) => *left == 0,
            Kind::Chunked(chunked) => chunked.is_done(),
        }
    }

    /// How many octets of data are sure to be left: all of them, or those of the current chunk. Nothing where that is
    /// not known. With [`Framing::Length`] a reader may read so many octets from the connection and decode them as data.
    pub fn remaining_hint(&self) -> Option<u64> {
        match &self.0 {
            Kind::Length(left) => Some(*left),
            Kind::Chunked(chunked) => chunked.remaining_hint(),
        }
    }

    /// The connection is at its end: fine after the body, otherwise the message is incomplete (RFC 9112 8).
    pub fn eof(&self) -> Result<(), Reject> {
        if self.is_done() {
            return Ok(());
        }
        Err(Reject::bad("the connection ended inside the request's body"))
    }
}
