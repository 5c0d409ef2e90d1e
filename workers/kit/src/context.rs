//! What all connections of a worker share: settings, the host's services, and the server's state.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use worker_api::abi::std_types::{ROption, RSlice};
use worker_api::{AccessRecord, Address, Header, Host, Result, Version, fork};

use crate::background::Background;
use crate::batches::Batches;
use crate::clock;
use crate::config::Config;
use crate::relay::Relay;
use crate::spool::{Buffering, Buffers};
use crate::wire::Wires;
use jimu_http1::date::DateCache;
use jimu_http1::{ResponseContext, ResponseStyle, error_answer, left_out};

/// The shared state of one worker process, created once.
#[derive(Debug)]
pub struct ServerContext {
    /// The host's services.
    pub host: Host,
    /// The settings.
    pub config: Config,
    /// The application's work outside of requests: a draining worker waits until it is idle.
    pub background: Arc<Background>,
    /// Limits for buffering on behalf of slow clients; `None` if the class's threads do not wait for clients.
    pub(crate) buffers: Option<Arc<Buffers>>,
    pub(crate) style: ResponseStyle,
    pub(crate) wants_response_headers: bool,
    draining: AtomicBool,
    stuck: AtomicBool,
    requests: AtomicU64,
    /// Which thread responds on each connection.
    pub(crate) wires: Wires,
    /// The responses to pipelined requests that wait for the next one.
    pub(crate) batches: Batches,
    /// Serves the TLS connections that applications took over.
    relay: OnceLock<Relay>,
    /// Whether a removed hop-by-hop header has been logged.
    warned_of_removed_header: AtomicBool,
    /// When evicted connections were last logged, in monotonic nanoseconds; 0 for never.
    eviction_logged_ns: AtomicU64,
}

impl ServerContext {
    /// Reads the settings; `keep_alive` is whether the class serves several requests on a connection.
    pub fn new(host: Host, keep_alive: bool) -> Result<Arc<Self>> {
        Self::with_style(host, keep_alive, ResponseStyle::GUNICORN)
    }

    /// Like [`ServerContext::new`], for a class whose threads block: the request of a slow client is buffered
    /// before the application is called, and its response after the application has returned.
    pub fn with_buffers(host: Host, keep_alive: bool, buffering: Buffering) -> Result<Arc<Self>> {
        let buffers = Buffers::read(&host, buffering);
        Self::build(host, keep_alive, ResponseStyle::GUNICORN, buffers)
    }

    /// Like [`ServerContext::new`], for a class with its own response style.
    pub fn with_style(host: Host, keep_alive: bool, style: ResponseStyle) -> Result<Arc<Self>> {
        Self::build(host, keep_alive, style, None)
    }

    fn build(
        host: Host,
        keep_alive: bool,
        style: ResponseStyle,
        buffers: Option<Arc<Buffers>>,
    ) -> Result<Arc<Self>> {
        fork::watch();
        let mut config = Config::read(&host)?;
        if !style.names_server {
            config.server = None;
        }
        if !keep_alive {
            config.keepalive = None;
        }
        let wants_response_headers = host.wants_response_headers();
        Ok(Arc::new(Self {
            host,
            config,
            background: Arc::default(),
            buffers,
            style,
            wants_response_headers,
            draining: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            wires: Wires::default(),
            batches: Batches::default(),
            relay: OnceLock::new(),
            warned_of_removed_header: AtomicBool::new(false),
            eviction_logged_ns: AtomicU64::new(0),
        }))
    }

    /// Makes every response from now on close its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether the worker is draining.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Marks the application as not responding: see [`ServerContext::is_stuck`].
    pub(crate) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Release);
    }

    /// Returns whether the application as a whole does not respond. Such a worker does not accept
    /// connections, since it could not serve them; a replacement has been requested.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Counts a request and returns its number. After `max_requests` the worker asks to be replaced.
    pub(crate) fn count_request(&self) -> u64 {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if number == self.config.max_requests {
            tracing::info!("{number} requests served: requesting a replacement (max_requests)");
            self.host.retire();
        }
        number
    }

    /// Returns the relay for TLS connections that applications took over. The first call starts it.
    pub(crate) fn relay(&self) -> io::Result<&Relay> {
        if let Some(relay) = self.relay.get() {
            return Ok(relay);
        }
        let started = Relay::start()?;
        Ok(self.relay.get_or_init(|| started))
    }

    /// Logs the hop-by-hop header that was removed from a response: once, because further responses are
    /// likely to have it too.
    #[cold]
    pub(crate) fn warn_of_removed_header(&self, headers: &[Header<'_>], status: u16) {
        if !self.warned_of_removed_header.swap(true, Ordering::Relaxed)
            && let Some(name) = left_out(headers, status)
        {
            tracing::warn!(
                "response header {name} removed: it is hop-by-hop, and the server manages the connection \
                 (logged once per worker)"
            );
        }
    }

    /// Returns whether evictions may be logged now: true at most once a minute.
    pub(crate) fn may_log_eviction(&self, now_ns: u64) -> bool {
        let last_ns = self.eviction_logged_ns.load(Ordering::Relaxed);
        let may_log = last_ns == 0 || now_ns.saturating_sub(last_ns) >= MINUTE_NS;
        if may_log {
            self.eviction_logged_ns.store(now_ns, Ordering::Relaxed);
        }
        may_log
    }

    /// Returns the current value of the Date header.
    pub(crate) fn date() -> [u8; 29] {
        DATE.with_borrow_mut(|date| *date.at(clock::unix_seconds()))
    }

    /// Encodes an error response, which closes the connection.
    pub(crate) fn error_response(
        &self,
        version: Version,
        is_head_method: bool,
        status: u16,
        detail: Option<&str>,
    ) -> Vec<u8> {
        let date = Self::date();
        let context = ResponseContext {
            version,
            head_method: is_head_method,
            style: self.style,
            ..ResponseContext::refusal(self.config.server.as_deref(), &date)
        };
        error_answer(&context, status, detail)
    }

    /// Returns the number of requests that this worker has started.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Reports the end of a request whose head is not available: it is invalid, or belongs to a thread that hangs.
pub(crate) fn record_line(
    host: &Host,
    request_line: &[u8],
    peer: Address<'_>,
    status: u16,
    duration_ns: u64,
) {
    let record = AccessRecord {
        head: ROption::RNone,
        request_line: request_line.into(),
        peer,
        status,
        body_bytes: 0,
        duration_ns,
        response_headers: RSlice::EMPTY,
    };
    host.request_ended(0, &record);
}

const MINUTE_NS: u64 = 60_000_000_000;

thread_local! {
    static DATE: RefCell<DateCache> = const { RefCell::new(DateCache::EPOCH) };
}
