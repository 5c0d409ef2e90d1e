//! The settings for connections and requests, read once in each worker process.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use worker_api::{Failure, HeaderMap, Host, ProxyProtocol, Result, Tls};

use crate::spool;
use jimu_http1::Policy;
use jimu_http1::forwarded::{SchemeRules, TrustedPeers};

/// The settings of a worker's connections. `None` for a duration means "no limit".
#[derive(Debug)]
pub struct Config {
    /// The parser's limits and permissions, for untrusted and for trusted peers.
    policies: [Policy; 2],
    /// The headers by which a trusted peer reports that it was reached by https.
    pub(crate) schemes: SchemeRules,
    /// How long a connection may wait for its next request; `None` if each connection serves one request.
    pub keepalive: Option<Duration>,
    /// How long a client may take to send a request's head.
    pub header_timeout: Option<Duration>,
    /// How long the transfer of a request body may stall.
    pub body_timeout: Option<Duration>,
    /// How long a client may accept no byte of its response.
    pub write_timeout: Option<Duration>,
    /// How long a request may take in total.
    pub request_timeout: Option<Duration>,
    /// The minimum rate of a body in bytes per second, received or sent; 0 for none.
    pub min_rate: u64,
    /// Peers whose forwarding headers are trusted.
    pub forwarded_allow: TrustedPeers,
    /// The PROXY protocol versions with which connections may begin.
    pub proxy_protocol: ProxyProtocol,
    /// Peers that may use the PROXY protocol.
    pub proxy_allow: TrustedPeers,
    /// The TLS configuration; `None` for plain connections.
    pub tls: Option<Tls>,
    /// The value of the Server header; `None` if it is off.
    pub server: Option<String>,
    /// Whether error responses include the failure's chain.
    pub debug_errors: bool,
    /// Whether files are sent with `sendfile(2)`.
    pub sendfile: bool,
    /// The maximum number of connections of a worker.
    pub worker_connections: usize,
    /// How long a stopping worker may take.
    pub graceful_timeout: Duration,
    /// The heartbeat timeout. A class waits for up to half of it without a heartbeat.
    pub timeout: Option<Duration>,
    /// Whether queueing times are measured: metrics or the status page are enabled.
    pub(crate) measures_queueing: bool,
    /// The number of requests after which a worker asks to be replaced, jitter included; 0 for never.
    pub max_requests: u64,
}

impl Config {
    /// Checks the settings. Called by a class's `setup` in the mold, so that invalid settings are rejected
    /// before a worker exists. Also creates what the workers share, such as the secret of the TLS session
    /// tickets.
    pub fn check(host: &Host) -> Result<()> {
        spool::check_directory(host)?;
        Self::read(host).map(drop)
    }

    /// Reads the settings of a worker.
    pub fn read(host: &Host) -> Result<Self> {
        let policy = read_policy(host)?;
        Ok(Self {
            policies: [policy.for_strangers(), policy],
            schemes: SchemeRules::new(pairs(&host.setting_list("secure_scheme_headers"))),
            keepalive: host.setting_duration("keepalive"),
            header_timeout: host.setting_duration("header_timeout"),
            body_timeout: host.setting_duration("body_timeout"),
            write_timeout: host.setting_duration("write_timeout"),
            request_timeout: host.setting_duration("request_timeout"),
            min_rate: host.setting_usize("min_rate").unwrap_or_default() as u64,
            forwarded_allow: read_peers(host, "forwarded_allow_ips")?,
            proxy_protocol: host.setting_choice("proxy_protocol")?.unwrap_or(ProxyProtocol::Off),
            proxy_allow: read_peers(host, "proxy_allow_ips")?,
            tls: host.tls(&PROTOCOLS)?,
            server: host.setting_bool("server_header").then(|| SERVER.to_owned()),
            debug_errors: host.setting_bool("debug_errors"),
            sendfile: host.setting_bool("sendfile"),
            worker_connections: host
                .setting_usize("worker_connections")
                .unwrap_or(WORKER_CONNECTIONS),
            graceful_timeout: host.setting_duration("graceful_timeout").unwrap_or_default(),
            timeout: host.setting_duration("timeout"),
            measures_queueing: ["metrics_bind", "status_bind", "max_workers"]
                .iter()
                .any(|setting| host.setting(setting).is_some()),
            max_requests: read_max_requests(host),
        })
    }

    /// Returns the parser's policy for a trusted or an untrusted peer.
    pub fn policy(&self, trusted_peer: bool) -> &Policy {
        &self.policies[usize::from(trusted_peer)]
    }
}

fn read_policy(host: &Host) -> Result<Policy> {
    let defaults = Policy::default();
    let header_map = host.setting_choice("header_map")?.unwrap_or(HeaderMap::Drop);
    Ok(Policy {
        limit_request_line: host
            .setting_usize("limit_request_line")
            .unwrap_or(defaults.limit_request_line),
        limit_request_fields: host
            .setting_usize("limit_request_fields")
            .unwrap_or(defaults.limit_request_fields),
        limit_request_field_size: host
            .setting_usize("limit_request_field_size")
            .unwrap_or(defaults.limit_request_field_size),
        limit_request_body: host.setting_usize("limit_request_body").unwrap_or_default() as u64,
        header_map,
        forwarder_headers: host.setting_list("forwarder_headers"),
        permit_obsolete_folding: host.setting_bool("permit_obsolete_folding"),
        permit_unconventional_http_method: host.setting_bool("permit_unconventional_http_method"),
        permit_unconventional_http_version: host.setting_bool("permit_unconventional_http_version"),
        casefold_http_method: host.setting_bool("casefold_http_method"),
    })
}

fn read_peers(host: &Host, setting: &str) -> Result<TrustedPeers> {
    TrustedPeers::parse(&host.setting_list(setting))
        .map_err(|error| Failure::config(format!("{setting}: {error}")))
}

/// Splits each `NAME=value` of a list.
fn pairs(items: &[String]) -> Vec<(String, String)> {
    let pair = |item: &String| {
        item.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    items.iter().filter_map(pair).collect()
}

/// Returns `max_requests` plus a random part of `max_requests_jitter`, different in each worker.
fn read_max_requests(host: &Host) -> u64 {
    let most = host.setting_usize("max_requests").unwrap_or_default() as u64;
    let jitter = host.setting_usize("max_requests_jitter").unwrap_or_default() as u64;
    if most == 0 {
        return 0;
    }
    // The seed of a new hasher is random enough for this.
    let random = RandomState::new().build_hasher().finish();
    most + random % (jitter + 1)
}

/// A client that offers only other protocols is rejected (RFC 7301 3.2), so every version that the kit supports is listed.
const PROTOCOLS: [&str; 2] = ["http/1.1", "http/1.0"];
/// The value of the Server header.
const SERVER: &str = "jimu";
/// The limit of connections without the setting: gunicorn's default.
const WORKER_CONNECTIONS: usize = 1000;
