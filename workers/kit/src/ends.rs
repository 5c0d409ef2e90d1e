//! The two ends of a connection, as text and number.

use std::net::SocketAddr;
use std::sync::Arc;

use compact_str::{CompactString, ToCompactString as _};
use nix::sys::socket::SockaddrStorage;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The IP address without brackets, the path of a unix socket, or empty.
    pub host: CompactString,
    /// The port; 0 for a unix socket.
    pub port: u16,
}

/// Properties that all connections of a listener share.
#[derive(Debug)]
pub struct Local {
    /// The address that the server bound.
    pub end: Endpoint,
    /// Whether it is a unix socket.
    pub unix: bool,
    /// Whether the server itself is the client: such connections do not use TLS.
    pub private: bool,
    /// Whether the address comes from a PROXY header: then it is the proxy's.
    pub proxied: bool,
}

/// Both ends of a connection.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) peer: Endpoint,
    pub(crate) local: Arc<Local>,
}

impl Endpoint {
    /// Returns an endpoint without an address: a client of a unix socket.
    pub fn nowhere() -> Self {
        Self { host: CompactString::default(), port: 0 }
    }

    /// Returns the endpoint with this IP address.
    pub fn from_ip(address: SocketAddr) -> Self {
        Self { host: address.ip().to_canonical().to_compact_string(), port: address.port() }
    }

    /// Returns the endpoint with a socket's address, of which `ip` is the [`ip_address`].
    pub(crate) fn from_address(address: &SockaddrStorage, ip: Option<SocketAddr>) -> Self {
        if let Some(ip) = ip {
            return Self::from_ip(ip);
        }
        let path = address.as_unix_addr().and_then(|unix| unix.path());
        Self { host: path.map(|path| path.to_string_lossy().into()).unwrap_or_default(), port: 0 }
    }

    /// Returns the endpoint as it crosses the ABI.
    pub fn address(&self) -> worker_api::Address<'_> {
        worker_api::Address { host: self.host.as_str().into(), port: self.port }
    }
}

/// Returns the IP address and port of a socket's address.
pub(crate) fn ip_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
