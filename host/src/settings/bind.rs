//! Addresses that `bind` accepts. Nothing is opened or resolved here.

use std::path::PathBuf;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// `HOST:PORT`, `HOST`, `[IPV6]:PORT`; the host may be a name.
    Tcp {
        /// Address or name, without brackets.
        host: String,
        /// Port; 0 lets the kernel choose.
        port: u16,
    },
    /// `unix:PATH`, optionally followed by `?mode=0660&user=NAME&group=NAME`.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// Permission bits to set.
        mode: Option<u32>,
        /// Name or number of the owner to set.
        user: Option<String>,
        /// Name or number of the group to set.
        group: Option<String>,
    },
    /// `unix:@NAME`: an abstract name, without a file.
    Abstract(String),
    /// `fd://N`: an inherited listening socket.
    Fd(i32),
}

impl Bind {
    /// Parses an address; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unexpected = || "expected HOST:PORT, unix:PATH, unix:@NAME or fd://N".to_owned();
        if let Some(number) = text.strip_prefix("fd://") {
            return number.parse().ok().filter(|fd| *fd >= 0).map(Self::Fd).ok_or_else(unexpected);
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return parse_unix(rest).ok_or_else(unexpected);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(unexpected)?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(unexpected());
                }
                (host, port.strip_prefix(':').or(port.is_empty().then_some(PORT_DEFAULT)))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some(PORT_DEFAULT)),
            },
        };
        let port = port.and_then(|port| port.parse().ok()).ok_or_else(unexpected)?;
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        if host.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()) {
            return Err(unexpected());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

fn parse_unix(text: &str) -> Option<Bind> {
    if let Some(name) = text.strip_prefix('@') {
        return (!name.is_empty() && name.len() < SUN_PATH)
            .then(|| Bind::Abstract(name.to_owned()));
    }
    let (path, options) = text.split_once('?').unwrap_or((text, ""));
    if path.is_empty() || path.len() >= SUN_PATH || path.contains('\0') {
        return None;
    }
    let (mut mode, mut user, mut group) = (None, None, None);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=')? {
            ("mode", bits) => {
                mode = Some(u32::from_str_radix(bits, 8).ok().filter(|m| *m <= 0o777)?);
            }
            ("user", name) if !name.is_empty() => user = Some(name.to_owned()),
            ("group", name) if !name.is_empty() => group = Some(name.to_owned()),
            _ => return None,
        }
    }
    Some(Bind::Unix { path: PathBuf::from(path), mode, user, group })
}

/// Port of an address without one, as in gunicorn.
const PORT_DEFAULT: &str = "8000";

/// Size of the path in `sockaddr_un`, including its final NUL.
const SUN_PATH: usize = 108;
