//! Why a request cannot open a connection.

/// Reason to refuse a request, with the response to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The request does not ask for an upgrade to WebSocket: 426.
    #[error("the request does not ask for an upgrade to WebSocket")]
    NotAnUpgrade,
    /// The method is not GET: 405.
    #[error("a WebSocket is opened by GET")]
    Method,
    /// The version of HTTP is not 1.1: 400.
    #[error("a WebSocket is opened by HTTP/1.1")]
    HttpVersion,
    /// The version of the protocol is not 13: 426.
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
    /// Sec-WebSocket-Key is not the base64 form of 16 bytes: 400.
    #[error("Sec-WebSocket-Key is not the base64 form of 16 bytes, once")]
    Key,
    /// Sec-WebSocket-Protocol is not a list of distinct tokens: 400.
    #[error("Sec-WebSocket-Protocol is not a list of distinct tokens")]
    Subprotocol,
    /// Sec-WebSocket-Extensions is malformed: 400.
    #[error("Sec-WebSocket-Extensions is malformed")]
    Extensions,
}

impl Refused {
    /// Returns the status of the response.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotAnUpgrade | Self::Version => 426,
            Self::Method => 405,
            Self::HttpVersion | Self::Key | Self::Subprotocol | Self::Extensions => 400,
        }
    }

    /// Returns the headers that the status demands (RFC 9110 15.5.6, 15.5.22; RFC 6455 4.4).
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NotAnUpgrade | Self::Version => &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ],
            Self::Method => &[("Allow", "GET")],
            Self::HttpVersion | Self::Key | Self::Subprotocol | Self::Extensions => &[],
        }
    }
}
