//! From an accepted connection, or the end of a response, to a complete head.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use worker_api::{Interest, PlainHttp, Version};

use crate::active_request::ActiveRequest;
use crate::clock::now_ns;
use crate::context::record_line;
use crate::deadline::Deadline;
use crate::ends::{Endpoint, Ends, Local};
use crate::io::Io;
use crate::owned_head::Owned;
use crate::state::{HeadReader, Proxy, State, Step, Then};
use crate::wire::Wire;
use jimu_http1::proxy::{ProxyHeader, parse_proxy};
use jimu_http1::{HeadScan, Reject, Scan};

impl Proxy {
    /// Reads a PROXY header; a connection that begins with something else is served as it is.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        let protocol = io.context.config.proxy_protocol;
        loop {
            if !io.input.is_empty() {
                match parse_proxy(io.input.unused(), protocol, self.is_allowed) {
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
        if let Some(tls) = io.context.config.tls.as_ref().filter(|_| !io.ends().local.private) {
            let already_read = io.input.take();
            if let Err(error) = io.stream.start_tls(tls, &already_read) {
                return io.refuse_tls(&error);
            }
            if let Some(session) = io.stream.session() {
                // SAFETY: the connection owns its wire, and has had no request.
                unsafe { io.wire.encrypt_with(session) };
            }
        }
        State::Head(Self {
            scan: None,
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
                match self.scan(io) {
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
                    tracing::debug!("connection from {} closed: {error}", io.ends().peer.host);
                    return Step::CLOSE;
                }
            }
        }
    }

    /// Scans the bytes that have arrived.
    fn scan(&mut self, io: &Io) -> Result<Scan, Reject> {
        let (bytes, policy) = (io.input.unused(), io.context.config.policy(false));
        if let Some(scan) = &mut self.scan {
            return scan.advance(bytes, policy);
        }
        let mut scan = HeadScan::new();
        let outcome = scan.advance(bytes, policy)?;
        if outcome == Scan::Incomplete {
            self.scan = Some(Box::new(scan));
        }
        Ok(outcome)
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
    let owned = Owned { bytes, wire: Arc::clone(&io.wire), tls: io.tls.clone() };
    match ActiveRequest::begin(&io.context, owned, io.trusts_peer) {
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
            self.ends().peer.host,
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
        record_line(&self.context.host, line, self.ends().peer.address(), reject.status, 0);
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
        tracing::debug!("TLS with {} failed: {error}", self.ends().peer.host);
        State::flush(self, Then::Linger, None)
    }

    /// Replaces the connection's endpoints with those from the PROXY header.
    fn take_endpoints(&mut self, header: ProxyHeader) {
        if let ProxyHeader::Proxied { source, destination } = header {
            let (peer, end) = (Endpoint::from_ip(source), Endpoint::from_ip(destination));
            let local = Local { end, unix: false, private: false, proxied: true };
            self.wire = Wire::new(Ends { peer, local: Arc::new(local) });
            self.context.wires.add(self.stream.fd(), &self.wire);
            let ip = source.ip().to_canonical();
            self.trusts_peer = self.context.config.forwarded_allow.contains(Some(ip));
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
