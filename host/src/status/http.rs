//! The little HTTP that the status process understands: a GET or HEAD of a path without a body, one a
//! connection. Whatever else comes is answered with the status that says so.

use std::fmt::Write as _;

/// A request, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The head is not complete yet.
    Incomplete,
    /// A request for a path, without its query.
    Request {
        path: String,
        /// Whether the answer has no body (HEAD).
        head_only: bool,
    },
    /// Something else, and the status that it is answered with.
    Refused(u16),
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body }
    }

    /// An answer whose body is the reason.
    pub(super) fn status(status: u16) -> Self {
        Self { status, content_type: TEXT, body: format!("{}\n", reason(status)) }
    }

    /// The bytes that go out.
    pub(super) fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut head = String::new();
        // Writing to a string cannot fail. Nothing of the page comes from elsewhere, and no other
        // site may show it in a frame.
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

/// Reads a request's head from what has come so far.
pub(super) fn parse(input: &[u8]) -> Parsed {
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
    Parsed::Request { path, head_only }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// Longest head of a request.
pub(super) const HEAD_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Parsed {
        Parsed::Request { path: path.to_owned(), head_only: false }
    }

    #[test]
    fn requests_are_read_and_everything_else_is_refused() {
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), get("/metrics"));
        assert_eq!(parse(b"GET /?x=1 HTTP/1.0\r\n\r\n"), get("/"));
        assert_eq!(
            parse(b"HEAD / HTTP/1.1\r\n\r\n"),
            Parsed::Request { path: "/".to_owned(), head_only: true }
        );
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Incomplete);
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
    fn the_answer_to_head_has_the_length_and_no_body() {
        let answer = Answer::ok(TEXT, "hello".to_owned());
        let full = String::from_utf8(answer.bytes(false)).unwrap();
        let head = String::from_utf8(answer.bytes(true)).unwrap();
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
