//! The opening handshake of a server (RFC 6455 4.2): a request is checked, then accepted with what the application
//! chooses.

mod extensions;
mod negotiation;
mod refused;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::deflate::DeflateParams;
use super::tokens::{is_token, list};
use negotiation::DeflateOffer;
pub use negotiation::DeflatePolicy;
pub use refused::Refused;

/// Parts of a request's head that the handshake reads.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'r, H> {
    /// Method, as it was sent.
    pub method: &'r [u8],
    /// Major and minor number of the HTTP version.
    pub http_version: (u8, u8),
    /// Names, in any case, and values of all headers, in order. Several lines may have the same name.
    pub headers: H,
}

/// A valid request to open a connection, and what it offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer<'r> {
    accept_key: String,
    subprotocols: Vec<&'r str>,
    deflate: Vec<DeflateOffer>,
}

/// An accepted request: what the response with status 101 contains, and what was agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted<'a> {
    /// Headers of the response; the application may add others.
    pub headers: Vec<(&'static str, Cow<'a, str>)>,
    /// Parameters for [`Settings::deflate`](crate::Settings::deflate).
    pub deflate: Option<DeflateParams>,
}

/// Subprotocol that the application has chosen and the client has not offered (RFC 6455 4.2.2).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the subprotocol {0:?} was not offered by the client")]
pub struct SubprotocolNotOffered(pub String);

/// Returns whether the headers ask for an upgrade to WebSocket: whether the request belongs to an application for
/// WebSocket, valid or not.
pub fn is_upgrade<'r>(headers: impl IntoIterator<Item = (&'r [u8], &'r [u8])>) -> bool {
    let (mut upgrade, mut connection) = (false, false);
    for (name, value) in headers {
        upgrade |= name.eq_ignore_ascii_case(b"upgrade") && contains(value, b"websocket");
        connection |= name.eq_ignore_ascii_case(b"connection") && contains(value, b"upgrade");
    }
    upgrade && connection
}

impl<'r> Offer<'r> {
    /// Checks a request (RFC 6455 4.2.1).
    pub fn parse<H>(head: RequestHead<'r, H>) -> Result<Self, Refused>
    where
        H: IntoIterator<Item = (&'r [u8], &'r [u8])>,
    {
        let fields = Fields::collect(head.headers)?;
        if !(fields.upgrade && fields.connection) {
            return Err(Refused::NotAnUpgrade);
        }
        if head.method != b"GET" {
            return Err(Refused::Method);
        }
        if head.http_version < (1, 1) || head.http_version.0 > 1 {
            return Err(Refused::HttpVersion);
        }
        if fields.version != Some(b"13") {
            return Err(Refused::Version);
        }
        let key = fields.key.ok_or(Refused::Key)?;
        if STANDARD.decode(key).map(|bytes| bytes.len()) != Ok(KEY_LEN) {
            return Err(Refused::Key);
        }
        Ok(Self {
            accept_key: accept_key(key),
            subprotocols: fields.subprotocols,
            deflate: fields.deflate,
        })
    }

    /// Returns the subprotocols that the client offers, the preferred one first.
    pub fn subprotocols(&self) -> &[&'r str] {
        &self.subprotocols
    }

    /// Returns whether the client offers permessage-deflate in a form that can be accepted.
    pub fn has_deflate(&self) -> bool {
        !self.deflate.is_empty()
    }

    /// Accepts the request, with the subprotocol that the application chooses, and with the client's first offer of
    /// permessage-deflate if there is a policy for it.
    pub fn accept<'a>(
        &self,
        subprotocol: Option<&'a str>,
        policy: Option<DeflatePolicy>,
    ) -> Result<Accepted<'a>, SubprotocolNotOffered> {
        let mut headers = Vec::with_capacity(HEADERS_MAX);
        headers.push(("Upgrade", Cow::Borrowed("websocket")));
        headers.push(("Connection", Cow::Borrowed("Upgrade")));
        headers.push(("Sec-WebSocket-Accept", Cow::Owned(self.accept_key.clone())));
        if let Some(chosen) = subprotocol {
            if !self.subprotocols.contains(&chosen) {
                return Err(SubprotocolNotOffered(chosen.to_owned()));
            }
            headers.push(("Sec-WebSocket-Protocol", Cow::Borrowed(chosen)));
        }
        let agreed = policy.and_then(|policy| self.deflate.first().map(|o| o.accept(policy)));
        let deflate = agreed.map(|(params, response)| {
            headers.push(("Sec-WebSocket-Extensions", Cow::Owned(response)));
            params
        });
        Ok(Accepted { headers, deflate })
    }
}

/// Returns the value of Sec-WebSocket-Accept for a value of Sec-WebSocket-Key (RFC 6455 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Headers of the handshake.
#[derive(Default)]
struct Fields<'r> {
    upgrade: bool,
    connection: bool,
    version: Option<&'r [u8]>,
    key: Option<&'r [u8]>,
    subprotocols: Vec<&'r str>,
    deflate: Vec<DeflateOffer>,
}

impl<'r> Fields<'r> {
    fn collect(headers: impl IntoIterator<Item = (&'r [u8], &'r [u8])>) -> Result<Self, Refused> {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.add(name, value)?;
        }
        Ok(fields)
    }

    fn add(&mut self, name: &[u8], value: &'r [u8]) -> Result<(), Refused> {
        if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade |= contains(value, b"websocket");
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.connection |= contains(value, b"upgrade");
        } else if name.eq_ignore_ascii_case(b"sec-websocket-version") {
            if self.version.replace(value.trim_ascii()).is_some() {
                return Err(Refused::Version);
            }
        } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
            if self.key.replace(value.trim_ascii()).is_some() {
                return Err(Refused::Key);
            }
        } else if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
            self.add_subprotocols(value)?;
        } else if name.eq_ignore_ascii_case(b"sec-websocket-extensions") {
            let offers = extensions::parse(value).ok_or(Refused::Extensions)?;
            self.deflate.extend(offers.iter().filter_map(DeflateOffer::parse));
        }
        Ok(())
    }

    fn add_subprotocols(&mut self, value: &'r [u8]) -> Result<(), Refused> {
        for name in list(value) {
            if !is_token(name) {
                return Err(Refused::Subprotocol);
            }
            let name = str::from_utf8(name).map_err(|_| Refused::Subprotocol)?;
            // Each may be offered once (RFC 6455 4.1).
            if self.subprotocols.contains(&name) {
                return Err(Refused::Subprotocol);
            }
            self.subprotocols.push(name);
        }
        Ok(())
    }
}

/// Returns whether a list contains the token, in any case.
fn contains(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|element| element.eq_ignore_ascii_case(token))
}

/// Appended to the key before it is hashed (RFC 6455 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Number of bytes that the key encodes.
const KEY_LEN: usize = 16;
/// Number of headers in a response that has all of them.
const HEADERS_MAX: usize = 5;

#[cfg(test)]
mod tests;
