//! Offers of permessage-deflate and the response to them (RFC 7692 5, 7.1).

use std::fmt::Write;

use super::super::deflate::{DeflateParams, WINDOW_BITS_MAX, WINDOW_BITS_MIN, ZLIB_BITS_MIN};
use super::extensions::Extension;

/// What the server wants of permessage-deflate. The client's offer may lower the windows further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeflatePolicy {
    /// Compress each message on its own: needs less memory per connection and more bytes per message.
    pub server_no_context_takeover: bool,
    /// Demand that the client compresses each message on its own.
    pub client_no_context_takeover: bool,
    /// Logarithm of the largest window to compress with, 9 to 15.
    pub server_max_window_bits: u8,
    /// Logarithm of the largest window that the client may use, 8 to 15, if the client can be limited.
    pub client_max_window_bits: u8,
}

impl Default for DeflatePolicy {
    /// Context takeover, with a window of 4 KiB for the server: most of the compression of small messages for a part
    /// of the memory. A smaller window of the client would save no memory here.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 12,
            client_max_window_bits: 15,
        }
    }
}

/// An offer that can be accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeflateOffer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_window: ClientWindow,
}

/// What an offer permits to demand of the client's window (RFC 7692 7.1.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientWindow {
    /// The response may not limit it.
    Fixed,
    /// The response may limit it.
    Limitable,
    /// It is no larger than this; the response may limit it further.
    AtMost(u8),
}

impl DeflateOffer {
    /// Returns the offer; `None` if it is of another extension, or is to be declined because a parameter is
    /// unknown, repeated, or has an invalid value (RFC 7692 7.1), or demands a window that cannot be produced.
    pub(super) fn parse(extension: &Extension<'_>) -> Option<Self> {
        if !extension.name.eq_ignore_ascii_case(NAME.as_bytes()) {
            return None;
        }
        let mut offer = Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: None,
            client_window: ClientWindow::Fixed,
        };
        for (name, value) in &extension.params {
            offer.set(name, value.as_deref())?;
        }
        if offer.server_max_window_bits.is_some_and(|bits| bits < ZLIB_BITS_MIN) {
            return None;
        }
        Some(offer)
    }

    /// Accepts the offer: returns the parameters and the value of Sec-WebSocket-Extensions.
    pub(super) fn accept(self, policy: DeflatePolicy) -> (DeflateParams, String) {
        let server_policy = policy.server_max_window_bits.clamp(ZLIB_BITS_MIN, WINDOW_BITS_MAX);
        let client_policy = policy.client_max_window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let params = DeflateParams {
            server_no_context_takeover: self.server_no_context_takeover
                || policy.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover
                || policy.client_no_context_takeover,
            server_max_window_bits: self
                .server_max_window_bits
                .map_or(server_policy, |bits| bits.min(server_policy)),
            client_max_window_bits: match self.client_window {
                ClientWindow::Fixed => WINDOW_BITS_MAX,
                ClientWindow::Limitable => client_policy,
                ClientWindow::AtMost(bits) => bits.min(client_policy),
            },
        };
        let response = self.response(params);
        (params, response)
    }

    fn set(&mut self, name: &[u8], value: Option<&[u8]>) -> Option<()> {
        match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER, None) if !self.server_no_context_takeover => {
                self.server_no_context_takeover = true;
            }
            (CLIENT_NO_CONTEXT_TAKEOVER, None) if !self.client_no_context_takeover => {
                self.client_no_context_takeover = true;
            }
            (SERVER_MAX_WINDOW_BITS, Some(value)) if self.server_max_window_bits.is_none() => {
                self.server_max_window_bits = Some(window_bits(value)?);
            }
            (CLIENT_MAX_WINDOW_BITS, value) if self.client_window == ClientWindow::Fixed => {
                self.client_window = match value {
                    Some(value) => ClientWindow::AtMost(window_bits(value)?),
                    None => ClientWindow::Limitable,
                };
            }
            _ => return None,
        }
        Some(())
    }

    /// A parameter is in the response if it was demanded, or says more than its absence.
    fn response(self, params: DeflateParams) -> String {
        let mut response = NAME.to_owned();
        if params.server_no_context_takeover {
            response.push_str("; server_no_context_takeover");
        }
        if params.client_no_context_takeover {
            response.push_str("; client_no_context_takeover");
        }
        let bits = params.server_max_window_bits;
        if self.server_max_window_bits.is_some() || bits < WINDOW_BITS_MAX {
            write!(response, "; server_max_window_bits={bits}").expect("a string has room");
        }
        let bits = params.client_max_window_bits;
        if bits < WINDOW_BITS_MAX {
            write!(response, "; client_max_window_bits={bits}").expect("a string has room");
        }
        response
    }
}

/// Parses 8 to 15, without leading zeros (RFC 7692 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &[u8] = b"server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &[u8] = b"client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &[u8] = b"server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &[u8] = b"client_max_window_bits";

#[cfg(test)]
mod tests {
    use super::super::extensions::parse;
    use super::*;

    const WIDE: DeflatePolicy = DeflatePolicy {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    /// Returns the parameters of the response to the first offer that can be accepted.
    fn respond(params: &str, policy: DeflatePolicy) -> Option<(DeflateParams, String)> {
        let value = format!("permessage-deflate{params}");
        let offers = parse(value.as_bytes()).expect("the grammar is valid");
        let (params, response) = offers.iter().find_map(DeflateOffer::parse)?.accept(policy);
        let rest = response.strip_prefix("permessage-deflate").expect("the name is first");
        Some((params, rest.to_owned()))
    }

    #[test]
    fn responses_to_offers() {
        let narrow =
            DeflatePolicy { server_max_window_bits: 10, client_max_window_bits: 11, ..WIDE };
        let single = DeflatePolicy {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            ..WIDE
        };
        let cases = [
            ("", WIDE, Some("")),
            ("; client_max_window_bits", WIDE, Some("")),
            ("; client_max_window_bits=15", WIDE, Some("")),
            ("; client_max_window_bits=8", WIDE, Some("; client_max_window_bits=8")),
            ("; client_max_window_bits=\"10\"", WIDE, Some("; client_max_window_bits=10")),
            ("; server_max_window_bits=15", WIDE, Some("; server_max_window_bits=15")),
            ("; server_max_window_bits=9", WIDE, Some("; server_max_window_bits=9")),
            ("; server_no_context_takeover", WIDE, Some("; server_no_context_takeover")),
            ("; client_no_context_takeover", WIDE, Some("; client_no_context_takeover")),
            ("", narrow, Some("; server_max_window_bits=10")),
            (
                "; client_max_window_bits",
                narrow,
                Some("; server_max_window_bits=10; client_max_window_bits=11"),
            ),
            (
                "; client_max_window_bits=9; server_max_window_bits=12",
                narrow,
                Some("; server_max_window_bits=10; client_max_window_bits=9"),
            ),
            ("", single, Some("; server_no_context_takeover; client_no_context_takeover")),
            // The window of 8 bits cannot be produced; the second offer has none.
            ("; server_max_window_bits=8", WIDE, None),
            ("; server_max_window_bits=8, permessage-deflate", WIDE, Some("")),
            ("; server_max_window_bits", WIDE, None),
            ("; server_max_window_bits=16", WIDE, None),
            ("; server_max_window_bits=09", WIDE, None),
            ("; server_max_window_bits=7", WIDE, None),
            ("; server_max_window_bits=10; server_max_window_bits=10", WIDE, None),
            ("; client_max_window_bits=16", WIDE, None),
            ("; client_max_window_bits=1", WIDE, None),
            ("; client_max_window_bits; client_max_window_bits=10", WIDE, None),
            ("; server_no_context_takeover=1", WIDE, None),
            ("; server_no_context_takeover; server_no_context_takeover", WIDE, None),
            ("; client_no_context_takeover=true", WIDE, None),
            ("; client_no_context_takeover; client_no_context_takeover", WIDE, None),
            ("; unknown", WIDE, None),
            ("; unknown, permessage-deflate; client_max_window_bits=12", narrow, {
                Some("; server_max_window_bits=10; client_max_window_bits=11")
            }),
        ];
        for (offer, policy, expected) in cases {
            let response = respond(offer, policy).map(|(_, response)| response);
            assert_eq!(response.as_deref(), expected, "{offer}");
        }
    }

    #[test]
    fn a_client_that_cannot_be_limited_may_use_the_largest_window() {
        let policy = DeflatePolicy { client_max_window_bits: 9, ..WIDE };
        let (params, _) = respond("", policy).expect("the offer is valid");
        assert_eq!(params.client_max_window_bits, 15);
        let (params, _) = respond("; client_max_window_bits", policy).expect("the offer is valid");
        assert_eq!(params.client_max_window_bits, 9);
    }

    #[test]
    fn another_extension_is_no_offer() {
        let offers = parse(b"x-webkit-deflate-frame").expect("the grammar is valid");
        assert_eq!(offers.iter().find_map(DeflateOffer::parse), None);
    }
}
