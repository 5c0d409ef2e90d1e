//! The head of a request: its meaning, or its rejection.

use std::mem::MaybeUninit;

use httparse::Status;
use worker_api::{Header, Version};

use super::fields::{ConnectionOptions, Framing, FramingHeaders, Message, offset};
use super::policy::{LEADING_LINES_MAX, Policy};
use super::reject::Reject;
use super::request_line::RequestLine;
use super::scan::{HeadScan, Scan};
use super::target::{Authority, Target};

/// Head of a request. Its headers are in the vector that [`parse_head`] filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head<'b> {
    /// Length of the head in bytes, including empty lines before it.
    pub len: usize,
    /// Method, a token.
    pub method: &'b str,
    /// Target as sent.
    pub target: &'b [u8],
    /// Path, percent-encoded as sent; `*` for `OPTIONS *`; empty for CONNECT.
    pub path: &'b [u8],
    /// Part of the target after the first `?`.
    pub query: &'b [u8],
    /// Authority: of an absolute target (RFC 9112 3.2.2), otherwise of the Host header; empty if there is
    /// none.
    pub authority: Authority<'b>,
    /// Version: 1.0 or 1.1; a higher minor version is treated as 1.1.
    pub version: Version,
    /// Framing of the body.
    pub framing: Framing,
    /// Options of the Connection headers.
    pub connection: ConnectionOptions,
    /// Whether the client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// Scheme of an absolute target: `http` or `https`; see [`super::forwarded::check_scheme`].
    pub absolute_scheme: Option<&'b str>,
}

impl Head<'_> {
    /// Returns whether the client permits the connection to be reused after this request (RFC 9112 9.3).
    pub fn persistent(&self) -> bool {
        if self.connection.close || self.method == "CONNECT" {
            return false;
        }
        self.version >= Version::HTTP_11 || self.connection.keep_alive
    }
}

/// Parses a head at the start of `buf`; its headers replace the contents of `headers`. Returns `None` if the head
/// is incomplete; use [`HeadScan`] to detect this without parsing repeatedly.
pub fn parse_head<'b>(
    buf: &'b [u8],
    policy: &Policy,
    headers: &mut Vec<Header<'b>>,
) -> Result<Option<Head<'b>>, Reject> {
    let start = skip_empty_lines(buf);
    let mut slots = [const { MaybeUninit::uninit() }; SLOTS];
    let mut request = httparse::Request::new(&mut []);
    let mut facts = FramingHeaders::default();
    // Written out for speed: a head is constructed once, where it is returned.
    if let Ok(Status::Complete(len)) = request.parse_with_uninit_headers(&buf[start..], &mut slots)
        && let Some(line) = RequestLine::of(&request, policy)
        && offset(buf, line.method) == start
        && facts.collect(buf, start..start + len, request.headers, policy, headers).is_ok()
        && let Ok(target) = Target::parse(line.method, line.target)
        && let Ok(message) = facts.message(line.version, policy)
    {
        return Ok(Some(head(start + len, &line, &target, &message)));
    }
    parse_carefully(buf, start, policy, headers)
}

/// Parses a head that the fast path did not accept because it is incomplete, invalid or unusual. The first line
/// that violates a rule is reported, otherwise what is wrong with the lines together, so that the rejection does
/// not depend on how much of the head arrived at once.
#[cold]
fn parse_carefully<'b>(
    buf: &'b [u8],
    start: usize,
    policy: &Policy,
    headers: &mut Vec<Header<'b>>,
) -> Result<Option<Head<'b>>, Reject> {
    let mut scan = HeadScan::new();
    if scan.scan_lines(buf, policy)? == Scan::Incomplete {
        return Ok(None);
    }
    let malformed = || Reject::bad("the head is malformed");
    let line_len = memchr::memchr(b'\r', &buf[start..]).ok_or_else(malformed)?;
    let line = RequestLine::parse(&buf[start..start + line_len], policy)?;
    let fields_begin = start + line_len + 2;
    let mut slots = vec![httparse::EMPTY_HEADER; scan.fields()];
    let parsed = httparse::parse_headers(&buf[fields_begin..], &mut slots);
    // If that fails, the scan accepted folded lines that `normalize` should have unfolded.
    let Ok(Status::Complete((len, fields))) = parsed else { return Err(malformed()) };
    let end = fields_begin + len;
    let mut facts = FramingHeaders::default();
    facts.collect(buf, start..end, fields, policy, headers)?;
    let target = Target::parse(line.method, line.target)?;
    let message = facts.message(line.version, policy)?;
    Ok(Some(head(end, &line, &target, &message)))
}

#[inline]
fn head<'b>(
    len: usize,
    line: &RequestLine<'b>,
    target: &Target<'b>,
    message: &Message<'b>,
) -> Head<'b> {
    Head {
        len,
        method: line.method,
        target: line.target,
        path: target.path,
        query: target.query,
        authority: target.authority.unwrap_or(message.host),
        version: line.version,
        framing: message.framing,
        connection: message.connection,
        expect_continue: message.expect_continue,
        absolute_scheme: target.scheme,
    }
}

/// Returns the length of the empty lines before the request line (RFC 9112 2.2).
fn skip_empty_lines(buf: &[u8]) -> usize {
    let mut at = 0;
    while at < LEADING_LINES_MAX * 2 && buf[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// Rewrites a complete head in place according to the policy: unfolds folded lines, replacing line ends by spaces
/// (RFC 9112 5.2), and converts the method to upper case. The length does not change. Call it once [`HeadScan`]
/// reports that the head is complete, if [`Policy::rewrites`], before [`parse_head`].
pub fn normalize(buf: &mut [u8], policy: &Policy) {
    let start = skip_empty_lines(buf);
    if policy.casefold_http_method && policy.permit_unconventional_http_method {
        let method = buf[start..].split_mut(|byte| *byte == b' ').next();
        if let Some(method) = method {
            method.make_ascii_uppercase();
        }
    }
    if !policy.permit_obsolete_folding {
        return;
    }
    let Some(mut at) = memchr::memchr(b'\n', &buf[start..]).map(|len| start + len + 1) else {
        return;
    };
    // A fold of the request line is not a folded header: the scan has rejected it.
    while let Some(len) = memchr::memchr(b'\n', &buf[at..]) {
        let end = at + len;
        if len == 1 && buf[at] == b'\r' {
            return;
        }
        if len > 0 && matches!(buf.get(end + 1), Some(b' ' | b'\t')) {
            buf[end - 1] = b' ';
            buf[end] = b' ';
        }
        at = end + 1;
    }
}

/// Number of headers that the fast path accepts: the default of `limit_request_fields`.
const SLOTS: usize = 100;

#[cfg(test)]
mod tests;
