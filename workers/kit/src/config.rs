//! The settings that concern connections and requests, read once in each worker process.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use worker_api::{Failure, Host, Result};

use crate::{spool, tls};
use http1::forwarded::{SchemeRules, TrustedPeers};
use http1::proxy::ProxyProtocol;
use http1::{HeaderMap, Policy};

/// What a worker's connections are served by. Durations that are nothing mean "no limit".
#[derive(Debug)]
pub struct Config {
    /// What the parser takes and refuses: from peers that are believed, and from others.
    policies: [Policy; 2],
    /// How a believed peer says that it was reached by https.
    pub(crate) schemes: SchemeRules,
    /// How long a connection may wait for its next request; nothing where each request has its own connection.
    pub keepalive: Option<Duration>,
    /// How long a client may take for a request's head.
    pub header_timeout: Option<Duration>,
    /// How long a body may stand still.
    pub body_timeout: Option<Duration>,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Option<Duration>,
    /// How long a request may take altogether.
    pub request_timeout: Option<Duration>,
    /// Bytes a second below which a body is too slow, sent or received; 0: no bound.
    pub min_rate: u64,
    /// Peers whose forwarding fields are believed.
    pub forwarded_allow: TrustedPeers,
    /// Which forms of the PROXY protocol connections may begin with.
    pub proxy_protocol: ProxyProtocol,
    /// Peers that may speak it.
    pub proxy_allow: TrustedPeers,
    /// How to speak TLS; nothing where connections are plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// The value of the Server field; nothing where it is off.
    pub server: Option<String>,
    /// Whether error answers tell the failure's chain.
    pub debug_errors: bool,
    /// Whether files go out by `sendfile(2)`.
    pub sendfile: bool,
    /// How many connections a worker holds at most.
    pub worker_connections: usize,
    /// How long a stopping worker may take.
    pub graceful_timeout: Option<Duration>,
    /// The heartbeat's limit; half of it is the longest that a class waits without one.
    pub timeout: Option<Duration>,
    /// Whether somebody may ask how long requests are queued.
    pub(crate) notes_queueing: bool,
    /// After how many requests a worker asks to be replaced, jitter included; 0: never.
    pub max_requests: u64,
}

impl Config {
    /// Checks the settings: for a class's `setup`, in the mold, so that wrong ones are refused before a worker exists.
    /// What workers share, such as the secret of TLS session tickets, is made here too.
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
            proxy_protocol: read_proxy_protocol(host)?,
            proxy_allow: read_peers(host, "proxy_allow_ips")?,
            tls: tls::read_settings(host)?,
            server: host.setting_bool("server_header").then(|| SERVER.to_owned()),
            debug_errors: host.setting_bool("debug_errors"),
            sendfile: host.setting_bool("sendfile"),
            worker_connections: host
                .setting_usize("worker_connections")
                .unwrap_or(WORKER_CONNECTIONS),
            graceful_timeout: host.setting_duration("graceful_timeout"),
            timeout: host.setting_duration("timeout"),
            notes_queueing: ["metrics_bind", "status_bind"]
                .iter()
                .any(|setting| host.setting(setting).is_some()),
            max_requests: read_max_requests(host),
        })
    }

    /// The parser's policy for a peer that is believed, or is not.
    pub fn policy(&self, trusted_peer: bool) -> &Policy {
        &self.policies[usize::from(trusted_peer)]
    }
}

fn read_policy(host: &Host) -> Result<Policy> {
    let defaults = Policy::default();
    let header_map = match host.setting_text("header_map").as_deref() {
        None | Some("drop") => HeaderMap::Drop,
        Some("refuse") => HeaderMap::Refuse,
        Some("dangerous") => HeaderMap::Dangerous,
        Some(other) => {
            return Err(Failure::config(format!(
                "header_map: `{other}` is none of drop, refuse, dangerous"
            )));
        }
    };
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

fn read_proxy_protocol(host: &Host) -> Result<ProxyProtocol> {
    match host.setting_text("proxy_protocol").as_deref() {
        None | Some("off") => Ok(ProxyProtocol::Off),
        Some("v1") => Ok(ProxyProtocol::V1),
        Some("v2") => Ok(ProxyProtocol::V2),
        Some("auto") => Ok(ProxyProtocol::Auto),
        Some(other) => {
            Err(Failure::config(format!("proxy_protocol: `{other}` is none of off, v1, v2, auto")))
        }
    }
}

/// The pairs of a list of `NAME=value`.
fn pairs(items: &[String]) -> Vec<(String, String)> {
    let pair = |item: &String| {
        item.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    items.iter().filter_map(pair).collect()
}

/// `max_requests` and a share of `max_requests_jitter` that differs from worker to worker.
fn read_max_requests(host: &Host) -> u64 {
    let most = host.setting_usize("max_requests").unwrap_or_default() as u64;
    let jitter = host.setting_usize("max_requests_jitter").unwrap_or_default() as u64;
    if most == 0 {
        return 0;
    }
    // A fresh hasher is seeded at random: all the chance that is needed here.
    let chance = RandomState::new().build_hasher().finish();
    most + chance % (jitter + 1)
}

/// The value of the Server field.
const SERVER: &str = "jimu";
/// The bound of connections where there is no setting: gunicorn's default.
const WORKER_CONNECTIONS: usize = 1000;
