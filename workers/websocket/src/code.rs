//! Close codes (RFC 6455 7.4).

use std::fmt;

/// Status code of a Close frame (RFC 6455 7.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// An end leaves, such as a server that stops or a page that is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer violated the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a type of message that this end cannot process.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// No code: what an API reports for a Close frame without one. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// No Close frame: what an API reports for a lost connection. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// The data is inconsistent with the type of the message, such as a text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The message violates a policy of this end.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// The message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The client needs an extension that the server did not accept.
    pub const EXTENSION_REQUIRED: Self = Self(1010);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server restarts: connect again (registered with IANA).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server is overloaded: connect again later (registered with IANA).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// A gateway received an invalid response (registered with IANA).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// Returns whether a Close frame may contain this code: those of RFC 6455 7.4.1 and of IANA's registry that
    /// are meant for it, and 3000 to 4999, which belong to libraries and applications (RFC 6455 7.4.2).
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseCode(code).is_sendable(), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!CloseCode(code).is_sendable(), "{code}");
        }
    }
}
