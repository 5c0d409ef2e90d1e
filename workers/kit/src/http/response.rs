//! The head of a response, and its framing: what the application said is checked, what is the server's is added.
//!
//! Nothing that an application says can break the framing: a response splits at no CR or LF, has one length, and no
//! body where it may have none (RFC 9110 5.5, 6.4.1; RFC 9112 6.3).

use worker_api::{Header, Version};

use super::manners::Manners;
pub use super::reason::reason_phrase;
use super::tokens::{decimal, is_token, is_value, trim};

/// What is known of the request and the server when a response begins.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, all combinations of which occur"
)]
pub struct ResponseContext<'a> {
    /// The version that the client spoke.
    pub version: Version,
    /// Whether the request was a HEAD.
    pub head_method: bool,
    /// Whether the request was a CONNECT.
    pub connect: bool,
    /// Whether the request asked for an upgrade ([`super::ConnectionOptions::upgrade`]).
    pub upgrade: bool,
    /// Whether class and client would go on with the connection after this response.
    pub keep_alive: bool,
    /// The value of the Server field; nothing to leave it out.
    pub server: Option<&'a str>,
    /// The value of the Date field ([`super::date::DateCache`]).
    pub date: &'a [u8; 29],
    /// The words of the class.
    pub manners: Manners,
}

impl<'a> ResponseContext<'a> {
    /// For the answer to a request that was refused before its head was understood: the connection closes after it.
    pub const fn refusal(server: Option<&'a str>, date: &'a [u8; 29]) -> Self {
        Self {
            version: Version::HTTP_11,
            head_method: false,
            connect: false,
            upgrade: false,
            keep_alive: false,
            server,
            date,
            manners: Manners::GUNICORN,
        }
    }
}

/// How the body of a response goes over the wire, as its head announced it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyPlan {
    /// The framing.
    pub kind: BodyKind,
    /// Whether the connection may go on after the response: decided, and announced.
    pub keep_alive: bool,
    /// Whether the connection changes its protocol after the head (101, or 2xx to a CONNECT).
    pub upgrade: bool,
    /// Whether a hop-by-hop header of the application was left out: see [`left_out`].
    pub left_out: bool,
}

/// The framing of a response's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// There is none (HEAD, 204, 205, 304): what the application writes is left out.
    None {
        /// Whether to warn once when the application writes something all the same; not for HEAD, where applications
        /// answer as to a GET.
        warn_if_body: bool,
    },
    /// So many octets: more are cut off, less means that the connection has to be closed.
    Length(u64),
    /// In chunks: [`chunk_head`], data, [`CHUNK_END`]; then [`LAST_CHUNK`] or [`encode_trailers`].
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// What an application may not send.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    /// A final response has a status from 200 to 999, or 101 where the request asked for an upgrade.
    #[error("{}", status_fault(*.0))]
    Status(u16),
    /// The reason phrase has a control character.
    #[error("the reason phrase has a control character")]
    Reason,
    /// The name of a field is no token.
    #[error("the field name {0:?} is no token")]
    Name(String),
    /// The value of the field of this name has a control character. The value may be a secret: it is not shown.
    #[error("the value of {0} has a control character")]
    Value(String),
    /// Content-Length is no number, or is there twice.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// A field that may not be in a trailer.
    #[error("{0} may not be a trailer field")]
    Trailer(String),
}

/// Appends the head of a response to `out`, checked whole before: at a fault nothing is appended.
///
/// Hop-by-hop fields of the application are left out, as gunicorn does: the connection is the server's. What
/// `Connection: close` asks for is done, and `Upgrade` is kept in a 101 and a 426. An empty `reason` stands for the
/// usual one. A Date or Server field of the application's own takes the place of the server's.
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
    let said = Said::collect(headers, status)?;
    let plan = plan(ctx, status, &said);

    out.reserve(HEAD_USUAL);
    let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
    push_status_line(out, status, reason);
    if let Some(server) = ctx.server.filter(|_| !said.server) {
        push_field(out, b"Server", server.as_bytes());
    }
    if !said.date {
        push_field(out, b"Date", ctx.date);
    }
    let option = connection(&plan, status, &said);
    let goes_without_saying = option == b"keep-alive" && ctx.version >= Version::HTTP_11;
    if ctx.manners.says_keep_alive || !goes_without_saying {
        push_field(out, b"Connection", option);
    }
    for field in headers {
        if !said.sifted || Own::of(field.name.as_bytes()).is_kept(status) {
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

/// The name of the first hop-by-hop header that [`encode_head`] leaves out of a response with this status (RFC 9110,
/// section 7.6.1). `Connection` counts only with an option that has no effect here.
pub fn left_out<'a>(headers: &'a [Header<'_>], status: u16) -> Option<&'a str> {
    let field = headers.iter().find(|field| {
        let own = Own::of(field.name.as_bytes());
        own.is_left_out(trim(field.value.as_slice()), status)
    })?;
    Some(field.name.as_str())
}

/// Appends an informational response (100, 102, 103 …) to `out`. Leaves it out and answers false where the client is
/// too old for it (RFC 9110 15.2).
pub fn encode_informational(
    out: &mut Vec<u8>,
    version: Version,
    status: u16,
    headers: &[Header<'_>],
) -> Result<bool, HeaderFault> {
    if !(100..=199).contains(&status) || status == 101 {
        return Err(HeaderFault::Status(status));
    }
    Said::collect(headers, status)?;
    if version < Version::HTTP_11 {
        return Ok(false);
    }
    push_status_line(out, status, reason_phrase(status));
    for field in headers {
        if Own::of(field.name.as_bytes()).is_kept(status) {
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

/// The line that begins a chunk, on the stack: for a gathered write of line, data and [`CHUNK_END`].
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    octets: [u8; 18],
    begin: usize,
}

impl ChunkHead {
    /// The octets of the line.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[self.begin..]
    }
}

/// The line that begins a chunk of `len` octets. A chunk of none would end the body: do not write empty chunks.
pub fn chunk_head(len: usize) -> ChunkHead {
    debug_assert!(len > 0, "a chunk without data is the last one");
    let mut octets = *b"0000000000000000\r\n";
    let mut begin = 16;
    let mut rest = len;
    while rest > 0 {
        begin -= 1;
        octets[begin] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    ChunkHead { octets, begin }
}

/// What follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the fields of the application say about what is the server's.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, all combinations of which occur"
)]
struct Said {
    length: Option<u64>,
    close: bool,
    date: bool,
    server: bool,
    upgrade: bool,
    /// Whether one of the fields stays behind.
    sifted: bool,
    /// Whether one of those is a hop-by-hop header that has no effect.
    left_out: bool,
}

impl Said {
    fn collect(headers: &[Header<'_>], status: u16) -> Result<Self, HeaderFault> {
        let mut said = Self::default();
        for field in headers {
            check_field(field)?;
            let value = trim(field.value.as_slice());
            let own = Own::of(field.name.as_bytes());
            if !own.is_kept(status) {
                said.sifted = true;
                said.left_out |= own.is_left_out(value, status);
            }
            match own {
                Own::ContentLength => {
                    let length = decimal(value).filter(|length| *length < u64::MAX);
                    if length.is_none() || said.length.is_some() {
                        return Err(HeaderFault::ContentLength);
                    }
                    said.length = length;
                }
                Own::Connection => said.close |= has_option(value, b"close"),
                Own::Date => said.date = true,
                Own::Server => said.server = true,
                Own::Upgrade => said.upgrade = Own::Upgrade.is_kept(status),
                Own::HopByHop | Own::Other => {}
            }
        }
        Ok(said)
    }
}

/// The fields of a response that mean something to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Connection,
    ContentLength,
    Date,
    HopByHop,
    Server,
    Upgrade,
    Other,
}

impl Own {
    fn of(name: &[u8]) -> Self {
        // Most applications write names as the RFCs do.
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

    /// Whether a field of the application goes out with a response of that status (RFC 9110 7.6.1, 8.6).
    fn is_kept(self, status: u16) -> bool {
        match self {
            Self::Connection | Self::HopByHop => false,
            Self::ContentLength => status >= 200 && status != 204 && status != 205,
            Self::Upgrade => status == 101 || status == 426,
            Self::Date | Self::Server | Self::Other => true,
        }
    }

    /// Whether a header that is not kept has no effect either.
    #[cold]
    fn is_left_out(self, value: &[u8], status: u16) -> bool {
        match self {
            Self::HopByHop => true,
            Self::Upgrade => !self.is_kept(status),
            Self::Connection => value.split(|octet| *octet == b',').map(trim).any(|option| {
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

/// Decides the framing and what becomes of the connection (RFC 9112 6.3, 9.3).
fn plan(ctx: &ResponseContext<'_>, status: u16, said: &Said) -> BodyPlan {
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
    BodyPlan { kind, keep_alive, upgrade, left_out: said.left_out }
}

/// The value of Connection. As a rule it is always sent, as gunicorn does: HTTP/1.0 clients need it, others read it
/// gladly.
fn connection(plan: &BodyPlan, status: u16, said: &Said) -> &'static [u8] {
    match (status, plan.keep_alive) {
        (101, _) => b"upgrade",
        (426, true) if said.upgrade => b"keep-alive, upgrade",
        (426, false) if said.upgrade => b"close, upgrade",
        (_, true) => b"keep-alive",
        (_, false) => b"close",
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
    value.split(|octet| *octet == b',').any(|part| trim(part).eq_ignore_ascii_case(option))
}

/// A status has three digits, as was checked.
fn push_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    let digit = |of: u16| b'0' + (of % 10) as u8;
    let digits = [digit(status / 100), digit(status / 10), digit(status), b' '];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&digits);
    if reason.is_ascii() {
        out.extend_from_slice(reason.as_bytes());
    } else {
        // A reason phrase is bytes (RFC 9112 4). An application's text stands for them as in PEP 3333, a character
        // each; one that no byte stands for comes from no WSGI application.
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

/// Room for most heads, and a small body behind: growing step by step costs more than making it.
const HEAD_USUAL: usize = 512;

#[cfg(test)]
mod tests;
