//! A connection between requests: from accepting it to a complete head, and from the end of a response to the
//! next head or the end.
//!
//! Every worker class drives it in the same way: [`Connection::advance`] whenever its descriptor is ready,
//! [`Connection::expire`] when its deadline has passed, [`Connection::into_exchange`] when a request has arrived.
//! The module `exchange` handles what happens within a request.
//!
//! ```text
//!   Proxy ──> Head ──complete──> (Intake) ──> Exchange ──> Flush ──> Drain ──> Head        (kept alive)
//!                └──rejected─────────┴───────────────────────^  └──────> Linger ──> Closed
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use worker_api::raw::ExchangeBox;
use worker_api::{Interest, Version, fork};

use crate::active_request::ActiveRequest;
use crate::buffer::{Input, Output};
use crate::clock::{deadline_after, earlier, nanoseconds, now_ns};
use crate::context::{ServerContext, record_line};
use crate::driver::ConnectionDriver;
use crate::exchange;
use crate::owned_head::{Owned, TlsInfo};
use crate::socket::{Accepted, Endpoint, Local};
use crate::stream::Stream;
use crate::tail::Tail;
use crate::tls::PlainHttp;
use crate::transfer_rate::TransferRate;
use crate::wire::Wire;
use http1::proxy::{ProxyHeader, ProxyProtocol, parse_proxy};
use http1::{BodyDecoder, HeadScan, Reject, Scan};

/// A client's connection. An idle one holds a descriptor and this record, and no buffers.
pub struct Connection {
    pub(crate) context: Arc<ServerContext>,
    pub(crate) stream: Stream,
    pub(crate) peer: Arc<Endpoint>,
    pub(crate) local: Arc<Local>,
    pub(crate) tls: Option<Arc<TlsInfo>>,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Decides which thread responds to the request.
    pub(crate) wire: Arc<Wire>,
    /// The end of a response, sent after the output.
    pub(crate) tail: Option<Box<Tail>>,
    /// The request that is being served, from a complete head to the end of its response.
    pub(crate) active: Option<Box<ActiveRequest>>,
    phase: Phase,
    scan: HeadScan,
    /// The deadline of the current phase; 0 for none.
    pub(crate) deadline_ns: u64,
    requests: u32,
    /// Whether another descriptor of the same connection exists.
    pub(crate) duplicated: bool,
    /// Whether to let the client detect that its response is truncated.
    aborted: bool,
    /// The rate at which the client sends what is read and discarded in the current phase.
    rate: TransferRate,
    /// Whether a read is worth its system call.
    readable: bool,
    /// Whether the last read emptied the socket, so that the poller reports new data.
    pub(crate) emptied: bool,
    /// Whether the last wait was requested although more data may be available.
    pub(crate) is_yielding: bool,
    /// When the first byte of the current head arrived, in monotonic nanoseconds; 0 before that.
    head_began_ns: u64,
    /// Since when the connection waits for a head, or lingers. If it was kept alive, the first byte of the next
    /// head restarts the wait.
    waits_since_ns: u64,
    /// The rest of the body of a request whose response is complete.
    pub(crate) body: Option<BodyDecoder>,
}

/// What a class has to do with a connection next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// A request is ready: call [`Connection::into_exchange`].
    Request,
    /// Wait until the descriptor is ready for this, or until the deadline.
    Wait(Interest),
    /// Drop the connection.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Reading an optional PROXY header.
    Proxy,
    /// Waiting for a head, or reading it.
    Head,
    /// Buffering a request's body before the application is called.
    Intake,
    /// Owned by an exchange.
    Exchange,
    /// Sending the rest of a response.
    Flush(Then),
    /// Reading the rest of a request's body, to keep the connection.
    Drain,
    /// Our side is shut down; reading until the client closes its side too, so that the connection is not
    /// reset (RFC 9112 9.6).
    Linger,
    /// Finished.
    Closed,
}

/// What follows a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The next request, once the body of this one has been read.
    Next,
    /// Lingering, so that the client can read the response.
    Linger,
    /// An immediate close: the client sends nothing more.
    Close,
    /// A reset, so that the client detects that the response is truncated.
    Abort,
    /// Nothing: the application has taken over the connection.
    Detach,
}

impl Connection {
    /// Creates the record of a connection that was just accepted.
    pub fn new(context: &Arc<ServerContext>, accepted: Accepted) -> Box<Self> {
        let waits_since_ns = now_ns();
        let deadline_ns = deadline_after(waits_since_ns, context.config.header_timeout);
        let wire = Wire::new();
        context.wires.add(accepted.stream.as_raw_fd(), &wire);
        let mut connection = Box::new(Self {
            context: Arc::clone(context),
            wire,
            stream: Stream::plain(accepted.stream),
            peer: Arc::new(accepted.peer),
            local: accepted.local,
            tls: None,
            input: Input::default(),
            output: Output::default(),
            tail: None,
            active: None,
            phase: Phase::Proxy,
            scan: HeadScan::default(),
            deadline_ns,
            requests: 0,
            duplicated: false,
            aborted: false,
            rate: TransferRate::default(),
            readable: true,
            emptied: false,
            is_yielding: false,
            head_began_ns: 0,
            waits_since_ns,
            body: None,
        });
        if context.config.proxy_protocol == ProxyProtocol::Off {
            connection.begin_http();
        }
        connection
    }

    /// Makes as much progress as possible without waiting.
    pub fn advance(&mut self) -> Advance {
        self.is_yielding = false;
        loop {
            let step = match self.phase {
                Phase::Proxy => self.read_proxy(),
                Phase::Head => self.read_head(),
                Phase::Intake => self.take_in(),
                Phase::Exchange => Some(Advance::Request),
                Phase::Flush(then) => self.flush(then),
                Phase::Drain => self.drain_body(),
                Phase::Linger => self.linger(),
                Phase::Closed => Some(Advance::Closed),
            };
            if let Some(advance) = step {
                return advance;
            }
        }
    }

    /// Ends the phase whose deadline has passed. A client that is too slow with a head receives a 408, an
    /// idle connection is closed, any other is cut.
    pub fn expire(&mut self) -> Advance {
        if self.phase == Phase::Head && !self.input.is_empty() {
            self.refuse(&Reject::new(408, "the request's head did not arrive in time"));
            return self.advance();
        }
        if self.phase == Phase::Intake {
            return self.expire_intake();
        }
        self.log_slow_reader();
        if self.phase == Phase::Head {
            self.stream.send_close_notify();
        }
        self.phase = Phase::Closed;
        Advance::Closed
    }

    /// Turns the connection into an exchange with its request. Only valid after [`Advance::Request`]; the
    /// connection returns through [`ConnectionDriver::release`].
    pub fn into_exchange(self: Box<Self>, driver: Arc<dyn ConnectionDriver>) -> ExchangeBox {
        self.note_queueing();
        exchange::make(self, driver)
    }

    /// Returns the descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    /// Returns the deadline of the wait, in monotonic nanoseconds; 0 for none. It changes with every call of
    /// the other methods.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Returns whether the connection waits for a request and nothing of it has arrived.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Head && self.input.is_empty()
    }

    /// Returns whether another descriptor of the connection may exist, in an application that took it over or
    /// in a forked child. Closing our descriptor then does not remove it from an epoll.
    pub fn is_duplicated(&self) -> bool {
        self.duplicated || fork::has_forked()
    }

    /// Returns since when the connection has been waiting for a request or for the client to close it, in
    /// monotonic nanoseconds. Such a connection may be evicted. Returns `None` while it is served.
    pub fn waits_since_ns(&self) -> Option<u64> {
        matches!(self.phase, Phase::Proxy | Phase::Head | Phase::Linger)
            .then_some(self.waits_since_ns)
    }

    /// Closes a waiting connection to make room for another, unless what it waits for has arrived.
    pub fn yield_now(&mut self) -> Advance {
        let next = self.advance();
        if matches!(next, Advance::Wait(_)) && self.waits_since_ns().is_some() {
            self.stream.send_close_notify();
            self.phase = Phase::Closed;
            return Advance::Closed;
        }
        next
    }

    /// Returns whether the connection has not had a request yet.
    pub fn is_fresh(&self) -> bool {
        self.requests == 0
    }

    /// Returns whether to advance the connection again although its descriptor may not become ready: it
    /// stopped early so that others can run. A level-triggered poller reports it anyway.
    pub fn is_yielding(&self) -> bool {
        self.is_yielding
    }

    /// Shortens the wait of an idle connection: for a server that stops.
    pub fn shorten_idle_deadline(&mut self, deadline_ns: u64) {
        if self.is_idle() {
            self.deadline_ns = earlier(self.deadline_ns, deadline_ns);
        }
    }

    /// Sets what follows the response, the last bytes of which are in `output`.
    pub(crate) fn leave_exchange(&mut self, then: Then, now_ns: u64) {
        if then == Then::Next && self.all_sent() && self.body.is_none() {
            // The common case: everything is sent and read, and the caller has just read the clock.
            self.next(now_ns);
        } else {
            self.enter(Phase::Flush(then));
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.rate = TransferRate::default();
        let config = &self.context.config;
        let limit = match phase {
            Phase::Flush(_) if self.all_sent() => return,
            Phase::Flush(_) => config.write_timeout,
            Phase::Drain => config.body_timeout,
            Phase::Linger => Some(LINGER_MAX),
            // These set their own deadlines.
            Phase::Proxy | Phase::Head | Phase::Intake | Phase::Exchange | Phase::Closed => None,
        };
        let now_ns = now_ns();
        self.waits_since_ns = now_ns;
        self.deadline_ns = deadline_after(now_ns, limit);
    }

    /// Reads a PROXY header; a connection that begins with something else is served as it is.
    fn read_proxy(&mut self) -> Option<Advance> {
        let allowed = self.context.config.proxy_allow.contains(self.peer.ip);
        loop {
            if !self.input.is_empty() {
                match parse_proxy(self.input.unused(), self.context.config.proxy_protocol, allowed)
                {
                    Ok(None) => {}
                    Ok(Some((length, header))) => {
                        self.input.consume(length);
                        self.take_endpoints(header);
                        return self.begin_http();
                    }
                    Err(reject) => {
                        self.refuse(&reject);
                        return None;
                    }
                }
            }
            match self.fill() {
                Ok(0) => return self.close(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Some(Advance::Wait(Interest::READ));
                }
                Err(_) => return self.close(),
            }
        }
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

    /// Starts HTTP, over TLS if configured.
    fn begin_http(&mut self) -> Option<Advance> {
        self.phase = Phase::Head;
        if let Some(config) = self.context.config.tls.as_ref().filter(|_| !self.local.private) {
            let already_read = self.input.take();
            if let Err(error) = self.stream.start_tls(config, &already_read) {
                self.refuse_tls(&error);
            } else if let Some(session) = self.stream.session() {
                self.wire.encrypt_with(session);
            }
        }
        None
    }

    /// Ends a connection on which TLS has failed, so that the client can read the reason.
    fn refuse_tls(&mut self, error: &io::Error) {
        self.stream.leave_tls();
        if matches!(error.get_ref(), Some(inner) if inner.is::<PlainHttp>()) {
            return self.refuse(&Reject::new(400, "plain HTTP request on a TLS listener"));
        }
        tracing::debug!("TLS with {} failed: {error}", self.peer.host);
        self.enter(Phase::Flush(Then::Linger));
    }

    /// Reads until a head is complete.
    fn read_head(&mut self) -> Option<Advance> {
        let mut readable = std::mem::replace(&mut self.readable, true);
        loop {
            if !self.input.is_empty() {
                match self.scan.advance(self.input.unused(), self.context.config.policy(false)) {
                    Ok(Scan::Complete) => return self.begin(),
                    Ok(Scan::Incomplete) => self.set_head_deadline(),
                    Err(reject) => {
                        self.refuse(&reject);
                        return None;
                    }
                }
            }
            if !readable {
                self.release();
                return Some(Advance::Wait(self.stream.read_interest()));
            }
            match self.fill() {
                Ok(0) => return self.close_cleanly(),
                Ok(_) => readable = !self.emptied,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable = false,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.refuse_tls(&error);
                    return None;
                }
                Err(error) => {
                    tracing::debug!("connection from {} closed: {error}", self.peer.host);
                    return self.close();
                }
            }
        }
    }

    /// Sets the deadline of an incomplete head: `header_timeout` after the accept, or after the first byte on
    /// a kept-alive connection, and earlier if the head arrives more slowly than `min_rate`.
    fn set_head_deadline(&mut self) {
        if self.head_began_ns == 0 {
            self.head_began_ns = now_ns();
            if self.requests > 0 {
                self.waits_since_ns = self.head_began_ns;
            }
        }
        let config = &self.context.config;
        let complete_ns = deadline_after(self.waits_since_ns, config.header_timeout);
        let bytes = self.input.unused().len() as u64;
        let slow_ns = (bytes * 1_000_000_000)
            .checked_div(config.min_rate)
            .map_or(0, |earned_ns| self.head_began_ns + nanoseconds(HEAD_GRACE) + earned_ns);
        self.deadline_ns = earlier(complete_ns, slow_ns);
    }

    /// Parses a complete head and starts its request.
    fn begin(&mut self) -> Option<Advance> {
        let bytes = self.input.take();
        self.scan = HeadScan::default();
        self.head_began_ns = 0;
        if self.tls.is_none() {
            self.tls = self.stream.tls_facts().map(Arc::new);
        }
        let owned = Owned {
            bytes,
            peer: Arc::clone(&self.peer),
            local: Arc::clone(&self.local),
            tls: self.tls.clone(),
        };
        match ActiveRequest::begin(&self.context, owned) {
            Ok((active, following)) => {
                self.requests += 1;
                self.active = Some(active);
                self.input.prepend(following);
                if self.has_intake() {
                    self.phase = Phase::Intake;
                    return None;
                }
                self.hold_for_exchange();
                Some(Advance::Request)
            }
            Err(refused) => {
                self.refuse_line(&refused.reject, first_line(&refused.bytes));
                None
            }
        }
    }

    /// Makes the request available to an exchange.
    pub(crate) fn hold_for_exchange(&mut self) {
        self.phase = Phase::Exchange;
        self.deadline_ns = 0;
        if let Some(active) = self.active.as_deref() {
            // SAFETY: the head belongs to the active request, which ends in `end_request`, also
            // when the connection is dropped. That closes the wire first. In a forked child, in
            // which it may be dropped without, no one claims a wire.
            unsafe { self.wire.open(active.head(), active.is_head_method) };
        }
    }

    /// Responds to an invalid request with an error and discards the rest of the input.
    fn refuse(&mut self, reject: &Reject) {
        let line = first_line(self.input.unused()).to_vec();
        self.refuse_line(reject, &line);
    }

    fn refuse_line(&mut self, reject: &Reject, line: &[u8]) {
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
        self.enter(Phase::Flush(Then::Linger));
    }

    /// Sends the rest of the response, then proceeds with what follows.
    fn flush(&mut self, then: Then) -> Option<Advance> {
        match then {
            Then::Detach => return self.close(),
            Then::Abort => {
                self.stream.reset_on_close();
                self.aborted = true;
                return self.close();
            }
            _ => {}
        }
        match self.send_rest() {
            Ok(None) => {}
            Ok(Some(interest)) => return Some(self.wait_to_send(interest)),
            Err(_) => return self.close(),
        }
        match then {
            Then::Next if self.body.is_some() => self.enter(Phase::Drain),
            Then::Next => self.next(now_ns()),
            Then::Linger if self.stream.shutdown_write().is_ok() => self.enter(Phase::Linger),
            _ => return self.close_cleanly(),
        }
        None
    }

    /// Reads the rest of a request's body that the application did not read. All of it is read, as long as
    /// the client sends it in time, because the response announced that the connection is kept.
    fn drain_body(&mut self) -> Option<Advance> {
        loop {
            match self.discard_body() {
                Ok(true) => break,
                Ok(false) => {}
                Err(reject) => {
                    tracing::debug!(
                        "invalid request body from {}: {}",
                        self.peer.host,
                        reject.reason
                    );
                    self.enter(Phase::Flush(Then::Linger));
                    return None;
                }
            }
            match self.fill() {
                Ok(0) => return self.close(),
                Ok(count) => self.rate.moved(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let config = &self.context.config;
                    self.deadline_ns = self.rate.deadline(config.body_timeout, config.min_rate);
                    return Some(Advance::Wait(self.stream.read_interest()));
                }
                Err(_) => return self.close(),
            }
        }
        self.next(now_ns());
        None
    }

    /// Decodes and discards the input; returns whether the end of the body was reached.
    fn discard_body(&mut self) -> Result<bool, Reject> {
        while let Some(body) = self.body.as_mut() {
            let decoded = body.decode(self.input.unused())?;
            self.input.consume(decoded.consumed);
            if decoded.done {
                self.body = None;
            } else if self.input.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Starts waiting for the next request.
    fn next(&mut self, now_ns: u64) {
        self.phase = Phase::Head;
        self.waits_since_ns = now_ns;
        self.deadline_ns = deadline_after(now_ns, self.context.config.keepalive);
        self.readable = !self.emptied;
    }

    /// Reads and discards input until the client closes its side.
    fn linger(&mut self) -> Option<Advance> {
        loop {
            match self.fill() {
                Ok(0) => return self.close(),
                Ok(count) => {
                    self.rate.moved(count);
                    self.input = Input::default();
                    if self.rate.bytes() > LINGER_BYTES_MAX {
                        return self.close();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release();
                    self.deadline_ns = self.rate.deadline(Some(LINGER_MAX), LINGER_RATE);
                    return Some(Advance::Wait(self.stream.read_interest()));
                }
                Err(_) => return self.close(),
            }
        }
    }

    /// Closes a connection on which no response is truncated.
    fn close_cleanly(&mut self) -> Option<Advance> {
        self.stream.send_close_notify();
        self.close()
    }

    #[expect(clippy::unnecessary_wraps, reason = "a phase's last step, in the form of the others")]
    fn close(&mut self) -> Option<Advance> {
        self.phase = Phase::Closed;
        Some(Advance::Closed)
    }

    /// Returns whether everything was handed to the kernel.
    fn all_sent(&self) -> bool {
        self.output.is_empty() && self.tail.is_none() && !self.stream.has_unsent()
    }

    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let Self { input, stream, .. } = self;
        let read = input.fill(|place| stream.read(place));
        // A short read has emptied the socket: the poller reports new data.
        self.emptied = !matches!(&read, Ok(count) if stream.may_have_more(*count));
        read
    }

    /// Frees the buffers while the connection is idle.
    fn release(&mut self) {
        self.input.release();
        self.output.release();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !fork::is_child() {
            if self.active.is_some() {
                // The worker ends, or had no room for the request, before its body was complete.
                self.end_request(Then::Close);
            }
            self.context.wires.remove(self.fd());
        }
        // Closing a descriptor ends the connection only if no child has a copy of it.
        if fork::has_forked() && !self.duplicated && !fork::is_child() {
            self.stream.end(self.aborted);
        }
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    &bytes[..end.min(LINE_LOGGED_MAX)]
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The minimum time for a head, however few bytes of it arrive: a packet may be lost, and its retransmission too.
const HEAD_GRACE: Duration = Duration::from_secs(5);
/// How long a client may send nothing and keep its side open after a response that closes the connection.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// The rate in bytes per second that extends this time: the client is still sending the body of its request.
const LINGER_RATE: u64 = 64 << 10;
/// The most bytes that are read while lingering. A client that sends more without reading the response may lose
/// it.
const LINGER_BYTES_MAX: u64 = 16 << 20;
/// The most bytes of a rejected request line that are logged.
const LINE_LOGGED_MAX: usize = 256;
