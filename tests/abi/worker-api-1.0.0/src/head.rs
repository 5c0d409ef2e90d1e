//! Request heads and access records, borrowed from the connection's buffer.
//!
//! The worker class's HTTP layer has validated these values; nothing in this module parses.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RSlice, RStr};

/// One header of a request or response: a name and a value, both without line breaks and NUL.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name as sent. Compare it case-insensitively (RFC 9110 5.1).
    pub name: RStr<'a>,
    /// Value without surrounding white space. Often but not always ASCII (RFC 9110 5.5).
    pub value: RSlice<'a, u8>,
}

impl<'a> Header<'a> {
    /// Creates a header.
    pub fn new(name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { name: RStr::from_str(name), value: RSlice::from_slice(value.as_ref()) }
    }

    /// Returns whether the header has this name, ignoring case.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name.as_str().eq_ignore_ascii_case(name)
    }
}

impl<'a, V: AsRef<[u8]> + ?Sized> From<(&'a str, &'a V)> for Header<'a> {
    fn from((name, value): (&'a str, &'a V)) -> Self {
        Self::new(name, value)
    }
}

impl std::fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value.as_slice().escape_ascii())
    }
}

/// HTTP version, encoded as ten times the major number plus the minor number: 10, 11, 20.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version(pub u8);

impl Version {
    /// HTTP/1.0.
    pub const HTTP_10: Self = Self(10);
    /// HTTP/1.1.
    pub const HTTP_11: Self = Self(11);

    /// Returns the version as written in a request line: `HTTP/1.1`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            9 => "HTTP/0.9",
            10 => "HTTP/1.0",
            20 => "HTTP/2",
            30 => "HTTP/3",
            _ => "HTTP/1.1",
        }
    }
}

/// One end of a connection.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address<'a> {
    /// IP address as text without brackets, path of a unix socket, or empty if there is none.
    pub host: RStr<'a>,
    /// Port; 0 for a unix socket.
    pub port: u16,
}

/// TLS session of a connection.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsFacts<'a> {
    /// Protocol version, `TLSv1.3` for example.
    pub protocol: RStr<'a>,
    /// Cipher suite by its IANA name.
    pub cipher: RStr<'a>,
    /// Server name that the client requested (SNI); empty if it sent none.
    pub server_name: RStr<'a>,
    /// Verified client certificate in DER; empty if there is none.
    pub client_certificate: RSlice<'a, u8>,
}

/// Head of a request. Valid until the next call on the exchange.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method, a token: `GET`.
    pub method: RStr<'a>,
    /// Request target exactly as sent.
    pub target: RSlice<'a, u8>,
    /// Path of the target, percent-encoded as sent; `*` for `OPTIONS *`.
    pub path: RSlice<'a, u8>,
    /// Query of the target, without the `?`; empty if there is none.
    pub query: RSlice<'a, u8>,
    /// Authority of the request: from an absolute target (RFC 9112 3.2.2), otherwise from the Host header.
    pub authority: RStr<'a>,
    /// Version of the request.
    pub version: Version,
    /// Whether the peer is trusted to forward client information (`forwarded_allow_ips`).
    pub trusted_peer: bool,
    /// Whether the body is chunked, so that its length is unknown.
    pub chunked: bool,
    /// Announced length of the body; 0 if there is no body, `RNone` if it is unknown.
    pub content_length: ROption<u64>,
    /// `http` or `https`: of the connection, or as forwarded by a trusted proxy (`secure_scheme_headers`).
    pub scheme: RStr<'a>,
    /// Headers in the order received.
    pub headers: RSlice<'a, Header<'a>>,
    /// Address of the client; of the original client if a PROXY header gave one.
    pub peer: Address<'a>,
    /// Address of the server.
    pub local: Address<'a>,
    /// TLS session, `RNone` on a plain connection.
    pub tls: ROption<&'a TlsFacts<'a>>,
    /// Time at which the head was complete, on `CLOCK_MONOTONIC` in nanoseconds.
    pub received_ns: u64,
    /// Number of the request, unique within the worker.
    pub id: u64,
}

impl<'a> RequestHead<'a> {
    /// Iterates over all headers as names and values, in order. Suitable for building a map, such as the `http` crate's
    /// `HeaderMap`.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.as_slice().iter().map(|h| (h.name.as_str(), h.value.as_slice()))
    }

    /// Returns the value of the first header with this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.as_slice().iter().find(|h| h.is(name)).map(|h| h.value.as_slice())
    }

    /// Iterates over the values of all headers with this name, in order.
    pub fn header_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers.as_slice().iter().filter(move |h| h.is(name)).map(|h| h.value.as_slice())
    }

    /// Returns the path, percent-encoded as sent, if it is UTF-8; otherwise an empty string.
    pub fn path_str(&self) -> &'a str {
        std::str::from_utf8(self.path.as_slice()).unwrap_or_default()
    }

    /// Returns whether the request has a body.
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length != ROption::RSome(0)
    }

    /// Returns the value of the first query parameter with this name, percent-encoded as sent.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let query = std::str::from_utf8(self.query.as_slice()).ok()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}

/// Summary of a finished request, for the access log, the counters and the hooks.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// Request head; `RNone` if the request was rejected before its head was complete.
    pub head: ROption<&'a RequestHead<'a>>,
    /// Request line as received, truncated to a limit, if there is no head.
    pub request_line: RSlice<'a, u8>,
    /// Address of the client, if there is no head.
    pub peer: Address<'a>,
    /// Status sent; 0 if none was sent.
    pub status: u16,
    /// Number of body bytes sent, without framing.
    pub body_bytes: u64,
    /// Time from the complete head to the end of the response, in nanoseconds.
    pub duration_ns: u64,
    /// Response headers, if [`crate::Host::wants_response_headers`] is true.
    pub response_headers: RSlice<'a, Header<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case() {
        let headers =
            [Header::new("Accept", "a"), Header::new("X-Id", "1"), Header::new("x-id", "2")];
        let head = RequestHead { headers: RSlice::from_slice(&headers), ..sample() };
        assert_eq!(head.header("x-ID"), Some(&b"1"[..]));
        assert_eq!(head.header_all("X-Id").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.header("host"), None);
        let back: Vec<Header<'_>> = head.fields().map(Header::from).collect();
        assert_eq!(back, headers);
    }

    #[test]
    fn query_values_are_taken_by_name() {
        let head = RequestHead { query: RSlice::from_slice(b"ms=5&flag&to=a=b"), ..sample() };
        assert_eq!(head.query_value("ms"), Some("5"));
        assert_eq!(head.query_value("flag"), Some(""));
        assert_eq!(head.query_value("to"), Some("a=b"));
        assert_eq!(head.query_value("s"), None);
    }

    fn sample() -> RequestHead<'static> {
        let nowhere = Address { host: RStr::from_str(""), port: 0 };
        RequestHead {
            method: RStr::from_str("GET"),
            target: RSlice::from_slice(b"/"),
            path: RSlice::from_slice(b"/"),
            query: RSlice::EMPTY,
            authority: RStr::from_str("localhost"),
            version: Version::HTTP_11,
            trusted_peer: false,
            chunked: false,
            content_length: ROption::RSome(0),
            scheme: RStr::from_str("http"),
            headers: RSlice::EMPTY,
            peer: nowhere,
            local: nowhere,
            tls: ROption::RNone,
            received_ns: 0,
            id: 0,
        }
    }
}
