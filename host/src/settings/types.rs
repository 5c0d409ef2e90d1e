//! Types of the fields of `Settings`, and the conversion of a checked value to each.

use std::{path::PathBuf, time::Duration};

use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

use worker_api::{Choice as _, ClientCertificate, HeaderMap, ProxyProtocol, TlsVersion};

use super::{bind::Bind, value::Value};
use crate::log::AccessFormat;

/// A type of a field of `Settings`.
pub(super) trait Field: Sized {
    /// Converts a value of the right kind; the error says what was expected.
    fn read(value: &Value) -> Result<Self, String>;

    /// Returns whether the value means "none" if the field is an `Option`.
    fn is_none(value: &Value) -> bool {
        match value {
            Value::Unset => true,
            Value::Text(text) => text.is_empty(),
            _ => false,
        }
    }
}

/// Minimum severity of the error log, in order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Normal events.
    Info,
    /// Problems that need attention.
    Warning,
    /// Failures.
    Error,
    /// Failures that stop the server.
    Critical,
}

/// Interface that an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Whatever the application tells.
    Auto,
    /// PEP 3333.
    Wsgi,
    /// ASGI 3.0.
    Asgi,
}

/// Where the library of an application is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Once, in the mold.
    Mold,
    /// In each worker.
    Worker,
}

/// Whether an ASGI application's lifespan protocol is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifespan {
    /// If the application supports it.
    Auto,
    /// Yes, and an application that does not support it is refused.
    On,
    /// No.
    Off,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Destination of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// `-`: the standard stream of that log.
    Stream,
    /// A file, appended to and reopened on USR1.
    File(PathBuf),
}

/// Options of the Python interpreter, as words of its command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PythonOptions(Vec<String>);

impl PythonOptions {
    /// Returns the words.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Number of the user.
    pub uid: u32,
    /// Name of the user, if the system knows one (required by `initgroups`).
    pub name: Option<String>,
}

/// A group to run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupId(pub u32);

/// Addresses and networks of trusted peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedPeers(pub Vec<String>);

/// Address of StatsD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsdHost {
    /// UDP.
    Udp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Datagrams to a unix socket.
    Unix(PathBuf),
}

/// Address of the syslog daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A unix datagram socket.
    Unix(PathBuf),
    /// UDP.
    Udp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// A syslog facility, as the number of RFC 3164.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyslogFacility(pub u8);

impl SyslogFacility {
    /// Accepted words; the index of each is its number.
    pub const WORDS: &[&str] = &[
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
        "local7", "security",
    ];
}

/// Types with a choice of words, each with its meaning.
macro_rules! choices {
    ($($type:ident { $($word:literal => $variant:ident),* })*) => { $(
        impl $type {
            /// Accepted words.
            pub const WORDS: &[&str] = &[$($word),*];
        }

        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(format!("expected one of {}", Self::WORDS.join(", "))),
                }
            }
        }
    )* };
}

choices! {
    LogLevel {
        "debug" => Debug, "info" => Info, "warning" => Warning, "error" => Error,
        "critical" => Critical
    }
    LogFormat { "text" => Text, "json" => Json }
    Interface { "auto" => Auto, "wsgi" => Wsgi, "asgi" => Asgi }
    Load { "mold" => Mold, "worker" => Worker }
    Lifespan { "auto" => Auto, "on" => On, "off" => Off }
}

/// Choices that worker classes read too.
macro_rules! shared_choices {
    ($($type:ident)*) => { $(
        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                let chosen = value.as_str().and_then(Self::from_word);
                chosen.ok_or_else(|| format!("expected one of {}", Self::WORDS.join(", ")))
            }
        }
    )* };
}

shared_choices! { ProxyProtocol HeaderMap TlsVersion }

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                value
                    .as_int()
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| format!("expected a whole number up to {}", Self::MAX))
            }

            fn is_none(value: &Value) -> bool {
                matches!(value, Value::Unset | Value::Int(0))
            }
        }
    )* };
}

integers! { u32 u64 usize }

impl<T: Field> Field for Option<T> {
    fn read(value: &Value) -> Result<Self, String> {
        if T::is_none(value) { Ok(None) } else { T::read(value).map(Some) }
    }
}

impl Field for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "expected true or false".to_owned())
    }
}

impl Field for String {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| "expected a string".to_owned())
    }
}

impl Field for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("") | None => Err("expected a path".to_owned()),
            Some(path) => Ok(Self::from(path)),
        }
    }
}

impl Field for Duration {
    fn read(value: &Value) -> Result<Self, String> {
        value
            .as_float()
            .and_then(|seconds| Self::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| "expected seconds".to_owned())
    }

    fn is_none(value: &Value) -> bool {
        matches!(value, Value::Unset) || value.as_float() == Some(0.0)
    }
}

impl Field for Vec<String> {
    fn read(value: &Value) -> Result<Self, String> {
        value.to_list().ok_or_else(|| "expected a list of strings".to_owned())
    }
}

/// Flags without a value, and `-X` and `-W` with theirs. Others would end the command line or run something else.
impl Field for PythonOptions {
    fn read(value: &Value) -> Result<Self, String> {
        let unexpected = || "expected an option of Python, such as -X dev".to_owned();
        let mut words = Vec::new();
        for item in <Vec<String>>::read(value)? {
            let mut rest = item.split_whitespace();
            while let Some(word) = rest.next() {
                let takes_value = word == "-X" || word == "-W";
                let flags = word.strip_prefix('-').filter(|flags| !flags.is_empty());
                let flags = flags.ok_or_else(unexpected)?;
                if !takes_value
                    && !flags.starts_with(['X', 'W'])
                    && !flags.chars().all(|flag| PYTHON_FLAGS.contains(flag))
                {
                    return Err(unexpected());
                }
                words.push(word.to_owned());
                if takes_value {
                    words.push(rest.next().ok_or_else(unexpected)?.to_owned());
                }
            }
        }
        Ok(Self(words))
    }
}

impl Field for Vec<PathBuf> {
    fn read(value: &Value) -> Result<Self, String> {
        Ok(<Vec<String>>::read(value)?.into_iter().map(PathBuf::from).collect())
    }
}

impl Field for Vec<Bind> {
    fn read(value: &Value) -> Result<Self, String> {
        let addresses = <Vec<String>>::read(value)?;
        if addresses.is_empty() {
            return Err("expected at least one address".to_owned());
        }
        addresses.iter().map(|text| Bind::parse(text)).collect()
    }
}

/// Pairs of names and values: a map, or a list of `name=value`.
impl Field for Vec<(String, String)> {
    fn read(value: &Value) -> Result<Self, String> {
        let pair = |item: &String| {
            item.split_once('=')
                .filter(|(name, value)| {
                    !name.is_empty() && !item.contains('\0') && value.len() < PAIR_MAX
                })
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .ok_or_else(|| "expected NAME=VALUE".to_owned())
        };
        <Vec<String>>::read(value)?.iter().map(pair).collect()
    }
}

impl Field for LogTarget {
    fn read(value: &Value) -> Result<Self, String> {
        Ok(match value.as_str() {
            Some("-") => Self::Stream,
            _ => Self::File(PathBuf::read(value)?),
        })
    }
}

impl Field for AccessFormat {
    fn read(value: &Value) -> Result<Self, String> {
        Self::compile(value.as_str().unwrap_or_default())
    }
}

impl Field for Account {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or_default();
        if let Ok(uid) = text.parse() {
            let user = User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
            return Ok(Self { uid, name: user.map(|user| user.name) });
        }
        match User::from_name(text) {
            Ok(Some(user)) => Ok(Self { uid: user.uid.as_raw(), name: Some(user.name) }),
            _ => Err("expected a user of this system".to_owned()),
        }
    }
}

impl Field for GroupId {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or_default();
        if let Ok(gid) = text.parse() {
            return Ok(Self(gid));
        }
        match Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            _ => Err("expected a group of this system".to_owned()),
        }
    }
}

impl Field for ClientCertificate {
    fn read(value: &Value) -> Result<Self, String> {
        let chosen = value.as_int().and_then(|number| Self::from_word(&number.to_string()));
        chosen.ok_or_else(|| "expected 0, 1 or 2".to_owned())
    }
}

impl Field for TrustedPeers {
    fn read(value: &Value) -> Result<Self, String> {
        let peers = <Vec<String>>::read(value)?;
        if peers.iter().all(|peer| is_network(peer)) {
            Ok(Self(peers))
        } else {
            Err("expected \"*\", addresses or networks".to_owned())
        }
    }
}

impl Field for StatsdHost {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or_default();
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if !host.is_empty() => Ok(Self::Udp { host: host.to_owned(), port }),
            _ => Err("expected HOST:PORT or unix:PATH".to_owned()),
        }
    }
}

impl Field for SyslogAddress {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or_default();
        if text.starts_with("tcp://") || text.ends_with("#stream") {
            return Err("syslog over a stream socket is not supported: use udp://HOST:PORT, or unix://PATH for a \
                        datagram socket such as /dev/log"
                .to_owned());
        }
        if let Some(path) = text.strip_prefix("unix://") {
            let path = path.strip_suffix("#dgram").unwrap_or(path);
            return Ok(Self::Unix(path.into()));
        }
        let Some(rest) = text.strip_prefix("udp://") else {
            return Err("expected udp://HOST:PORT or unix://PATH".to_owned());
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, "514"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { "localhost" } else { host };
        match port.parse() {
            Ok(port) => Ok(Self::Udp { host: host.to_owned(), port }),
            Err(_) => Err("expected udp://HOST:PORT or unix://PATH".to_owned()),
        }
    }
}

impl Field for SyslogFacility {
    fn read(value: &Value) -> Result<Self, String> {
        let place = Self::WORDS.iter().position(|word| Some(*word) == value.as_str());
        // The last word is an old name of "auth". From "local0" on the numbers start at 16.
        match place {
            Some(place @ 0..=11) => Ok(Self(place as u8)),
            Some(place @ 12..=19) => Ok(Self(place as u8 + 4)),
            Some(_) => Ok(Self(4)),
            None => Err(format!("expected one of {}", Self::WORDS.join(", "))),
        }
    }
}

/// `*`, an address, or an address with a valid prefix length.
fn is_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return text == "*" };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
}

/// execve(2) refuses a longer environment string (`MAX_ARG_STRLEN`).
const PAIR_MAX: usize = 128 * 1024;
/// Flags of Python without a value that do not end its command line.
const PYTHON_FLAGS: &str = "bBdEIOPqsSuvx";
