//! The head of a request: what it means, or how it is refused.

use std::mem::MaybeUninit;

use httparse::Status;
use worker_api::{Header, Version};

use super::fields::{Facts, Message, offset};
use super::policy::{LEADING_LINES_MAX, Policy};
use super::reject::Reject;
use super::request_line::RequestLine;
use super::scan::{HeadScan, Scan};
use super::target::{Authority, Target};

/// A request's head; its fields are in the vector that [`parse_head`] filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head<'b> {
    /// The octets of the head, with empty lines before it.
    pub len: usize,
    /// The method, a token.
    pub method: &'b str,
    /// The target as it was sent.
    pub target: &'b [u8],
    /// The path, percent-encoded as it was sent; `*` for `OPTIONS *`; empty for CONNECT.
    pub path: &'b [u8],
    /// What follows the first `?` of the target.
    pub query: &'b [u8],
    /// The authority: of the target where it is absolute (RFC 9112 3.2.2), else of Host; empty where there is none.
    pub authority: Authority<'b>,
    /// The version: 1.0 or 1.1; a higher minor version is treated as 1.1.
    pub version: Version,
    /// Where the body is.
    pub framing: Framing,
    /// What the Connection fields ask for.
    pub connection: ConnectionOptions,
    /// Whether the client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// The scheme that an absolute target names: `http` or `https`; see [`super::forwarded::check_scheme`].
    pub absolute_scheme: Option<&'b str>,
}

impl Head<'_> {
    /// Whether the connection may go on after this request, as far as the client is concerned (RFC 9112 9.3).
    pub fn persistent(&self) -> bool {
        if self.connection.close || self.method == "CONNECT" {
            return false;
        }
        self.version >= Version::HTTP_11 || self.connection.keep_alive
    }
}

/// Where the body of a request is (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// So many octets follow the head.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// What the Connection fields of a request ask for (RFC 9110 7.6.1), over all of its lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionOptions {
    /// `close`, or something malformed: the connection ends after the answer.
    pub close: bool,
    /// `keep-alive`: what HTTP/1.0 clients say.
    pub keep_alive: bool,
    /// `upgrade` with an Upgrade field, in HTTP/1.1.
    pub upgrade: bool,
}

/// Parses a head at the beginning of `buf`; its fields replace what is in `headers`. Nothing where the head is not
/// whole yet: use [`HeadScan`] to learn that without parsing again and again.
pub fn parse_head<'b>(
    buf: &'b [u8],
    policy: &Policy,
    headers: &mut Vec<Header<'b>>,
) -> Result<Option<Head<'b>>, Reject> {
    let start = skip_empty_lines(buf);
    let mut slots = [const { MaybeUninit::uninit() }; SLOTS];
    let mut request = httparse::Request::new(&mut []);
    let mut facts = Facts::default();
    // Spelled out for its speed: a head is built once, where it is returned.
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

/// Parses a head that the quick way did not take: because it is not whole, is wrong, or is unusual. The first line
/// that breaks a rule is what is wrong, else what the lines mean together; so the refusal does not depend on how much of
/// the head came at once.
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
    // Where that fails, the scan took lines as folded, and `normalize` was to unfold them.
    let Ok(Status::Complete((len, fields))) = parsed else { return Err(malformed()) };
    let end = fields_begin + len;
    let mut facts = Facts::default();
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

/// How many octets of empty lines precede the request line (RFC 9112 2.2).
fn skip_empty_lines(buf: &[u8]) -> usize {
    let mut at = 0;
    while at < LEADING_LINES_MAX * 2 && buf[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// Rewrites a whole head in place as the policy asks: folded lines become one, with spaces for the line ends
/// (RFC 9112 5.2), and the method upper case. Its length stays. To be called once [`HeadScan`] says that the head is
/// complete, where [`Policy::rewrites`] says so, before [`parse_head`].
pub fn normalize(buf: &mut [u8], policy: &Policy) {
    let start = skip_empty_lines(buf);
    if policy.casefold_http_method && policy.permit_unconventional_http_method {
        let method = buf[start..].split_mut(|octet| *octet == b' ').next();
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
    // A fold of the request line is no fold of a field: the scan has refused it.
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

/// How many fields the quick way takes: the default of `limit_request_fields`.
const SLOTS: usize = 100;

#[cfg(test)]
mod tests;
