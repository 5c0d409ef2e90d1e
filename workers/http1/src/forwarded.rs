//! Which peers are trusted, and what they may say about the original request.

use std::net::IpAddr;

use worker_api::Header;

use super::reject::Reject;

/// Addresses and networks of trusted peers: `forwarded_allow_ips`, `proxy_allow_ips`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedPeers {
    all: bool,
    networks: Vec<(IpAddr, u8)>,
}

/// An entry in a list of peers is neither `*` nor an address nor a network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `*`, an address or a network instead of {0:?}")]
pub struct PeerError(pub String);

impl TrustedPeers {
    /// Parses a list of `*`, addresses and networks (`10.0.0.0/8`, `fd00::/8`).
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

    /// Returns whether the peer is trusted. `None`, the peer of a unix socket, is always trusted, as in
    /// gunicorn: the permissions of the socket control who may connect.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        // An IPv4 peer of an IPv6 socket is the same peer.
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return true };
        self.all || self.networks.iter().any(|(address, bits)| is_within(peer, *address, *bits))
    }
}

/// Headers by which a trusted peer signals https: `secure_scheme_headers`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SchemeRules {
    rules: Vec<(String, String)>,
    /// One bit per length of a name: most headers are distinguished by their length.
    lengths: u64,
}

impl SchemeRules {
    /// Creates rules from pairs of a header name and the value that means https.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        let lengths = pairs.iter().fold(0, |all, (name, _)| all | length_bit(name));
        Self { rules: pairs, lengths }
    }

    /// Returns what a trusted peer's headers say: `https`, `http` (a header is present with another value),
    /// or `None`. Contradictory headers are rejected, as in gunicorn. Do not call it for other peers.
    pub fn decide(&self, headers: &[Header<'_>]) -> Result<Option<&'static str>, Reject> {
        let mut decided = None;
        for field in headers {
            if length_bit(&field.name) & self.lengths == 0 {
                continue;
            }
            let Some((_, secure)) = self.rules.iter().find(|(name, _)| field.is(name)) else {
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

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

/// Checks the scheme of an absolute target against that of the connection: a request for an `https` resource must
/// use https, unless a trusted gateway sends it (RFC 9110 7.4).
pub fn check_scheme(
    absolute: Option<&str>,
    actual: &str,
    trusted_peer: bool,
) -> Result<(), Reject> {
    if absolute == Some("https") && actual != "https" && !trusted_peer {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(peers: &TrustedPeers, peer: &str) -> bool {
        peers.contains(Some(peer.parse().unwrap()))
    }

    #[test]
    fn peers_are_trusted_by_address_and_network() {
        let peers =
            TrustedPeers::parse(&["127.0.0.1", " ::1", "10.0.0.0/8", "fd00::/8", "192.0.2.128/25"])
                .unwrap();
        for peer in [
            "127.0.0.1",
            "::1",
            "10.255.0.1",
            "fdff::1",
            "192.0.2.129",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
        ] {
            assert!(trusts(&peers, peer), "{peer}");
        }
        for peer in [
            "127.0.0.2",
            "::2",
            "11.0.0.1",
            "fe00::1",
            "192.0.2.127",
            "::ffff:11.0.0.1",
            "::10.0.0.1",
        ] {
            assert!(!trusts(&peers, peer), "{peer}");
        }
    }

    #[test]
    fn all_none_and_unix_peers() {
        let all = TrustedPeers::parse(&["*"]).unwrap();
        let zero = TrustedPeers::parse(&["0.0.0.0/0"]).unwrap();
        let none = TrustedPeers::default();
        assert!(trusts(&all, "1.2.3.4") && trusts(&all, "::1"));
        assert!(trusts(&zero, "1.2.3.4") && !trusts(&zero, "::1"));
        assert!(!trusts(&none, "127.0.0.1") && none.contains(None));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "fd00::/129",
            "10.0.0.0/",
            "1.2.3",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(TrustedPeers::parse(&[text]), Err(PeerError(text.to_owned())));
        }
    }

    #[test]
    fn the_scheme_is_what_the_fields_agree_upon() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let rules = SchemeRules::new(vec![
            pair("X-FORWARDED-PROTO", "https"),
            pair("X-FORWARDED-SSL", "on"),
        ]);
        let decide = |fields: &[(&str, &str)]| {
            let headers: Vec<_> =
                fields.iter().map(|(name, value)| Header::new(name, *value)).collect();
            rules.decide(&headers).map_err(|reject| reject.status)
        };
        assert_eq!(decide(&[("Host", "a")]), Ok(None));
        assert_eq!(decide(&[("x-forwarded-proto", "https")]), Ok(Some("https")));
        assert_eq!(decide(&[("X-Forwarded-Proto", "HTTPS")]), Ok(Some("http")));
        assert_eq!(
            decide(&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "on")]),
            Ok(Some("https"))
        );
        assert_eq!(decide(&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")]), Err(400));
        assert_eq!(
            decide(&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")]),
            Err(400)
        );
    }

    #[test]
    fn an_https_target_has_to_come_over_https() {
        assert_eq!(
            check_scheme(Some("https"), "http", false).map_err(|reject| reject.status),
            Err(421)
        );
        for (absolute, actual, trusted) in [
            (Some("https"), "http", true),
            (Some("https"), "https", false),
            (Some("http"), "https", false),
            (None, "http", false),
        ] {
            assert_eq!(check_scheme(absolute, actual, trusted), Ok(()));
        }
    }
}
