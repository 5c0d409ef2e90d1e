//! The PROXY protocol, versions 1 and 2: the address of a proxy's client, sent before the first request.
//!
//! As in gunicorn, a connection without such a header is served normally; a header from a peer that is not in
//! `proxy_allow_ips` is rejected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use worker_api::ProxyProtocol;

use super::reject::Reject;

/// Result of [`parse_proxy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// No PROXY header.
    Absent,
    /// A header without a client: a health check by the proxy (LOCAL), or an unspecified protocol. The
    /// addresses of the connection apply.
    Local,
    /// Addresses of the original connection.
    Proxied {
        /// Address of the client.
        source: SocketAddr,
        /// Address of the proxy.
        destination: SocketAddr,
    },
}

/// Parses the header at the start of a connection; returns it with its length. Returns `None` if more bytes are
/// needed. `allowed` says whether the peer may send one ([`super::forwarded::TrustedPeers`]).
pub fn parse_proxy(
    buf: &[u8],
    protocol: ProxyProtocol,
    allowed: bool,
) -> Result<Option<(usize, ProxyHeader)>, Reject> {
    let text = matches!(protocol, ProxyProtocol::V1 | ProxyProtocol::Auto);
    let binary = matches!(protocol, ProxyProtocol::V2 | ProxyProtocol::Auto);
    let parse = if text && begins(buf, V1_BEGIN) {
        parse_v1
    } else if binary && begins(buf, V2_BEGIN) {
        parse_v2
    } else {
        return Ok(Some((0, ProxyHeader::Absent)));
    };
    let signature = if begins(buf, V1_BEGIN) { V1_BEGIN } else { V2_BEGIN };
    if buf.len() < signature.len() {
        return Ok(None);
    }
    if !allowed {
        return Err(Reject::new(403, "a PROXY header from a peer that is not on proxy_allow_ips"));
    }
    parse(buf)
}

/// Returns whether `buf` starts with the signature or a prefix of it.
fn begins(buf: &[u8], signature: &[u8]) -> bool {
    let len = buf.len().min(signature.len());
    buf[..len] == signature[..len]
}

/// `PROXY TCP4 source destination source-port destination-port`, a line of at most 107 bytes.
fn parse_v1(buf: &[u8]) -> Result<Option<(usize, ProxyHeader)>, Reject> {
    let seen = &buf[..buf.len().min(V1_MAX)];
    let Some(end) = memchr::memchr(b'\n', seen) else {
        if buf.len() >= V1_MAX {
            return Err(Reject::bad("the PROXY line is too long"));
        }
        return Ok(None);
    };
    let malformed = || Reject::bad("the PROXY line is malformed").with(&seen[..end]);
    let line = seen[..end].strip_suffix(b"\r").ok_or_else(malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| malformed())?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some((end + 1, ProxyHeader::Local)));
    }
    let words: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return Err(malformed());
    };
    let address = |address: &str, port: &str| {
        let ip: IpAddr = match family {
            "TCP4" => address.parse::<Ipv4Addr>().ok()?.into(),
            "TCP6" => address.parse::<Ipv6Addr>().ok()?.into(),
            _ => return None,
        };
        let canonical = port.bytes().all(|byte| byte.is_ascii_digit())
            && (port == "0" || !port.starts_with('0'));
        Some(SocketAddr::new(ip, port.parse().ok().filter(|_| canonical)?))
    };
    let source = address(source, source_port).ok_or_else(malformed)?;
    let destination = address(destination, destination_port).ok_or_else(malformed)?;
    Ok(Some((end + 1, ProxyHeader::Proxied { source, destination })))
}

/// Signature, version and command, family and transport, length; then the addresses, then optional data.
fn parse_v2(buf: &[u8]) -> Result<Option<(usize, ProxyHeader)>, Reject> {
    let Some((fixed, rest)) = buf.split_first_chunk::<16>() else { return Ok(None) };
    let [.., version_command, family_transport, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > V2_REST_MAX {
        return Err(Reject::bad("the PROXY header is too long"));
    }
    let command = match version_command {
        0x20 => ProxyCommand::Local,
        0x21 => ProxyCommand::Proxy,
        _ => return Err(Reject::bad("the PROXY header has an unknown version or command")),
    };
    let Some(rest) = rest.get(..len) else { return Ok(None) };
    let header = match (command, family_transport) {
        (ProxyCommand::Local, _) | (_, 0x00) => Some(ProxyHeader::Local),
        (_, 0x11) => rest.first_chunk::<12>().map(ipv4),
        (_, 0x21) => rest.first_chunk::<36>().map(ipv6),
        // A unix stream: its paths say nothing about a client.
        (_, 0x31) if rest.len() >= 216 => Some(ProxyHeader::Local),
        _ => None,
    };
    let header = header
        .ok_or(Reject::bad("the PROXY header has an unknown family, or too few bytes for it"))?;
    Ok(Some((16 + len, header)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProxyCommand {
    Local,
    Proxy,
}

fn ipv4(bytes: &[u8; 12]) -> ProxyHeader {
    let address = |at: usize| {
        let mut address = [0; 4];
        address.copy_from_slice(&bytes[at..at + 4]);
        IpAddr::from(address)
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    ProxyHeader::Proxied {
        source: SocketAddr::new(address(0), port(8)),
        destination: SocketAddr::new(address(4), port(10)),
    }
}

fn ipv6(bytes: &[u8; 36]) -> ProxyHeader {
    let address = |at: usize| {
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[at..at + 16]);
        IpAddr::from(address)
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    ProxyHeader::Proxied {
        source: SocketAddr::new(address(0), port(32)),
        destination: SocketAddr::new(address(16), port(34)),
    }
}

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of the text form, with its line end, from the specification.
const V1_MAX: usize = 107;
/// Maximum length of the binary form after its first 16 bytes: addresses and a generous share of optional data.
const V2_REST_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<(usize, ProxyHeader)>, u16> {
        parse_proxy(bytes, ProxyProtocol::Auto, true).map_err(|reject| reject.status)
    }

    fn proxied(source: &str, destination: &str) -> ProxyHeader {
        let address = |text: &str| text.parse().unwrap();
        ProxyHeader::Proxied { source: address(source), destination: address(destination) }
    }

    fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_BEGIN, &[version_command, family], &len, rest].concat()
    }

    #[test]
    fn the_text_form() {
        let tcp4 = b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse(tcp4), Ok(Some((45, proxied("192.0.2.1:40000", "198.51.100.7:443")))));
        let tcp6 = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
        assert_eq!(parse(tcp6), Ok(Some((36, proxied("[2001:db8::1]:0", "[::1]:65535")))));
        for unknown in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN whatever it says\r\n"] {
            assert_eq!(parse(unknown), Ok(Some((unknown.len(), ProxyHeader::Local))));
        }
    }

    #[test]
    fn a_malformed_text_form_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.7 40000\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443 1\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.7 40000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\n",
            "PROXY TCP4 2001:db8::1 ::1 40000 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 40000 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 40000 443\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.7 40000 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.7 40000 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.7 40000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +40000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 040000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 -1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 4000a 443\r\n",
            "PROXY \r\n",
            "PROXY \u{e9}\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(400), "{line:?}");
        }
        assert_eq!(parse(&[b"PROXY ", &[b'x'; 101][..]].concat()), Err(400), "without an end");
        assert_eq!(parse(&[b"PROXY ", &[b'x'; 100][..]].concat()), Ok(None));
    }

    #[test]
    fn the_binary_form() {
        let ipv4 = [192, 0, 2, 1, 198, 51, 100, 7, 0x9c, 0x40, 0x01, 0xbb];
        let header = proxied("192.0.2.1:40000", "198.51.100.7:443");
        assert_eq!(parse(&v2(0x21, 0x11, &ipv4)), Ok(Some((28, header))));
        let with_more = [&ipv4[..], &[0x04, 0, 1, 0]].concat();
        assert_eq!(parse(&v2(0x21, 0x11, &with_more)), Ok(Some((32, header))));
        let mut ipv6 = [0; 36];
        (ipv6[15], ipv6[31], ipv6[33], ipv6[34]) = (1, 2, 80, 1);
        let header = proxied("[::1]:80", "[::2]:256");
        assert_eq!(parse(&v2(0x21, 0x21, &ipv6)), Ok(Some((52, header))));
        for local in [
            v2(0x20, 0, b""),
            v2(0x20, 0x11, &ipv4),
            v2(0x21, 0, b"xyz"),
            v2(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(parse(&local), Ok(Some((local.len(), ProxyHeader::Local))));
        }
    }

    #[test]
    fn a_malformed_binary_form_is_refused() {
        for header in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; V2_REST_MAX + 1]),
        ] {
            assert_eq!(parse(&header), Err(400), "{}", header[..16].escape_ascii());
        }
    }

    #[test]
    fn a_part_is_waited_for_and_nothing_else() {
        for header in [b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n".to_vec(), v2(0x21, 0x11, &[1; 12])] {
            for len in 0..header.len() {
                assert_eq!(parse(&header[..len]), Ok(None), "{len}");
            }
        }
        for other in ["PROPFIND / HTTP/1.1", "GET", "\r\nGET", "\r\n\r\nG", "proxy "] {
            assert_eq!(parse(other.as_bytes()), Ok(Some((0, ProxyHeader::Absent))), "{other:?}");
        }
    }

    #[test]
    fn only_what_the_setting_names_is_understood_and_only_from_peers_that_may() {
        let (text, binary) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, b""));
        let absent = Ok(Some((0, ProxyHeader::Absent)));
        assert_eq!(parse_proxy(&binary, ProxyProtocol::V1, true), absent);
        assert_eq!(parse_proxy(&text, ProxyProtocol::V2, true), absent);
        assert_eq!(parse_proxy(&text, ProxyProtocol::Off, false), absent);
        for header in [text, binary] {
            let refused = parse_proxy(&header, ProxyProtocol::Auto, false);
            assert_eq!(refused.map_err(|reject| reject.status), Err(403));
        }
    }
}
