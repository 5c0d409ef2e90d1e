//! The headers of a request: validated by httparse, filtered here, and interpreted as far as they frame the
//! message.

use std::ops::Range;

use worker_api::abi::std_types::{RSlice, RStr};
use worker_api::{Header, Version};

use worker_api::HeaderMap;

use super::policy::Policy;
use super::reject::Reject;
use super::target::{Authority, check_authority};
use super::tokens::{decimal, has_underscore, is_token, trim, underscores};

/// Framing of a request body (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body.
    None,
    /// This number of bytes follows the head.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// Options of the Connection headers of a request (RFC 9110 7.6.1), over all lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionOptions {
    /// `close`, or something malformed: the connection is closed after the response.
    pub close: bool,
    /// `keep-alive`, which HTTP/1.0 clients send.
    pub keep_alive: bool,
    /// `upgrade` with an Upgrade header, in HTTP/1.1.
    pub upgrade: bool,
}

/// Headers that the server itself interprets.
#[derive(Default)]
pub(super) struct FramingHeaders<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    content_type: Option<&'b [u8]>,
    connection: ConnectionOptions,
    /// Whether a header above that must be unique occurs twice.
    twice: bool,
    upgrade: bool,
    expect_continue: bool,
    expect_other: bool,
}

/// What the headers of a head say about its message.
pub(super) struct Message<'b> {
    /// The Host header.
    pub(super) host: Authority<'b>,
    pub(super) framing: Framing,
    pub(super) connection: ConnectionOptions,
    pub(super) expect_continue: bool,
}

impl<'b> FramingHeaders<'b> {
    /// Collects the headers of the head at `head` in `buf` and puts those for the application into `headers`.
    /// Checks what httparse does not: limits, and that lines end with CRLF.
    pub(super) fn collect(
        &mut self,
        buf: &'b [u8],
        head: Range<usize>,
        fields: &[httparse::Header<'b>],
        policy: &Policy,
        headers: &mut Vec<Header<'b>>,
    ) -> Result<(), Reject> {
        let fields_end = head.end - 2;
        let fields_begin = fields.first().map_or(fields_end, |field| offset(buf, field.name));
        // httparse also accepts LF as a line end: the byte before the LF of each line must be a CR.
        let follows_crlf = |line: usize| buf[line - 2] == b'\r';
        if fields_begin - head.start > policy.line_max() + 2
            || fields.len() > policy.limit_request_fields
            || head.len() > policy.field_max() && !is_within_limits(buf, head.end, fields, policy)
            || !follows_crlf(fields_end)
            || !follows_crlf(head.end)
        {
            return Err(Reject::bad("the head is beyond a limit, or a line ends with LF alone"));
        }
        let before = |field: &httparse::Header<'_>| buf[offset(buf, field.name) - 2];
        let differ = fields.iter().fold(0, |differ, field| differ | (before(field) ^ b'\r'));
        let underscored = fields.iter().fold(0, |all, f| all | underscores(f.name.as_bytes()));
        headers.clear();
        headers.extend(fields.iter().map(|field| Header {
            name: RStr::from_str(field.name),
            value: RSlice::from_slice(field.value),
        }));
        if differ != 0 {
            return Err(Reject::bad("a line ends with LF alone"));
        }
        let mut sift = underscored != 0;
        for field in fields.iter().filter(|field| may_be_known(field.name.as_bytes())) {
            sift |= self.take(field.name.as_bytes(), field.value);
        }
        if sift {
            leave_out(headers, policy)?;
        }
        Ok(())
    }

    /// Records a header that the server may interpret; returns whether the application must not get it.
    #[inline(never)]
    fn take(&mut self, name: &[u8], value: &'b [u8]) -> bool {
        // Most clients write names like the RFCs.
        let is = |known: &[u8]| name == known || name.eq_ignore_ascii_case(known);
        let place = match name.len() {
            4 if is(b"Host") => &mut self.host,
            12 if is(b"Content-Type") => &mut self.content_type,
            14 if is(b"Content-Length") => &mut self.content_length,
            17 if is(b"Transfer-Encoding") => &mut self.transfer_encoding,
            5 if is(b"Proxy") => return true,
            6 if is(b"Expect") => return self.take_expect(value),
            7 if is(b"Upgrade") => {
                self.upgrade = true;
                return false;
            }
            10 if is(b"Connection") => return self.take_connection(value),
            _ => return false,
        };
        self.twice |= place.replace(value).is_some();
        false
    }

    fn take_expect(&mut self, value: &[u8]) -> bool {
        let known = value.eq_ignore_ascii_case(b"100-continue");
        self.expect_continue |= known;
        self.expect_other |= !known;
        false
    }

    /// Parses the options of one Connection line. One that is not a token could be a `close` to another
    /// recipient.
    fn take_connection(&mut self, value: &[u8]) -> bool {
        if value == b"keep-alive" {
            self.connection.keep_alive = true;
            return false;
        }
        for option in value.split(|byte| *byte == b',').map(trim) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.connection.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection.upgrade = true;
            } else if !option.is_empty() && !is_token(option) {
                self.connection.close = true;
            }
        }
        false
    }

    /// Combines the headers into the meaning of the message.
    #[inline]
    pub(super) fn message(&self, version: Version, policy: &Policy) -> Result<Message<'b>, Reject> {
        if self.twice {
            return Err(Reject::bad(
                "Host, Content-Type, Content-Length or Transfer-Encoding is there twice",
            ));
        }
        let framing = self.framing(version, policy)?;
        Ok(Message {
            host: self.host(version)?,
            framing,
            connection: self.connection(version),
            expect_continue: self.expect_continue(version)? && framing != Framing::None,
        })
    }

    /// Returns the Host header, which HTTP/1.1 requires and which must be valid (RFC 9112 3.2).
    fn host(&self, version: Version) -> Result<Authority<'b>, Reject> {
        match self.host {
            Some(host) => check_authority(host),
            None if version >= Version::HTTP_11 => Err(Reject::bad("Host is missing")),
            None => Ok(Authority::default()),
        }
    }

    /// Determines the framing of the body (RFC 9112 6.1, 6.3).
    fn framing(&self, version: Version, policy: &Policy) -> Result<Framing, Reject> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(Reject::bad("both Transfer-Encoding and Content-Length")),
            (Some(_), None) if version < Version::HTTP_11 => {
                Err(Reject::bad("Transfer-Encoding in HTTP/1.0"))
            }
            (Some(codings), None) => check_codings(codings).map(|()| Framing::Chunked),
            (None, Some(digits)) => match decimal(digits) {
                None => Err(Reject::bad("Content-Length is no number").with(digits)),
                Some(0) => Ok(Framing::None),
                Some(length) if length > LENGTH_MAX => {
                    Err(Reject::new(413, "Content-Length is beyond all bounds").with(digits))
                }
                Some(length)
                    if policy.limit_request_body > 0 && length > policy.limit_request_body =>
                {
                    Err(Reject::new(413, "the body is longer than limit_request_body"))
                }
                Some(length) => Ok(Framing::Length(length)),
            },
        }
    }

    /// Returns the Connection options. An HTTP/1.0 client cannot ask for an upgrade (RFC 9110 7.8).
    fn connection(&self, version: Version) -> ConnectionOptions {
        let upgrade = self.connection.upgrade && self.upgrade && version >= Version::HTTP_11;
        ConnectionOptions { upgrade, ..self.connection }
    }

    /// Returns whether the client waits for a 100; an HTTP/1.0 client cannot (RFC 9110 10.1.1).
    fn expect_continue(&self, version: Version) -> Result<bool, Reject> {
        if self.expect_other {
            return Err(Reject::new(417, "an expectation other than 100-continue"));
        }
        Ok(self.expect_continue && version >= Version::HTTP_11)
    }
}

/// Returns whether each header, with its line end, and the head are within their limits. Called only if the head
/// is longer than one header may be.
#[cold]
fn is_within_limits(
    buf: &[u8],
    end: usize,
    fields: &[httparse::Header<'_>],
    policy: &Policy,
) -> bool {
    let begins = fields.iter().map(|field| offset(buf, field.name));
    let ends = begins.clone().skip(1).chain([end - 2]);
    let mut lengths = begins.zip(ends).map(|(begin, end)| end - begin);
    end <= policy.head_max() && lengths.all(|len| len <= policy.field_max())
}

/// Returns whether a name has the length and the first letter of one that [`FramingHeaders::take`] knows: most do not.
#[inline]
fn may_be_known(name: &[u8]) -> bool {
    let first = name.first().map_or(0, |first| first | 0x20);
    KNOWN_FIRST.get(name.len()).is_some_and(|known| *known == first)
}

/// Removes headers that the application must not get because it could mistake them for others.
#[cold]
fn leave_out(headers: &mut Vec<Header<'_>>, policy: &Policy) -> Result<(), Reject> {
    let ambiguous = |field: &Header<'_>| {
        has_underscore(field.name.as_bytes()) && !policy.forwards(field.name.as_str())
    };
    // Proxy would become the variable HTTP_PROXY, which many libraries obey (CVE-2016-5385).
    headers.retain(|field| !field.is("proxy"));
    match policy.header_map {
        HeaderMap::Dangerous => {}
        HeaderMap::Drop => headers.retain(|field| !ambiguous(field)),
        HeaderMap::Refuse => {
            if let Some(field) = headers.iter().find(|field| ambiguous(field)) {
                return Err(
                    Reject::bad("a field's name has an underscore").with(field.name.as_bytes())
                );
            }
        }
    }
    Ok(())
}

/// Checks that the transfer coding is only `chunked`. A value that is not a list of tokens, and `chunked`
/// anywhere but once at the end, are rejected with 400, an unsupported coding with 501 (RFC 9112 6.1).
fn check_codings(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim);
    if codings.clone().any(|coding| !is_token(coding)) {
        return Err(Reject::bad("Transfer-Encoding is malformed").with(value));
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last_is_chunked = codings.next_back().is_some_and(is_chunked);
    if codings.any(is_chunked) || (!last_is_chunked && is_registered(value)) {
        return Err(Reject::bad("chunked is not the last transfer coding").with(value));
    }
    Err(Reject::new(501, "a transfer coding other than chunked").with(value))
}

/// Returns whether this is a single known coding that cannot end a message (RFC 9112 6.3 then requires 400).
fn is_registered(coding: &[u8]) -> bool {
    ["gzip", "x-gzip", "compress", "x-compress", "deflate", "identity"]
        .iter()
        .any(|known| coding.eq_ignore_ascii_case(known.as_bytes()))
}

/// Returns the offset of a part of the buffer.
pub(super) fn offset(buf: &[u8], part: &str) -> usize {
    (part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize)
}

/// The first letter of the name of each length that [`FramingHeaders::take`] knows.
const KNOWN_FIRST: [u8; 18] = *b"    hpeu  c c c  t";
/// Maximum Content-Length: file offsets and sums of lengths stay within 63 bits.
const LENGTH_MAX: u64 = i64::MAX as u64;
