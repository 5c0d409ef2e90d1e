//! Which peers are believed, and what they may say about the original request.

use std::net::IpAddr;

use worker_api::Header;

use super::reject::Reject;

/// Addresses and networks of peers that are trusted: `forwarded_allow_ips`, `proxy_allow_ips`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedPeers {
    all: bool,
    networks: Vec<(IpAddr, u8)>,
}

/// Something in a list of peers is neither `*` nor an address nor a network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `*`, an address or a network instead of {0:?}")]
pub struct PeerError(pub String);

impl TrustedPeers {
    /// Reads a list of `*`, addresses and networks (`10.0.0.0/8`, `fd00::/8`).
    pub fn parse<T: AsRef<str>>(peers: &[T]) -> Result<Self, PeerError> {
        let mut trusted = Self::default();
        for peer in peers {
            let text = peer.as_ref().trim();
            if text == "*" {
                trusted.all = true;
                continue;
            }
            trusted.networks.push(network(text).ok_or_else(|| PeerError(text.to_owned()))?);
        }
        Ok(trusted)
    }

    /// Whether the peer is trusted. `None` is the peer of a unix socket: always trusted, as in gunicorn, since the
    /// socket's permissions say who may connect.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        // A v4 peer of a v6 socket is the same peer.
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return true };
        self.all || self.networks.iter().any(|(address, bits)| is_within(peer, *address, *bits))
    }
}

/// The fields by which a trusted peer says that it was reached by https: `secure_scheme_headers`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SchemeRules(Vec<(String, String)>);

impl SchemeRules {
    /// Rules from pairs of a field's name and the value that stands for https.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// What a trusted peer's fields say: `https`, `http` (a field is there, with another value), or nothing. Fields
    /// that contradict each other are refused, as in gunicorn. Do not ask for what other peers send.
    pub fn decide(&self, headers: &[Header<'_>]) -> Result<Option<&'static str>, Reject> {
        let mut decided = None;
        for field in headers {
            let Some((_, secure)) = self.0.iter().find(|(name, _)| field.is(name)) else {
                continue;
            };
            let scheme = if field.value.as_slice() == secure.as_bytes() { "https" } else { "http" };
            if decided.is_some_and(|before| before != scheme) {
                return Err(Reject::bad("the fields that say the scheme contradict each other"));
            }
            decided = Some(scheme);
        }
        Ok(decided)
    }
}

/// Checks the scheme of an absolute target against the one that the request really has: who asks for an `https`
/// resource must have come that way (RFC 9110 7.4).
pub fn check_scheme(absolute: Option<&str>, actual: &str) -> Result<(), Reject> {
    if absolute == Some("https") && actual != "https" {
        return Err(Reject::new(421, "an https target over a connection that is not secure"));
    }
    Ok(())
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(bits_max);
    (bits <= bits_max).then_some((address, bits))
}

fn is_within(peer: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (peer, network) {
        (IpAddr::V4(peer), IpAddr::V4(network)) => {
            let differ = peer.to_bits() ^ network.to_bits();
            differ.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(peer), IpAddr::V6(network)) => {
            let differ = peer.to_bits() ^ network.to_bits();
            differ.leading_zeros() >= u32::from(bits)
        }
        _ => false,
    }
}
