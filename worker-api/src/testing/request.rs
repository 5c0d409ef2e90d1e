//! Requests in memory: what a test sets, and the head that an application receives.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi_stable::std_types::{ROption, RSlice};

use crate::app::AppHandle;
use crate::exchange::Exchange;
use crate::head::{Address, Header, RequestHead, Version};
use crate::owned_head::OwnedHead;
use crate::raw::ExchangeBox;
use crate::testing::exchange::{InMemory, Recorded, Response, Turn};

/// A request to send to an application.
#[derive(Clone)]
pub struct Request {
    pub(super) method: String,
    target: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    chunked: bool,
    pub(super) part: usize,
    pub(super) sent_until: Option<usize>,
    pub(super) received_until: Option<usize>,
    peer: (String, u16),
    pub(super) connection: Option<Arc<OwnedFd>>,
    pub(super) then: Option<Arc<dyn Fn() + Send + Sync>>,
    pub(super) engine: Option<Arc<dyn Turn>>,
}

impl Request {
    /// Creates a GET without a body. The target may have a query.
    pub fn get(target: impl Into<String>) -> Self {
        Self {
            method: "GET".to_owned(),
            target: target.into(),
            headers: vec![("Host".to_owned(), "localhost:8000".to_owned())],
            body: Vec::new(),
            chunked: false,
            part: usize::MAX,
            sent_until: None,
            received_until: None,
            peer: ("192.0.2.7".to_owned(), 40_000),
            connection: None,
            then: None,
            engine: None,
        }
    }

    /// Creates a POST with this body and its `Content-Length`.
    pub fn post(target: impl Into<String>, body: &[u8]) -> Self {
        let mut request = Self::get(target).method("POST");
        request.body = body.to_vec();
        request.header("Content-Length", &body.len().to_string())
    }

    /// Sets the method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks instead of with its length.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Content-Length"));
        self.header("Transfer-Encoding", "chunked")
    }

    /// Has the body arrive in parts of this number of bytes. Before each part, a read returns
    /// [`crate::Step::Pending`] once.
    #[must_use]
    pub fn part(mut self, bytes: usize) -> Self {
        self.part = bytes;
        self
    }

    /// Has the client disconnect after it has sent this number of bytes of the body.
    #[must_use]
    pub fn sent_until(mut self, bytes: usize) -> Self {
        self.sent_until = Some(bytes);
        self
    }

    /// Has the client disconnect after it has received this number of bytes of the response's body.
    #[must_use]
    pub fn received_until(mut self, bytes: usize) -> Self {
        self.received_until = Some(bytes);
        self
    }

    /// Sets the address of the client. Port 0 is that of a unix socket.
    #[must_use]
    pub fn peer(mut self, host: &str, port: u16) -> Self {
        self.peer = (host.to_owned(), port);
        self
    }

    /// Gives the exchange a connection, the server's end of a socket pair for example: the one that
    /// [`Exchange::descriptor`] returns, and of which [`Exchange::hijack`] returns a copy.
    #[must_use]
    pub fn connection(mut self, connection: impl Into<Arc<OwnedFd>>) -> Self {
        self.connection = Some(connection.into());
        self
    }

    /// Calls a function when the application finishes the response, as a worker class does with the connection's next
    /// request.
    #[must_use]
    pub fn then(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.then = Some(Arc::new(call));
        self
    }

    /// Calls an application with it, and returns the response.
    pub fn call(&self, app: &AppHandle) -> Response {
        let (exchange, recorded) = self.raw_exchange();
        app.call(exchange);
        recorded.response()
    }

    /// Returns the exchange, and what is recorded of its response.
    pub fn exchange(&self) -> (Exchange, Recorded) {
        let (exchange, recorded) = self.raw_exchange();
        (Exchange::from_raw(exchange), recorded)
    }

    pub(super) fn raw_exchange(&self) -> (ExchangeBox, Recorded) {
        InMemory::create(self.owned_head(), self.clone())
    }

    fn owned_head(&self) -> OwnedHead {
        let headers: Vec<Header<'_>> =
            self.headers.iter().map(|(name, value)| Header::new(name, value)).collect();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let host = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Host"));
        OwnedHead::new(&RequestHead {
            method: self.method.as_str().into(),
            target: self.target.as_bytes().into(),
            path: path.as_bytes().into(),
            query: query.as_bytes().into(),
            authority: host.map_or("", |(_, value)| value.as_str()).into(),
            version: Version::HTTP_11,
            trusted_peer: false,
            chunked: self.chunked,
            content_length: if self.chunked {
                ROption::RNone
            } else {
                ROption::RSome(self.body.len() as u64)
            },
            scheme: "http".into(),
            headers: RSlice::from_slice(&headers),
            peer: Address { host: self.peer.0.as_str().into(), port: self.peer.1 },
            local: Address { host: "127.0.0.1".into(), port: 8000 },
            tls: ROption::RNone,
            received_ns: 0,
            id: 1,
        })
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}
