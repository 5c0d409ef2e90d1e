//! What all connections of a worker share: settings, the host's services, the server's own state.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use worker_api::{Header, Host, Result, Version, fork};

use crate::background::Background;
use crate::clock;
use crate::config::Config;
use crate::relay::Relay;
use crate::spool::Buffers;
use crate::wire::Wires;
use http1::date::DateCache;
use http1::{ResponseContext, ResponseStyle, error_answer, left_out};

/// The kit of one worker process: made once, shared by its connections.
#[derive(Debug)]
pub struct ServerContext {
    /// The host's services.
    pub host: Host,
    /// The settings.
    pub config: Config,
    /// What the application does beside requests: a worker that ends waits until it is idle.
    pub background: Arc<Background>,
    /// Bounds what is buffered for slow clients; `None` where the class's threads do not wait for them.
    pub(crate) buffers: Option<Arc<Buffers>>,
    pub(crate) style: ResponseStyle,
    pub(crate) wants_response_headers: bool,
    draining: AtomicBool,
    stuck: AtomicBool,
    requests: AtomicU64,
    /// Who answers the requests of its connections.
    pub(crate) wires: Wires,
    /// Serves the connections with TLS that applications took over.
    relay: OnceLock<Relay>,
    /// Whether a hop-by-hop header that was left out has been logged.
    warned_of_left_out: AtomicBool,
    /// When connections that gave way to others were logged last, in monotonic nanoseconds; 0 for never.
    crowd_noted_ns: AtomicU64,
}

impl ServerContext {
    /// Reads the settings; `keep_alive` is whether the class serves several requests on a connection.
    pub fn new(host: Host, keep_alive: bool) -> Result<Arc<Self>> {
        Self::with_style(host, keep_alive, ResponseStyle::GUNICORN)
    }

    /// As [`ServerContext::new`], for a class whose threads block: a slow client's request is buffered before the application is
    /// called, and its response after the application has returned.
    pub fn with_buffers(host: Host, keep_alive: bool) -> Result<Arc<Self>> {
        let buffers = Buffers::read(&host);
        Self::build(host, keep_alive, ResponseStyle::GUNICORN, buffers)
    }

    /// As [`ServerContext::new`], for a class with words of its own.
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
        let context = Arc::new(Self {
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
            relay: OnceLock::new(),
            warned_of_left_out: AtomicBool::new(false),
            crowd_noted_ns: AtomicU64::new(0),
        });
        let of_abort = Arc::downgrade(&context);
        context.host.at_abort(move || {
            if let Some(context) = of_abort.upgrade() {
                context.wires.answer_all(&context);
            }
        });
        Ok(context)
    }

    /// From now on every response says that its connection is closed after it.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the worker is finishing.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The application does not respond: see [`ServerContext::is_stuck`].
    pub(crate) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Release);
    }

    /// Whether the application as a whole does not respond. Such a worker accepts nothing: it would not serve it. A
    /// successor is on its way.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Counts a request, and gives it its number. The worker that has served its share asks to be replaced.
    pub(crate) fn count_request(&self) -> u64 {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if number == self.config.max_requests {
            tracing::info!("{number} requests served: asking to be replaced (max_requests)");
            self.host.retire();
        }
        number
    }

    /// What serves the connections with TLS that applications took over; started by the first.
    pub(crate) fn relay(&self) -> io::Result<&Relay> {
        if let Some(relay) = self.relay.get() {
            return Ok(relay);
        }
        let started = Relay::start()?;
        Ok(self.relay.get_or_init(|| started))
    }

    /// Logs the hop-by-hop header that a response of the application lost: once, because the next response has it too.
    #[cold]
    pub(crate) fn warn_of_left_out(&self, headers: &[Header<'_>], status: u16) {
        if !self.warned_of_left_out.swap(true, Ordering::Relaxed)
            && let Some(name) = left_out(headers, status)
        {
            tracing::warn!(
                "response header {name} left out: it is hop-by-hop, and the connection belongs to the server \
                 (logged once per worker)"
            );
        }
    }

    /// Whether it is a minute since this returned true.
    pub(crate) fn is_news_of_crowd(&self, now_ns: u64) -> bool {
        let last_ns = self.crowd_noted_ns.load(Ordering::Relaxed);
        let is_news = last_ns == 0 || now_ns.saturating_sub(last_ns) >= MINUTE_NS;
        if is_news {
            self.crowd_noted_ns.store(now_ns, Ordering::Relaxed);
        }
        is_news
    }

    /// The value of the Date field now.
    pub(crate) fn date() -> [u8; 29] {
        DATE.with_borrow_mut(|date| *date.at(clock::unix_seconds()))
    }

    /// An error answer, which closes the connection.
    pub(crate) fn error_answer(
        &self,
        version: Version,
        head_method: bool,
        status: u16,
        detail: Option<&str>,
    ) -> Vec<u8> {
        let context = ResponseContext {
            version,
            head_method,
            connect: false,
            upgrade: false,
            keep_alive: false,
            server: self.config.server.as_deref(),
            date: &Self::date(),
            style: self.style,
        };
        error_answer(&context, status, detail)
    }

    /// How many requests this worker has begun.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

const MINUTE_NS: u64 = 60_000_000_000;

thread_local! {
    static DATE: RefCell<DateCache> = const { RefCell::new(DateCache::EPOCH) };
}
