//! The fields of a request's head: checked by httparse, sifted here, and what the ones say that frame the message.

use worker_api::abi::std_types::{RSlice, RStr};
use worker_api::{Header, Version};

use super::head::{ConnectionOptions, Framing};
use super::policy::{HeaderMap, Policy};
use super::reject::Reject;
use super::target::check_authority;
use super::tokens::{decimal, is_token, trim};

/// What the fields say that the server itself acts upon.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, all combinations of which occur"
)]
pub(super) struct Facts<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    connection: ConnectionOptions,
    upgrade: bool,
    content_type: bool,
    expect_continue: bool,
    expect_other: bool,
}

impl<'b> Facts<'b> {
    /// Parses the fields from `at` on into `headers`; answers where the head ends. Nothing where a line is malformed,
    /// beyond a limit or missing.
    pub(super) fn collect(
        buf: &'b [u8],
        at: usize,
        _version: Version,
        policy: &Policy,
        headers: &mut Vec<Header<'b>>,
    ) -> Result<Option<(Self, usize)>, Reject> {
        let mut slots = [httparse::EMPTY_HEADER; SLOTS];
        let mut more_slots;
        let mut parsed = httparse::parse_headers(&buf[at..], &mut slots);
        if parsed == Err(httparse::Error::TooManyHeaders) && policy.limit_request_fields > SLOTS {
            more_slots = vec![httparse::EMPTY_HEADER; policy.limit_request_fields];
            parsed = httparse::parse_headers(&buf[at..], &mut more_slots);
        }
        let Ok(httparse::Status::Complete((len, fields))) = parsed else { return Ok(None) };
        if fields.len() > policy.limit_request_fields {
            return Ok(None);
        }
        let end = at + len;
        let mut facts = Self::default();
        let begin = |field: &httparse::Header<'b>| offset(buf, field.name);
        for (index, field) in fields.iter().enumerate() {
            let next = fields.get(index + 1).map_or(end - 2, begin);
            if next.wrapping_sub(begin(field)) > policy.field_max()
                || !buf[..next].ends_with(b"\r\n")
            {
                return Ok(None);
            }
            if facts.take(field, policy)? {
                headers.push(Header {
                    name: RStr::from_str(field.name),
                    value: RSlice::from_slice(trim(field.value)),
                });
            }
        }
        if !buf[..end].ends_with(b"\r\n") {
            return Ok(None);
        }
        Ok(Some((facts, end)))
    }

    /// Looks at one field; answers whether the application gets it.
    fn take(&mut self, field: &httparse::Header<'b>, policy: &Policy) -> Result<bool, Reject> {
        let (name, value) = (field.name, trim(field.value));
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            once(&mut self.host, value, "Host")?;
        } else if is("content-length") {
            once(&mut self.content_length, value, "Content-Length")?;
        } else if is("transfer-encoding") {
            once(&mut self.transfer_encoding, value, "Transfer-Encoding")?;
        } else if is("connection") {
            self.take_connection(value);
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("expect") {
            if value.eq_ignore_ascii_case(b"100-continue") {
                self.expect_continue = true;
            } else {
                self.expect_other = true;
            }
        } else if is("content-type") {
            if self.content_type {
                return Err(Reject::bad("more than one Content-Type"));
            }
            self.content_type = true;
        } else if is("proxy") {
            // It would become the variable HTTP_PROXY, which many libraries obey (CVE-2016-5385).
            return Ok(false);
        } else if memchr::memchr(b'_', name.as_bytes()).is_some() && !policy.forwards(name) {
            return match policy.header_map {
                HeaderMap::Drop => Ok(false),
                HeaderMap::Dangerous => Ok(true),
                HeaderMap::Refuse => {
                    Err(Reject::bad("a field's name has an underscore").with(name.as_bytes()))
                }
            };
        }
        Ok(true)
    }

    /// The options of one Connection line. One that is no token could be a `close` that somebody else understands.
    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|octet| *octet == b',').map(trim) {
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
    }

    /// The Host field; it must be there in HTTP/1.1, and valid wherever it is (RFC 9112 3.2).
    pub(super) fn host(&self, version: Version) -> Result<&'b str, Reject> {
        match self.host {
            Some(host) => check_authority(host),
            None if version >= Version::HTTP_11 => Err(Reject::bad("Host is missing")),
            None => Ok(""),
        }
    }

    /// Where the body is (RFC 9112 6.1, 6.3).
    pub(super) fn framing(&self, version: Version, policy: &Policy) -> Result<Framing, Reject> {
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

    /// What Connection asks for. An HTTP/1.0 client cannot ask for an upgrade (RFC 9110 7.8).
    pub(super) fn connection(&self, version: Version) -> ConnectionOptions {
        let upgrade = self.connection.upgrade && self.upgrade && version >= Version::HTTP_11;
        ConnectionOptions { upgrade, ..self.connection }
    }

    /// Whether the client waits for a 100; an HTTP/1.0 client cannot (RFC 9110 10.1.1).
    pub(super) fn expect_continue(&self, version: Version) -> Result<bool, Reject> {
        if self.expect_other {
            return Err(Reject::new(417, "an expectation other than 100-continue"));
        }
        Ok(self.expect_continue && version >= Version::HTTP_11)
    }
}

/// Takes the value of a field that there may be once.
fn once<'b>(
    place: &mut Option<&'b [u8]>,
    value: &'b [u8],
    name: &'static str,
) -> Result<(), Reject> {
    if place.replace(value).is_some() {
        return Err(
            Reject::bad("a field that there may be once only came twice").with(name.as_bytes())
        );
    }
    Ok(())
}

/// Checks that the transfer coding is `chunked` alone. What is no list of tokens is refused with 400, so is `chunked`
/// anywhere but once at the end; a coding that is not implemented here with 501 (RFC 9112 6.1).
fn check_codings(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|octet| *octet == b',').map(trim);
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

/// Whether it is a single coding that is known, but cannot end a message (RFC 9112 6.3 asks for 400 then).
fn is_registered(coding: &[u8]) -> bool {
    ["gzip", "x-gzip", "compress", "x-compress", "deflate", "identity"]
        .iter()
        .any(|known| coding.eq_ignore_ascii_case(known.as_bytes()))
}

/// Where a slice of the buffer begins in it.
fn offset(buf: &[u8], part: &str) -> usize {
    (part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize)
}

/// How many fields are parsed without an allocation: more than browsers send.
const SLOTS: usize = 32;
/// The largest Content-Length that is taken: file offsets and sums of lengths stay within 63 bits.
const LENGTH_MAX: u64 = i64::MAX as u64;
