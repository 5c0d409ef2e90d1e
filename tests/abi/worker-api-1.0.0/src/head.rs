//! The head of a request as an application sees it: borrowed from the connection's buffer, nothing copied.
//!
//! What stands here has been checked by the worker class's HTTP layer; nothing in here parses.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RSlice, RStr};

/// One field of a request or response: a name and its value, neither with line ends nor NUL.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The field's name as it was sent: compare it without regard to case (RFC 9110 5.1).
    pub name: RStr<'a>,
    /// The field's value without the white space around it: bytes, often but not always ASCII (RFC 9110 5.5).
    pub value: RSlice<'a, u8>,
}

impl<'a> Header<'a> {
    /// A header of that name and value.
    pub fn new(name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { name: RStr::from_str(name), value: RSlice::from_slice(value.as_ref()) }
    }

    /// Whether the field has this name, whatever the case.
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

/// The version of HTTP that the client spoke, as ten times major plus minor: 10, 11, 20.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version(pub u8);

impl Version {
    /// HTTP/1.0.
    pub const HTTP_10: Self = Self(10);
    /// HTTP/1.1.
    pub const HTTP_11: Self = Self(11);

    /// The protocol's name as in a request line: `HTTP/1.1`.
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
    /// The IP address as text without brackets, the path of a unix socket, or empty where there is none.
    pub host: RStr<'a>,
    /// The port; 0 for a unix socket.
    pub port: u16,
}

/// What is known about the TLS session of a connection.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsFacts<'a> {
    /// The protocol, `TLSv1.3` for example.
    pub protocol: RStr<'a>,
    /// The cipher suite by its IANA name.
    pub cipher: RStr<'a>,
    /// The server name that the client asked for; empty where it sent none.
    pub server_name: RStr<'a>,
    /// The client's certificate, verified, in DER; empty where there is none.
    pub client_certificate: RSlice<'a, u8>,
}

/// The head of one request. Valid until the exchange is finished, and while nothing else is called on it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, a token: `GET`.
    pub method: RStr<'a>,
    /// The request target exactly as it was sent.
    pub target: RSlice<'a, u8>,
    /// The path of the target, percent-encoded as it was sent; `*` for `OPTIONS *`.
    pub path: RSlice<'a, u8>,
    /// What follows the first `?` of the target; empty where there is none.
    pub query: RSlice<'a, u8>,
    /// The authority that the client means: from the target where it is absolute (RFC 9112 3.2.2), else from Host.
    pub authority: RStr<'a>,
    /// The version that the client spoke.
    pub version: Version,
    /// Whether the peer is one whose word on the original client is taken (`forwarded_allow_ips`).
    pub trusted_peer: bool,
    /// Whether the body comes in chunks: it has an end, but no length that is known.
    pub chunked: bool,
    /// The length of the body where it is announced; 0 where there is no body.
    pub content_length: ROption<u64>,
    /// `http` or `https`: of the connection, or what a trusted proxy said (`secure_scheme_headers`).
    pub scheme: RStr<'a>,
    /// The fields in the order in which they came.
    pub headers: RSlice<'a, Header<'a>>,
    /// The client's end; the original client's where the PROXY protocol told it.
    pub peer: Address<'a>,
    /// The server's end.
    pub local: Address<'a>,
    /// The TLS session; nothing on a plain connection.
    pub tls: ROption<&'a TlsFacts<'a>>,
    /// When the head was complete, `CLOCK_MONOTONIC` in nanoseconds.
    pub received_ns: u64,
    /// A number that no other request of this worker has.
    pub id: u64,
}

impl<'a> RequestHead<'a> {
    /// All fields as names and values, in their order: for maps of the caller's own, and for the `http` crate's
    /// `HeaderMap`, which is made from such an iterator.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.as_slice().iter().map(|h| (h.name.as_str(), h.value.as_slice()))
    }

    /// The first field of that name, whatever the case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.as_slice().iter().find(|h| h.is(name)).map(|h| h.value.as_slice())
    }

    /// All fields of that name in their order.
    pub fn header_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers.as_slice().iter().filter(move |h| h.is(name)).map(|h| h.value.as_slice())
    }

    /// The path as text where it is UTF-8, percent-encoded as it came; empty otherwise.
    pub fn path_str(&self) -> &'a str {
        std::str::from_utf8(self.path.as_slice()).unwrap_or_default()
    }

    /// Whether a body was announced.
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length != ROption::RSome(0)
    }

    /// The value of a query parameter, percent-encoded as it came: the first `name=value` of that name.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let query = std::str::from_utf8(self.query.as_slice()).ok()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}

/// What the worker class knows of a request when it is over: made for the access log, the counters and the hooks.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// The request's head; nothing where the request was refused before it had one.
    pub head: ROption<&'a RequestHead<'a>>,
    /// The request line as it came, cut at a bound, where there is no head.
    pub request_line: RSlice<'a, u8>,
    /// The client's end where there is no head.
    pub peer: Address<'a>,
    /// The status that was sent; 0 where none was.
    pub status: u16,
    /// The octets of body that went out, without framing.
    pub body_bytes: u64,
    /// From the complete head to the end of the response, in nanoseconds.
    pub duration_ns: u64,
    /// The fields of the response, where [`crate::Host::wants_response_headers`] asks for them.
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
