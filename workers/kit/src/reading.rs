//! From an accepted connection, or the end of a response, to a complete head.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use worker_api::{Interest, PlainHttp, Version};

use crate::active_request::ActiveRequest;
use crate::clock::now_ns;
use crate::context::record_line;
use crate::deadline::Deadline;
use crate::io::Io;
use crate::owned_head::Owned;
use crate::socket::{Endpoint, Local};
use crate::state::{HeadReader, Proxy, State, Step, Then};
use jimu_http1::proxy::{ProxyHeader, parse_proxy};
use jimu_http1::{HeadScan, Reject, Scan};

impl Proxy {
    /// Reads a PROXY header; a connection that begins with something else is served as it is.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        let allowed = io.context.config.proxy_allow.contains(io.peer.ip);
        loop {
            if !io.input.is_empty() {
                match parse_proxy(io.input.unused(), io.context.config.proxy_protocol, allowed) {
                    Ok(None) => {}
                    Ok(Some((length, header))) => {
                        io.input.consume(length);
                        io.take_endpoints(header);
                        return Step::Enter(HeadReader::begin_http(io, self.waits_since_ns));
                    }
                    Err(reject) => return Step::Enter(io.refuse(&reject)),
                }
            }
            match io.fill() {
                Ok(0) => return Step::CLOSE,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Step::Wait(Interest::READ);
                }
                Err(_) => return Step::CLOSE,
            }
        }
    }
}

impl HeadReader {
    /// Starts HTTP, over TLS if configured.
    pub(crate) fn begin_http(io: &mut Io, waits_since_ns: u64) -> State {
        if let Some(tls) = io.context.config.tls.as_ref().filter(|_| !io.local.private) {
            let already_read = io.input.take();
            if let Err(error) = io.stream.start_tls(tls, &already_read) {
                return io.refuse_tls(&error);
            }
            if let Some(session) = io.stream.session() {
                io.wire.encrypt_with(session);
            }
        }
        State::Head(Self {
            scan: HeadScan::default(),
            readable: true,
            kept_alive: false,
            began_ns: 0,
            waits_since_ns,
        })
    }

    /// Reads until a head is complete.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        let mut readable = std::mem::replace(&mut self.readable, true);
        loop {
            if !io.input.is_empty() {
                match self.scan.advance(io.input.unused(), io.context.config.policy(false)) {
                    Ok(Scan::Complete) => return begin(io),
                    Ok(Scan::Incomplete) => self.set_deadline(io),
                    Err(reject) => return Step::Enter(io.refuse(&reject)),
                }
            }
            if !readable {
                io.release();
                return Step::Wait(io.stream.read_interest());
            }
            match io.fill() {
                Ok(0) => return io.close_cleanly(),
                Ok(_) => readable = !io.emptied,
                Err(error) if error.kind() == ErrorKind::WouldBlock => readable = false,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return Step::Enter(io.refuse_tls(&error));
                }
                Err(error) => {
                    tracing::debug!("connection from {} closed: {error}", io.peer.host);
                    return Step::CLOSE;
                }
            }
        }
    }

    /// Sets the deadline of an incomplete head: `header_timeout` after the accept, or after the first byte on
    /// a kept-alive connection, and earlier if the head arrives more slowly than `min_rate`.
    fn set_deadline(&mut self, io: &mut Io) {
        if self.began_ns == 0 {
            self.began_ns = now_ns();
            if self.kept_alive {
                self.waits_since_ns = self.began_ns;
            }
        }
        let config = &io.context.config;
        let complete = Deadline::after(self.waits_since_ns, config.header_timeout);
        let bytes = io.input.unused().len() as u64;
        let earned_ns = (bytes * 1_000_000_000).checked_div(config.min_rate);
        let slow = earned_ns.map_or(Deadline::NEVER, |earned_ns| {
            Deadline::after(self.began_ns, Some(HEAD_GRACE)).later_by(earned_ns)
        });
        io.deadline = complete.min(slow);
    }
}

/// Parses a complete head and starts its request.
fn begin(io: &mut Io) -> Step {
    let bytes = io.input.take();
    if io.tls.is_none() {
        io.tls = io.stream.tls_facts().map(Arc::new);
    }
    let owned = Owned {
        bytes,
        peer: Arc::clone(&io.peer),
        local: Arc::clone(&io.local),
        tls: io.tls.clone(),
    };
    match ActiveRequest::begin(&io.context, owned) {
        Ok((active, following)) => {
            io.input.prepend(following);
            Step::Begin(active)
        }
        Err(refused) => Step::Enter(io.refuse_line(&refused.reject, first_line(&refused.bytes))),
    }
}

impl Io {
    /// Responds to an invalid request with an error and discards the rest of the input.
    pub(crate) fn refuse(&mut self, reject: &Reject) -> State {
        let line = first_line(self.input.unused()).to_vec();
        self.refuse_line(reject, &line)
    }

    fn refuse_line(&mut self, reject: &Reject, line: &[u8]) -> State {
        tracing::warn!(
            "invalid request from {}: {} ({})",
            self.peer.host,
            reject.reason,
            reject.status
        );
        let detail = self.context.config.debug_errors.then_some(&*reject.reason);
        let answer = self.context.error_response(
            Version::HTTP_11,
            line.starts_with(b"HEAD "),
            reject.status,
            detail,
        );
        self.output.append().extend_from_slice(&answer);
        record_line(&self.context.host, line, self.peer.address(), reject.status, 0);
        let unused = self.input.unused().len();
        self.input.consume(unused);
        State::flush(self, Then::Linger, None)
    }

    /// Ends a connection on which TLS has failed, so that the client can read the reason.
    fn refuse_tls(&mut self, error: &io::Error) -> State {
        self.stream.leave_tls();
        if matches!(error.get_ref(), Some(inner) if inner.is::<PlainHttp>()) {
            return self.refuse(&Reject::new(400, "plain HTTP request on a TLS listener"));
        }
        tracing::debug!("TLS with {} failed: {error}", self.peer.host);
        State::flush(self, Then::Linger, None)
    }

    /// Replaces the connection's endpoints with those from the PROXY header.
    fn take_endpoints(&mut self, header: ProxyHeader) {
        if let ProxyHeader::Proxied { source, destination } = header {
            self.peer = Arc::new(Endpoint::from_ip(source));
            self.local = Arc::new(Local {
                end: Endpoint::from_ip(destination),
                unix: false,
                private: false,
                proxied: true,
            });
        }
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    &bytes[..end.min(LINE_LOGGED_MAX)]
}

/// The minimum time for a head, however few bytes of it arrive: a packet may be lost, and its retransmission too.
const HEAD_GRACE: Duration = Duration::from_secs(5);
/// The most bytes of a rejected request line that are logged.
const LINE_LOGGED_MAX: usize = 256;
