//! The head of a request in the types of the crate `http`.

use std::net::{IpAddr, SocketAddr};

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use worker_api::{Address, Failure, FailureKind, RequestHead, Result};

use crate::body::Length;

/// The connection of a request: an extension of each request, with axum `Extension<jimu_tower::Connection>`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Address of the client; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// Address of the server; `None` on a unix socket.
    pub local: Option<SocketAddr>,
    /// `http` or `https`: of the connection, or as forwarded by a trusted proxy (`secure_scheme_headers`).
    pub scheme: Scheme,
}

/// The head of a request, and what is known of its body.
pub(crate) struct RequestParts {
    pub(crate) head: request::Parts,
    pub(crate) body: Length,
}

/// Converts the head of a request.
///
/// # Errors
/// The target is no URI, or a header is none by the rules of the crate `http`; the client receives status 400.
pub(crate) fn parts(from: &RequestHead<'_>) -> Result<RequestParts> {
    let mut request = Request::new(());
    let bytes = from.target.as_slice();
    *request.method_mut() = converted(Method::from_bytes(from.method.as_bytes()), "method")?;
    *request.uri_mut() = converted(Uri::try_from(bytes), "target")?;
    *request.version_mut() = match from.version.0 {
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    request.headers_mut().reserve(from.headers.len());
    for (name, value) in from.fields() {
        let name = converted(HeaderName::from_bytes(name.as_bytes()), "name of a header")?;
        let value = converted(HeaderValue::from_bytes(value), "value of a header")?;
        request.headers_mut().append(name, value);
    }
    let scheme = if from.scheme.as_str() == "https" { Scheme::HTTPS } else { Scheme::HTTP };
    let connection = Connection { peer: socket(from.peer), local: socket(from.local), scheme };
    request.extensions_mut().insert(connection);
    let length = from.content_length.into_option();
    let body = length.filter(|_| !from.chunked).map_or(Length::Unknown, Length::Known);
    Ok(RequestParts { head: request.into_parts().0, body })
}

fn converted<T, E: std::error::Error>(result: Result<T, E>, part: &str) -> Result<T> {
    result.map_err(|error| {
        let failure = Failure::new(FailureKind::PROTOCOL, format!("the {part} of the request"));
        failure.caused_by(&error).with_status(400)
    })
}

fn socket(address: Address<'_>) -> Option<SocketAddr> {
    let host: IpAddr = address.host.as_str().parse().ok()?;
    Some(SocketAddr::new(host, address.port))
}
