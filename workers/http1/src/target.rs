//! The forms of a request target (RFC 9112 3.2), and the grammar of an authority (RFC 3986 3.2).

use super::reject::Reject;
use super::tokens::{is_host_char, is_host_name};

/// A host with an optional port. Its grammar permits only ASCII, so it converts to text without another check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Authority<'b>(&'b [u8]);

impl<'b> Authority<'b> {
    /// Returns the bytes, which are ASCII.
    pub fn as_bytes(self) -> &'b [u8] {
        self.0
    }

    fn text(self) -> &'b str {
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

/// A parsed request target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'b> {
    pub(super) path: &'b [u8],
    pub(super) query: &'b [u8],
    /// Authority of an absolute or authority form.
    pub(super) authority: Option<Authority<'b>>,
    /// Scheme of an absolute form: `http` or `https`.
    pub(super) scheme: Option<&'static str>,
}

impl<'b> Target<'b> {
    /// Distinguishes the four forms; `target` is visible ASCII.
    pub(super) fn parse(method: &str, target: &'b [u8]) -> Result<Self, Reject> {
        if method == "CONNECT" {
            return connect(target);
        }
        if target.first() == Some(&b'/') {
            let (path, query) = path_and_query(target);
            return Ok(Self { path, query, authority: None, scheme: None });
        }
        if target == b"*" {
            if method != "OPTIONS" {
                return Err(Reject::bad("the target is `*`, which only OPTIONS may ask for"));
            }
            return Ok(Self { path: target, query: b"", authority: None, scheme: None });
        }
        absolute(method, target)
    }
}

/// Checks `uri-host [":" port]`: the grammar of Host and of an authority without user information.
pub(super) fn check_authority(authority: &[u8]) -> Result<Authority<'_>, Reject> {
    if is_usual(authority) {
        return Ok(Authority(authority));
    }
    let malformed = || Reject::bad("the authority is not `host` or `host:port`").with(authority);
    let text = std::str::from_utf8(authority).map_err(|_| malformed())?;
    let (host, port) = split_port(text).ok_or_else(malformed)?;
    let host_valid = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(is_ip_literal),
        None => is_reg_name(host.as_bytes()),
    };
    let port_valid = port.is_none_or(|port| port.is_empty() || is_port(port));
    if host_valid && port_valid { Ok(Authority(authority)) } else { Err(malformed()) }
}

/// Fast path: a name or an IPv4 address, optionally with a port of up to five digits.
fn is_usual(authority: &[u8]) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match authority.split_at(authority.len() - digits) {
        ([host @ .., b':'], port) if digits < 5 || digits == 5 && port <= b"65535".as_slice() => {
            is_host_name(host)
        }
        _ => is_host_name(authority),
    }
}

/// authority-form: both host and port (RFC 9112 3.2.3, RFC 9110 9.3.6).
fn connect(target: &[u8]) -> Result<Target<'_>, Reject> {
    let authority = check_authority(target)?;
    let named = |(host, port): (&str, Option<&str>)| !host.is_empty() && port.is_some_and(is_port);
    if !split_port(authority.text()).is_some_and(named) {
        return Err(Reject::bad("CONNECT needs a host and a port").with(target));
    }
    Ok(Target { path: b"", query: b"", authority: Some(authority), scheme: None })
}

/// absolute-form: `http://authority/path?query` (RFC 9112 3.2.2).
fn absolute<'b>(method: &str, target: &'b [u8]) -> Result<Target<'b>, Reject> {
    let Some(colon) = memchr::memchr(b':', target).filter(|at| target[*at..].starts_with(b"://"))
    else {
        return Err(
            Reject::bad("the target is in none of the forms that the method may have").with(target)
        );
    };
    let rest = &target[colon + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = check_authority(&rest[..end])?;
    let scheme = match &target[..colon] {
        name if name.eq_ignore_ascii_case(b"http") => "http",
        name if name.eq_ignore_ascii_case(b"https") => "https",
        name if is_scheme(name) => {
            return Err(Reject::new(421, "the target's scheme is not served here").with(target));
        }
        _ => return Err(Reject::bad("the target's scheme is malformed").with(target)),
    };
    if split_port(authority.text()).is_none_or(|(host, _)| host.is_empty()) {
        return Err(Reject::bad("the target names no host").with(target));
    }
    let (path, query) = path_and_query(&rest[end..]);
    let path: &[u8] = match path {
        // RFC 9112 3.2.4: the last proxy converts an OPTIONS for a whole server to `*`.
        b"" if method == "OPTIONS" && query.is_empty() => b"*",
        b"" => b"/",
        path => path,
    };
    Ok(Target { path, query, authority: Some(authority), scheme: Some(scheme) })
}

/// Splits at the first `?`. A fragment after `#` is dropped: it is not meant for servers (RFC 3986 3.5), but some
/// clients send it.
fn path_and_query(target: &[u8]) -> (&[u8], &[u8]) {
    let target = memchr::memchr(b'#', target).map_or(target, |fragment| &target[..fragment]);
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

/// Returns the host, in brackets if it is an IP literal, and the port if there is a colon.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let after_host = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(after_host);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_scheme(name: &[u8]) -> bool {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(valid)
}

/// `*( unreserved / pct-encoded / sub-delims )` (RFC 3986 3.2.2).
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_host_char(*byte) => rest,
            _ => return false,
        }
    }
}

/// Returns whether this is valid between the brackets of an `IP-literal`: an IPv6 address, or an address of a
/// future version.
fn is_ip_literal(literal: &str) -> bool {
    if literal.parse::<std::net::Ipv6Addr>().is_ok() {
        return true;
    }
    let Some(future) = literal.strip_prefix(['v', 'V']) else { return false };
    future.split_once('.').is_some_and(|(version, address)| {
        let valid = |byte: u8| is_host_char(byte) || byte == b':';
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(valid)
    })
}
