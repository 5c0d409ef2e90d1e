//! The request line: method, target, version (RFC 9112 3).

use worker_api::Version;

use super::policy::Policy;
use super::reject::Reject;
use super::tokens::is_token;

/// A request line whose three parts are individually valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestLine<'b> {
    pub(super) method: &'b str,
    pub(super) target: &'b [u8],
    pub(super) version: Version,
}

impl<'b> RequestLine<'b> {
    /// Converts a request line accepted by httparse if it is also valid here.
    #[inline]
    pub(super) fn of(request: &httparse::Request<'_, 'b>, policy: &Policy) -> Option<Self> {
        let method = request.method?;
        let target = request.path?;
        let version = if request.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        // httparse also accepts UTF-8, but no space and no control character.
        let valid = target.is_ascii()
            && (is_conventional(method) || policy.permit_unconventional_http_method);
        let target = target.as_bytes();
        valid.then_some(Self { method, target, version })
    }

    /// Parses a line without its line end: three parts separated by single spaces.
    pub(super) fn parse(line: &'b [u8], policy: &Policy) -> Result<Self, Reject> {
        let malformed =
            || Reject::bad("the request line is not `method target version`").with(line);
        let first = memchr::memchr(b' ', line).ok_or_else(malformed)?;
        let last = memchr::memrchr(b' ', line).ok_or_else(malformed)?;
        if first == last {
            return Err(malformed());
        }
        let target = &line[first + 1..last];
        if !is_visible(target) {
            return Err(
                Reject::bad("the target is empty or has a byte that no URI has").with(target)
            );
        }
        Ok(Self {
            method: method(&line[..first], policy)?,
            target,
            version: version(&line[last + 1..], policy)?,
        })
    }
}

/// Checks the method. Any token is a method (RFC 9110 9.1); like gunicorn, this accepts only those that look like
/// registered ones.
fn method<'b>(bytes: &'b [u8], policy: &Policy) -> Result<&'b str, Reject> {
    let method = std::str::from_utf8(bytes).unwrap_or_default();
    if !is_token(method.as_bytes()) {
        return Err(Reject::bad("the method is no token").with(bytes));
    }
    if !is_conventional(method) && !policy.permit_unconventional_http_method {
        return Err(Reject::new(405, "an unconventional method").with(bytes));
    }
    Ok(method)
}

fn is_conventional(method: &str) -> bool {
    let odd = |byte: u8| byte.is_ascii_lowercase() || byte == b'#';
    (3..=20).contains(&method.len()) && !method.bytes().any(odd)
}

/// Returns whether the target is visible ASCII; a URI percent-encodes everything else (RFC 3986 2).
fn is_visible(target: &[u8]) -> bool {
    // Without an early exit, so that many bytes are compared at a time.
    let visible = |all: bool, byte: &u8| all & (byte.wrapping_sub(b'!') <= b'~' - b'!');
    !target.is_empty() && target.iter().fold(true, visible)
}

/// Parses `HTTP/` and two single digits (RFC 9112 2.3). A higher minor version is treated as 1.1 (RFC 9110 6.2).
fn version(bytes: &[u8], policy: &Policy) -> Result<Version, Reject> {
    match bytes {
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::HTTP_11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            if policy.permit_unconventional_http_version {
                return Ok(Version::HTTP_11);
            }
            Err(Reject::new(505, "a version other than HTTP/1.x").with(bytes))
        }
        _ => Err(Reject::bad("the version is malformed").with(bytes)),
    }
}
