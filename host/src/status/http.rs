//! The minimal HTTP of the status process: a GET or HEAD of a path without a body, one per connection; and the line
//! that HAProxy sends for an agent check. Anything else gets an error status.

use std::fmt::Write as _;
use std::net::IpAddr;

/// A request, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The head is not complete yet.
    Incomplete,
    /// A request for a path, without its query.
    Request {
        path: String,
        /// Host without its port, if the request has one.
        host: Option<String>,
        /// Whether the response has no body (HEAD).
        head_only: bool,
    },
    /// The line `health`, of HAProxy's `agent-send`.
    AgentCheck,
    /// Anything else, with the status of the response.
    Refused(u16),
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Response {
    pub(super) fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body }
    }

    /// Creates a response whose body is the reason.
    pub(super) fn status(status: u16) -> Self {
        Self { status, content_type: TEXT, body: format!("{}\n", reason(status)) }
    }

    /// Creates a response for a load balancer that is to send nothing here.
    pub(super) fn unavailable(reason: &str) -> Self {
        Self { status: 503, content_type: TEXT, body: reason.to_owned() }
    }

    /// Returns the bytes to send.
    pub(super) fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut head = String::new();
        // Writing to a string cannot fail. The page loads nothing from elsewhere, and no other site may
        // embed it.
        let _ = write!(
            head,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; \
             style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'\r\n\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        let mut bytes = head.into_bytes();
        if !head_only {
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes
    }
}

/// Parses a request head from the bytes received so far.
pub(super) fn parse(input: &[u8]) -> Parsed {
    if input == AGENT_CHECK {
        return Parsed::AgentCheck;
    }
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if input.len() >= HEAD_MAX { Parsed::Refused(431) } else { Parsed::Incomplete };
    };
    let line = input[..end].split(|&byte| byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Parsed::Refused(400) };
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let &[method, target, version] = &words[..] else { return Parsed::Refused(400) };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !target.starts_with('/') {
        return Parsed::Refused(400);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Parsed::Refused(405),
    };
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut hosts = input[..end]
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let (name, value) = line.split_at(colon);
            name.eq_ignore_ascii_case(b"host").then(|| value[1..].trim_ascii())
        })
        .map(host_name);
    let host = match (hosts.next(), hosts.next()) {
        (Some(Some(host)), None) => Some(host),
        (None, _) => None,
        _ => return Parsed::Refused(400),
    };
    Parsed::Request { path, host, head_only }
}

/// Returns the value of `Host` without its port and without the brackets of an IPv6 address.
fn host_name(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let name = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text.split_once(':').map_or(text, |(name, _)| name),
    };
    Some(name.to_owned())
}

/// Returns whether a request for `host` is accepted at a listener bound to `bound`. A page of another site can
/// point its own name at this address (DNS rebinding) and could then read the response; it cannot do so with an
/// address, `localhost`, or the name that the settings bind.
pub(super) fn is_own_host(host: &str, bound: &[String]) -> bool {
    host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || bound.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// Not HTTP, so no browser can send it.
const AGENT_CHECK: &[u8] = b"health\n";
/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// Maximum length of a request head.
pub(super) const HEAD_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str, host: Option<&str>) -> Parsed {
        let host = host.map(str::to_owned);
        Parsed::Request { path: path.to_owned(), host, head_only: false }
    }

    #[test]
    fn only_addresses_localhost_and_the_bound_name_are_own_hosts() {
        let bound = ["metrics.internal".to_owned()];
        for (value, expected) in [
            ("127.0.0.1:9100", true),
            ("[::1]:9100", true),
            ("[::1]", true),
            ("LocalHost:1", true),
            ("metrics.internal:9100", true),
            ("evil.example:9100", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let request = format!("GET / HTTP/1.1\r\nHOST: {value}\r\n\r\n");
            let Parsed::Request { host: Some(host), .. } = parse(request.as_bytes()) else {
                panic!("{value} was refused");
            };
            assert_eq!(is_own_host(&host, &bound), expected, "{value}");
        }
        let two = parse(b"GET / HTTP/1.1\r\nHost: ::1\r\nHost: evil\r\n\r\n");
        assert_eq!(two, Parsed::Refused(400));
    }

    #[test]
    fn requests_are_read_and_everything_else_is_refused() {
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), get("/metrics", Some("x")));
        assert_eq!(parse(b"GET /?x=1 HTTP/1.0\r\n\r\n"), get("/", None));
        assert_eq!(
            parse(b"HEAD / HTTP/1.1\r\n\r\n"),
            Parsed::Request { path: "/".to_owned(), host: None, head_only: true }
        );
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Incomplete);
        assert_eq!(parse(b"health"), Parsed::Incomplete);
        assert_eq!(parse(b"health\n"), Parsed::AgentCheck);
        for (input, status) in [
            (&b"POST / HTTP/1.1\r\n\r\n"[..], 405),
            (b"GET / HTTP/2.0\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
            (b"\xff\r\n\r\n", 400),
            (&[b'x'; HEAD_MAX], 431),
        ] {
            assert_eq!(parse(input), Parsed::Refused(status), "{input:?}");
        }
    }

    #[test]
    fn the_response_to_head_has_the_length_and_no_body() {
        let response = Response::ok(TEXT, "hello".to_owned());
        let full = String::from_utf8(response.bytes(false)).unwrap();
        let head = String::from_utf8(response.bytes(true)).unwrap();
        assert!(full.starts_with("HTTP/1.1 200 OK\r\n") && full.ends_with("\r\n\r\nhello"));
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn no_input_is_too_much(input: Vec<u8>) {
            parse(&input);
        }
    }
}
