//! Response heads and framing: validates the application's headers and adds the server's.
//!
//! No application header can break the framing: a response cannot be split by CR or LF, has one length, and has
//! no body where none is allowed (RFC 9110 5.5, 6.4.1; RFC 9112 6.3).

use worker_api::{Header, Version};

pub use super::reason::reason_phrase;
use super::style::ResponseStyle;
use super::tokens::{decimal, is_token, is_value, trim};

/// Properties of the request and the server that a response depends on.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, all combinations of which occur"
)]
pub struct ResponseContext<'a> {
    /// Version of the request.
    pub version: Version,
    /// Whether the request is a HEAD.
    pub head_method: bool,
    /// Whether the request is a CONNECT.
    pub connect: bool,
    /// Whether the request asks for an upgrade ([`super::ConnectionOptions::upgrade`]).
    pub upgrade: bool,
    /// Whether the class and the client would reuse the connection after this response.
    pub keep_alive: bool,
    /// Value of the Server header; `None` omits it.
    pub server: Option<&'a str>,
    /// Value of the Date header ([`super::date::DateCache`]).
    pub date: &'a [u8; 29],
    /// Response style of the class.
    pub style: ResponseStyle,
}

impl<'a> ResponseContext<'a> {
    /// Context of the response to a request rejected before its head was understood: the connection is closed
    /// after it.
    pub const fn refusal(server: Option<&'a str>, date: &'a [u8; 29]) -> Self {
        Self {
            version: Version::HTTP_11,
            head_method: false,
            connect: false,
            upgrade: false,
            keep_alive: false,
            server,
            date,
            style: ResponseStyle::GUNICORN,
        }
    }
}

/// How the body of a response is sent, as announced by its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyPlan {
    /// Framing of the body.
    pub kind: BodyKind,
    /// Whether the connection is kept open after the response, as announced.
    pub keep_alive: bool,
    /// Whether the connection switches protocols after the head (101, or 2xx to a CONNECT).
    pub upgrade: bool,
    /// Whether a hop-by-hop header of the application was dropped; see [`left_out`].
    pub left_out: bool,
    /// Where in the encoded head the Connection header is, or would be.
    connection_at: usize,
}

impl BodyPlan {
    /// What a connection without a response has.
    pub const NONE: Self = Self {
        kind: BodyKind::UntilClose,
        keep_alive: false,
        upgrade: false,
        left_out: false,
        connection_at: 0,
    };

    /// Changes a head that [`encode_head`] made, and that has not been sent, to announce that the connection closes
    /// after the response.
    #[cold]
    pub fn announce_close(&mut self, head: &mut Vec<u8>) {
        if !std::mem::take(&mut self.keep_alive) {
            return;
        }
        let at = self.connection_at;
        if head.get(at..).is_some_and(|rest| rest.starts_with(CONNECTION_KEEP_ALIVE)) {
            let value = at + CONNECTION_KEEP_ALIVE.len() - KEEP_ALIVE.len();
            head.splice(value..value + KEEP_ALIVE.len(), CLOSE.iter().copied());
        } else {
            // HTTP/1.1 keeps a connection alive without a word, and some classes leave the header out then.
            head.splice(at..at, b"Connection: close\r\n".iter().copied());
        }
    }
}

/// Framing of a response body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// No body (HEAD, 204, 205, 304): what the application writes is dropped.
    None {
        /// Whether to warn if the application writes a body. Not for HEAD, which applications answer like
        /// GET.
        warn_if_body: bool,
    },
    /// This number of bytes: no more may be sent; after fewer, the connection must be closed.
    Length(u64),
    /// Chunked: [`chunk_head`], data, [`CHUNK_END`]; then [`LAST_CHUNK`] or [`encode_trailers`].
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// A response head that an application must not send.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    /// A final response has a status from 200 to 999, or 101 if the request asked for an upgrade.
    #[error("{}", status_fault(*.0))]
    Status(u16),
    /// The reason phrase contains a control character.
    #[error("the reason phrase has a control character")]
    Reason,
    /// A header name is not a token.
    #[error("the field name {0:?} is no token")]
    Name(String),
    /// The value of this header contains a control character. The value is not shown because it may be a
    /// secret.
    #[error("the value of {0} has a control character")]
    Value(String),
    /// Content-Length is not a number or occurs twice.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// A field that must not be a trailer.
    #[error("{0} may not be a trailer field")]
    Trailer(String),
}

/// Appends the head of a response to `out`. Validates everything first: on an error nothing is appended.
///
/// Hop-by-hop headers of the application are dropped, as in gunicorn, because the connection belongs to the
/// server. `Connection: close` is obeyed, and `Upgrade` is kept in a 101 and a 426. An empty `reason` selects the
/// standard phrase. A Date or Server header of the application replaces the server's.
pub fn encode_head(
    out: &mut Vec<u8>,
    ctx: &ResponseContext<'_>,
    status: u16,
    reason: &str,
    headers: &[Header<'_>],
) -> Result<BodyPlan, HeaderFault> {
    let switches = status == 101 && ctx.upgrade;
    if !switches && !(200..=999).contains(&status) {
        return Err(HeaderFault::Status(status));
    }
    if !is_value(reason.as_bytes()) {
        return Err(HeaderFault::Reason);
    }
    let said = AppHeaders::collect(headers, status)?;
    let mut plan = plan(ctx, status, &said);

    out.reserve(HEAD_USUAL);
    let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
    push_status_line(out, status, reason);
    if let Some(server) = ctx.server.filter(|_| !said.server) {
        push_field(out, b"Server", server.as_bytes());
    }
    if !said.date {
        push_field(out, b"Date", ctx.date);
    }
    plan.connection_at = out.len();
    let option = connection(&plan, status, &said);
    let goes_without_saying = option == KEEP_ALIVE && ctx.version >= Version::HTTP_11;
    if ctx.style.says_keep_alive || !goes_without_saying {
        push_field(out, b"Connection", option);
    }
    for field in headers {
        if !said.sifted || KnownHeader::of(field.name.as_bytes()).is_kept(status) {
            push_field(out, field.name.as_bytes(), trim(field.value.as_slice()));
        }
    }
    match plan.kind {
        BodyKind::Chunked => push_field(out, b"Transfer-Encoding", b"chunked"),
        BodyKind::None { .. } if status == 205 => push_field(out, b"Content-Length", b"0"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(plan)
}

/// Returns the name of the first hop-by-hop header that [`encode_head`] drops from a response with this status
/// (RFC 9110 7.6.1). `Connection` counts only if it has an option without effect.
pub fn left_out<'a>(headers: &'a [Header<'_>], status: u16) -> Option<&'a str> {
    let field = headers.iter().find(|field| {
        let own = KnownHeader::of(field.name.as_bytes());
        own.is_left_out(trim(field.value.as_slice()), status)
    })?;
    Some(field.name.as_str())
}

/// Appends an informational response (100, 102, 103 …) to `out`. Appends nothing and returns false for an
/// HTTP/1.0 client (RFC 9110 15.2).
pub fn encode_informational(
    out: &mut Vec<u8>,
    version: Version,
    status: u16,
    headers: &[Header<'_>],
) -> Result<bool, HeaderFault> {
    if !(100..=199).contains(&status) || status == 101 {
        return Err(HeaderFault::Status(status));
    }
    AppHeaders::collect(headers, status)?;
    if version < Version::HTTP_11 {
        return Ok(false);
    }
    push_status_line(out, status, reason_phrase(status));
    for field in headers {
        if KnownHeader::of(field.name.as_bytes()).is_kept(status) {
            push_field(out, field.name.as_bytes(), trim(field.value.as_slice()));
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(true)
}

/// Appends the end of a chunked body with trailer fields to `out`: the last chunk, the fields, the empty line.
pub fn encode_trailers(out: &mut Vec<u8>, headers: &[Header<'_>]) -> Result<(), HeaderFault> {
    for field in headers {
        check_field(field)?;
        if TRAILERS_REFUSED.iter().any(|name| field.is(name)) {
            return Err(HeaderFault::Trailer(field.name.to_string()));
        }
    }
    out.extend_from_slice(b"0\r\n");
    for field in headers {
        push_field(out, field.name.as_bytes(), trim(field.value.as_slice()));
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The line that starts a chunk, on the stack: for a gathered write of line, data and [`CHUNK_END`].
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    begin: usize,
}

impl ChunkHead {
    /// Returns the bytes of the line.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// Returns the line that starts a chunk of `len` bytes. Do not write empty chunks: they would end the body.
pub fn chunk_head(len: usize) -> ChunkHead {
    debug_assert!(len > 0, "a chunk without data is the last one");
    let mut bytes = *b"0000000000000000\r\n";
    let mut begin = 16;
    let mut rest = len;
    while rest > 0 {
        begin -= 1;
        bytes[begin] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    ChunkHead { bytes, begin }
}

/// Follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the application's headers say about matters of the server.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, all combinations of which occur"
)]
struct AppHeaders {
    length: Option<u64>,
    close: bool,
    date: bool,
    server: bool,
    upgrade: bool,
    /// Whether a header is dropped.
    sifted: bool,
    /// Whether a dropped header is a hop-by-hop header without effect.
    left_out: bool,
}

impl AppHeaders {
    fn collect(headers: &[Header<'_>], status: u16) -> Result<Self, HeaderFault> {
        let mut said = Self::default();
        for field in headers {
            check_field(field)?;
            let value = trim(field.value.as_slice());
            let own = KnownHeader::of(field.name.as_bytes());
            if !own.is_kept(status) {
                said.sifted = true;
                said.left_out |= own.is_left_out(value, status);
            }
            match own {
                KnownHeader::ContentLength => {
                    let length = decimal(value).filter(|length| *length < u64::MAX);
                    if length.is_none() || said.length.is_some() {
                        return Err(HeaderFault::ContentLength);
                    }
                    said.length = length;
                }
                KnownHeader::Connection => said.close |= has_option(value, b"close"),
                KnownHeader::Date => said.date = true,
                KnownHeader::Server => said.server = true,
                KnownHeader::Upgrade => said.upgrade = KnownHeader::Upgrade.is_kept(status),
                KnownHeader::HopByHop | KnownHeader::Other => {}
            }
        }
        Ok(said)
    }
}

/// Response headers that the server interprets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KnownHeader {
    Connection,
    ContentLength,
    Date,
    HopByHop,
    Server,
    Upgrade,
    Other,
}

impl KnownHeader {
    fn of(name: &[u8]) -> Self {
        // Most applications write names like the RFCs.
        let is = |known: &[u8]| name == known || name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"TE") => Self::HopByHop,
            4 if is(b"Date") => Self::Date,
            6 if is(b"Server") => Self::Server,
            7 if is(b"Upgrade") => Self::Upgrade,
            10 if is(b"Connection") => Self::Connection,
            10 if is(b"Keep-Alive") => Self::HopByHop,
            14 if is(b"Content-Length") => Self::ContentLength,
            16 if is(b"Proxy-Connection") => Self::HopByHop,
            17 if is(b"Transfer-Encoding") => Self::HopByHop,
            _ => Self::Other,
        }
    }

    /// Returns whether a header of the application is sent with a response of this status (RFC 9110 7.6.1,
    /// 8.6).
    fn is_kept(self, status: u16) -> bool {
        match self {
            Self::Connection | Self::HopByHop => false,
            Self::ContentLength => status >= 200 && status != 204 && status != 205,
            Self::Upgrade => status == 101 || status == 426,
            Self::Date | Self::Server | Self::Other => true,
        }
    }

    /// Returns whether a dropped header also has no effect.
    #[cold]
    fn is_left_out(self, value: &[u8], status: u16) -> bool {
        match self {
            Self::HopByHop => true,
            Self::Upgrade => !self.is_kept(status),
            Self::Connection => value.split(|byte| *byte == b',').map(trim).any(|option| {
                let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
                !(is(b"close")
                    || is(b"keep-alive")
                    || is(b"upgrade") && Self::Upgrade.is_kept(status))
            }),
            _ => false,
        }
    }
}

fn status_fault(status: u16) -> String {
    if status == 101 {
        return "101 Switching Protocols, and the request did not ask for an upgrade".to_owned();
    }
    format!("the status {status} cannot begin a response: 200 to 999 can")
}

/// Determines the framing and whether the connection is kept open (RFC 9112 6.3, 9.3).
fn plan(ctx: &ResponseContext<'_>, status: u16, said: &AppHeaders) -> BodyPlan {
    let upgrade = status == 101 || (ctx.connect && (200..300).contains(&status));
    let kind = if upgrade {
        BodyKind::UntilClose
    } else if matches!(status, 204 | 205 | 304) {
        BodyKind::None { warn_if_body: !ctx.head_method }
    } else if ctx.head_method {
        BodyKind::None { warn_if_body: false }
    } else if let Some(length) = said.length {
        BodyKind::Length(length)
    } else if ctx.version >= Version::HTTP_11 {
        BodyKind::Chunked
    } else {
        BodyKind::UntilClose
    };
    let keep_alive = ctx.keep_alive && !said.close && !ctx.connect && kind != BodyKind::UntilClose;
    BodyPlan { kind, keep_alive, upgrade, left_out: said.left_out, connection_at: 0 }
}

/// Returns the value of Connection. Usually it is always sent, as by gunicorn: HTTP/1.0 clients need it.
fn connection(plan: &BodyPlan, status: u16, said: &AppHeaders) -> &'static [u8] {
    match (status, plan.keep_alive) {
        (101, _) => b"upgrade",
        (426, true) if said.upgrade => b"keep-alive, upgrade",
        (426, false) if said.upgrade => b"close, upgrade",
        (_, true) => KEEP_ALIVE,
        (_, false) => CLOSE,
    }
}

fn check_field(field: &Header<'_>) -> Result<(), HeaderFault> {
    if !is_token(field.name.as_bytes()) {
        return Err(HeaderFault::Name(field.name.to_string()));
    }
    if !is_value(field.value.as_slice()) {
        return Err(HeaderFault::Value(field.name.to_string()));
    }
    Ok(())
}

fn has_option(value: &[u8], option: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| trim(part).eq_ignore_ascii_case(option))
}

/// Appends the status line. The status has three digits; this was checked.
fn push_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    let digit = |of: u16| b'0' + (of % 10) as u8;
    let digits = [digit(status / 100), digit(status / 10), digit(status), b' '];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&digits);
    if reason.is_ascii() {
        out.extend_from_slice(reason.as_bytes());
    } else {
        // A reason phrase is bytes (RFC 9112 4). As in PEP 3333, each character of an application's text
        // stands for one byte. A character beyond Latin-1 cannot come from a WSGI application.
        out.extend(reason.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')));
    }
    out.extend_from_slice(b"\r\n");
}

#[expect(
    clippy::inline_always,
    reason = "a name and the little around it that are known here cost a store each, and no call"
)]
#[inline(always)]
fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The connection options of a response without an upgrade, and the beginning of the header where it keeps the connection.
const KEEP_ALIVE: &[u8] = b"keep-alive";
const CLOSE: &[u8] = b"close";
const CONNECTION_KEEP_ALIVE: &[u8] = b"Connection: keep-alive";

/// Fields that frame, route or authenticate a message: clients must not find them after it (RFC 9110 6.5.1).
const TRAILERS_REFUSED: [&str; 14] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "host",
    "keep-alive",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Capacity for most heads with a small body: growing step by step costs more than allocating.
const HEAD_USUAL: usize = 512;

#[cfg(test)]
mod tests;
