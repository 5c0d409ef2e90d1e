//! A connection between requests: from accepting it to a whole head, and from the end of a response to the next
//! head or the end.
//!
//! Every worker class drives it in the same way: [`Connection::advance`] whenever its descriptor is ready,
//! [`Connection::expire`] when its deadline has passed, [`Connection::into_exchange`] when a request has come. What
//! happens within a request is the module [`crate::exchange`]'s.
//!
//! ```text
//!   Proxy ──> Head ──whole──> (Intake) ──> Exchange ──> Flush ──> Drain ──> Head        (kept alive)
//!                └──refused───────┴───────────────────────^  └──────> Linger ──> Closed
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use worker_api::abi::std_types::{ROption, RSlice};
use worker_api::raw::ExchangeBox;
use worker_api::{AccessRecord, Interest, Version, fork};

use crate::active_request::ActiveRequest;
use crate::buffer::{Input, Output};
use crate::clock::{deadline_after, earlier, nanoseconds, now_ns};
use crate::context::ServerContext;
use crate::driver::ConnectionDriver;
use crate::exchange;
use crate::owned_head::{Owned, TlsInfo};
use crate::socket::{Accepted, Endpoint, Local};
use crate::stream::Stream;
use crate::tail::Tail;
use crate::tls::PlainHttp;
use crate::transfer_rate::TransferRate;
use crate::wire::{self, Wire};
use http1::proxy::{ProxyHeader, ProxyProtocol, parse_proxy};
use http1::{BodyDecoder, HeadScan, Reject, Scan};

/// A client's connection. Holds a descriptor and this record, and no buffers while it is idle.
pub struct Connection {
    pub(crate) context: Arc<ServerContext>,
    pub(crate) stream: Stream,
    pub(crate) peer: Arc<Endpoint>,
    pub(crate) local: Arc<Local>,
    pub(crate) tls: Option<Arc<TlsInfo>>,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Who answers the request.
    pub(crate) wire: Arc<Wire>,
    /// The end of a response, behind the output.
    pub(crate) tail: Option<Box<Tail>>,
    /// The request that is being served: there from a whole head to the end of its response.
    pub(crate) turn: Option<Box<ActiveRequest>>,
    phase: Phase,
    scan: HeadScan,
    /// Until when the present phase may last; 0 for ever.
    pub(crate) deadline_ns: u64,
    requests: u32,
    /// Whether somebody else has a descriptor of the same connection.
    pub(crate) duplicated: bool,
    /// Whether the client is to see that its response is cut.
    aborted: bool,
    /// How fast the client sends what is read and discarded in the present phase.
    pace: TransferRate,
    /// Whether a read is worth its system call.
    readable: bool,
    /// Whether the last read has emptied the socket, so that a poller will tell of what comes next.
    pub(crate) emptied: bool,
    /// Whether the last wait was asked for although more may be there to read.
    pub(crate) is_yielding: bool,
    /// When the first byte of the present head came, monotonic nanoseconds; 0 before.
    head_began_ns: u64,
    /// Until when the whole head is to be there; 0 for ever.
    head_deadline_ns: u64,
    /// Since when it waits for a head, or lingers.
    waits_since_ns: u64,
    /// What is left of the body of a request whose response is over.
    pub(crate) body: Option<BodyDecoder>,
}

/// What a class is to do with a connection next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// A whole head is there: call [`Connection::into_exchange`].
    Request,
    /// Wait until the descriptor is ready for this, or until the deadline.
    Wait(Interest),
    /// Drop it.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Reading what a proxy may say about its client, before anything else.
    Proxy,
    /// Reading a head, or waiting for one.
    Head,
    /// Reading a request's body before the application is called.
    Intake,
    /// An exchange has it.
    Exchange,
    /// Sending what is left of a response.
    Flush(Then),
    /// Reading what is left of a request's body, to keep the connection.
    Drain,
    /// Our side is shut down; reading until the client's is too, so that it is not reset (RFC 9112 9.6).
    Linger,
    /// At its end.
    Closed,
}

/// What follows a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The next request, once the body of this one has been read.
    Next,
    /// The end, in a way that lets the client read the response.
    Linger,
    /// The end: the client has nothing more to send.
    Close,
    /// The end, in a way that lets the client see that the response is cut.
    Abort,
    /// Nothing: somebody else has the connection now.
    Forget,
}

impl Connection {
    /// A connection that was just accepted.
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
            turn: None,
            phase: Phase::Proxy,
            scan: HeadScan::default(),
            deadline_ns,
            requests: 0,
            duplicated: false,
            aborted: false,
            pace: TransferRate::default(),
            readable: true,
            emptied: false,
            is_yielding: false,
            head_began_ns: 0,
            head_deadline_ns: deadline_ns,
            waits_since_ns,
            body: None,
        });
        if context.config.proxy_protocol == ProxyProtocol::Off {
            connection.begin_http();
        }
        connection
    }

    /// Goes on as far as possible without waiting.
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

    /// Ends the phase whose deadline has passed: a client that is too slow with a head is told so (408), an idle one is
    /// let go, anything else is cut.
    pub fn expire(&mut self) -> Advance {
        if self.phase == Phase::Head && !self.input.is_empty() {
            self.refuse(&Reject::new(408, "the request's head did not come in time"));
            return self.advance();
        }
        if self.phase == Phase::Intake {
            return self.expire_intake();
        }
        self.log_slow_reader();
        if self.phase == Phase::Head {
            self.stream.say_close();
        }
        self.phase = Phase::Closed;
        Advance::Closed
    }

    /// Hands the request to an exchange. Only after [`Advance::Request`]; the connection comes back through
    /// [`ConnectionDriver::release`].
    pub fn into_exchange(self: Box<Self>, home: Arc<dyn ConnectionDriver>) -> ExchangeBox {
        self.note_queueing();
        exchange::make(self, home)
    }

    /// The descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    /// Until when to wait, in monotonic nanoseconds; 0 for ever. Changes with every call of the others.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Whether it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Head && self.input.is_empty()
    }

    /// Whether there may be another descriptor of it, an application's that took it over or a forked child's: closing
    /// ours then does not take it out of an epoll.
    pub fn is_duplicated(&self) -> bool {
        self.duplicated || fork::has_forked()
    }

    /// Since when it has been waiting for a request or for the client to close it, in monotonic nanoseconds: such a
    /// connection gives way to another where there are too many. Nothing while it is served.
    pub fn waits_since_ns(&self) -> Option<u64> {
        matches!(self.phase, Phase::Proxy | Phase::Head | Phase::Linger)
            .then_some(self.waits_since_ns)
    }

    /// Closes a connection that waits, to make room for another, unless what it waits for has come.
    pub fn yield_now(&mut self) -> Advance {
        let next = self.advance();
        if matches!(next, Advance::Wait(_)) && self.waits_since_ns().is_some() {
            self.stream.say_close();
            self.phase = Phase::Closed;
            return Advance::Closed;
        }
        next
    }

    /// Whether it has had no request yet.
    pub fn is_fresh(&self) -> bool {
        self.requests == 0
    }

    /// Whether it is to be advanced again although its descriptor may not become ready: it stopped early so that others
    /// have their turn. A level-triggered poller reports it anyway.
    pub fn is_yielding(&self) -> bool {
        self.is_yielding
    }

    /// Shortens the wait for a request of which nothing has come: for a server that stops.
    pub fn shorten_idle_deadline(&mut self, deadline_ns: u64) {
        if self.is_idle() {
            self.deadline_ns = earlier(self.deadline_ns, deadline_ns);
        }
    }

    /// Sets what follows the response whose last bytes stand in `output`.
    pub(crate) fn end_turn(&mut self, then: Then, now_ns: u64) {
        if then == Then::Next && self.all_sent() && self.body.is_none() {
            // The usual case: all is sent and read, and the clock was looked at just now.
            self.next(now_ns);
        } else {
            self.enter(Phase::Flush(then));
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.pace = TransferRate::default();
        let config = &self.context.config;
        let limit = match phase {
            Phase::Flush(_) if self.all_sent() => return,
            Phase::Flush(_) => config.write_timeout,
            Phase::Drain => config.body_timeout,
            Phase::Linger => Some(LINGER_MAX),
            Phase::Head => config.keepalive,
            Phase::Proxy => config.header_timeout,
            Phase::Intake | Phase::Exchange | Phase::Closed => None,
        };
        let now_ns = now_ns();
        self.waits_since_ns = now_ns;
        self.deadline_ns = deadline_after(now_ns, limit);
    }

    /// Reads what a proxy says about its client; a connection that begins with something else is served as it is.
    fn read_proxy(&mut self) -> Option<Advance> {
        let allowed = self.context.config.proxy_allow.contains(self.peer.ip);
        loop {
            if !self.input.is_empty() {
                match parse_proxy(self.input.unused(), self.context.config.proxy_protocol, allowed)
                {
                    Ok(None) => {}
                    Ok(Some((length, header))) => {
                        self.input.consume(length);
                        self.take_ends(header);
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

    /// The ends of the connection are those that the proxy told.
    fn take_ends(&mut self, header: ProxyHeader) {
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

    /// From here on the connection speaks HTTP, within TLS where that is set.
    fn begin_http(&mut self) -> Option<Advance> {
        self.phase = Phase::Head;
        if let Some(config) = self.context.config.tls.as_ref().filter(|_| !self.local.private) {
            let already_read = self.input.take();
            if let Err(error) = self.stream.start_tls(config, &already_read) {
                self.refuse_tls(&error);
            }
        }
        None
    }

    /// Ends a connection on which TLS has failed, in a way that lets the client read why.
    fn refuse_tls(&mut self, error: &io::Error) {
        self.stream.leave_tls();
        if matches!(error.get_ref(), Some(inner) if inner.is::<PlainHttp>()) {
            return self.refuse(&Reject::new(400, "plain HTTP where TLS is spoken"));
        }
        tracing::debug!("no TLS with {}: {error}", self.peer.host);
        self.enter(Phase::Flush(Then::Linger));
    }

    /// Reads until a head is whole.
    fn read_head(&mut self) -> Option<Advance> {
        let mut readable = std::mem::replace(&mut self.readable, true);
        loop {
            if !self.input.is_empty() {
                match self.scan.advance(self.input.unused(), self.context.config.policy(false)) {
                    Ok(Scan::Complete) => return self.begin(),
                    Ok(Scan::Incomplete) => self.time_head(),
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
                    tracing::debug!("connection of {} ended: {error}", self.peer.host);
                    return self.close();
                }
            }
        }
    }

    /// Sets the deadline of a head that is not whole yet: `header_timeout` after the accept, or after the first byte on
    /// a kept-alive connection, and earlier where the head comes more slowly than `min_rate`.
    fn time_head(&mut self) {
        let config = &self.context.config;
        if self.head_began_ns == 0 {
            let now_ns = now_ns();
            self.head_began_ns = now_ns;
            if self.requests > 0 {
                self.head_deadline_ns = deadline_after(now_ns, config.header_timeout);
                self.waits_since_ns = now_ns;
            }
        }
        let bytes = self.input.unused().len() as u64;
        let slow_ns = (bytes * 1_000_000_000)
            .checked_div(config.min_rate)
            .map_or(0, |earned_ns| self.head_began_ns + nanoseconds(HEAD_GRACE) + earned_ns);
        self.deadline_ns = earlier(self.head_deadline_ns, slow_ns);
    }

    /// A whole head is there: parses it and makes the request's turn.
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
            Ok((turn, behind)) => {
                self.requests += 1;
                self.turn = Some(turn);
                self.input.put(&behind);
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

    /// The request is ready for an exchange.
    pub(crate) fn hold_for_exchange(&mut self) {
        self.phase = Phase::Exchange;
        self.deadline_ns = 0;
        if let Some(turn) = self.turn.as_deref().filter(|_| self.stream.is_plain()) {
            // SAFETY: the head stands in the turn, which ends in `end_request` or in `drop`. Both close the wire first.
            unsafe { self.wire.open(turn.request(), turn.is_head_method) };
        }
    }

    /// Answers a request that cannot be served, once, and lets nothing behind it be read.
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
        let answer = self.context.error_answer(
            Version::HTTP_11,
            line.starts_with(b"HEAD "),
            reject.status,
            detail,
        );
        self.output.append().extend_from_slice(&answer);
        let record = AccessRecord {
            head: ROption::RNone,
            request_line: line.into(),
            peer: self.peer.address(),
            status: reject.status,
            body_bytes: 0,
            duration_ns: 0,
            response_headers: RSlice::EMPTY,
        };
        self.context.host.request_ended(0, &record);
        let unused = self.input.unused().len();
        self.input.consume(unused);
        self.enter(Phase::Flush(Then::Linger));
    }

    /// Sends what is left, then does what follows.
    fn flush(&mut self, then: Then) -> Option<Advance> {
        match then {
            Then::Forget => return self.close(),
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

    /// Reads the rest of a request's body that the application left: all of it, because the response said that the
    /// connection is kept, as long as the client sends it in time.
    fn drain_body(&mut self) -> Option<Advance> {
        loop {
            match self.discard_body() {
                Ok(true) => break,
                Ok(false) => {}
                Err(reject) => {
                    tracing::debug!("body of {}: {}", self.peer.host, reject.reason);
                    self.enter(Phase::Flush(Then::Linger));
                    return None;
                }
            }
            match self.fill() {
                Ok(0) => return self.close(),
                Ok(count) => self.pace.moved(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let config = &self.context.config;
                    self.deadline_ns = self.pace.deadline(config.body_timeout, config.min_rate);
                    return Some(Advance::Wait(self.stream.read_interest()));
                }
                Err(_) => return self.close(),
            }
        }
        self.next(now_ns());
        None
    }

    /// Decodes and forgets what was read of the body; whether it is at its end.
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

    /// Begins to wait for the next request.
    fn next(&mut self, now_ns: u64) {
        self.phase = Phase::Head;
        self.waits_since_ns = now_ns;
        self.deadline_ns = deadline_after(now_ns, self.context.config.keepalive);
        self.readable = !self.emptied;
    }

    /// Reads and forgets what the client still sends, until it closes too.
    fn linger(&mut self) -> Option<Advance> {
        loop {
            match self.fill() {
                Ok(0) => return self.close(),
                Ok(count) => {
                    self.pace.moved(count);
                    self.input = Input::default();
                    if self.pace.bytes() > LINGER_BYTES_MAX {
                        return self.close();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release();
                    self.deadline_ns = self.pace.deadline(Some(LINGER_MAX), LINGER_RATE);
                    return Some(Advance::Wait(self.stream.read_interest()));
                }
                Err(_) => return self.close(),
            }
        }
    }

    /// Closes where nothing is cut.
    fn close_cleanly(&mut self) -> Option<Advance> {
        self.stream.say_close();
        self.close()
    }

    #[expect(clippy::unnecessary_wraps, reason = "a phase's last step, in the form of the others")]
    fn close(&mut self) -> Option<Advance> {
        self.phase = Phase::Closed;
        Some(Advance::Closed)
    }

    /// Whether the kernel has all that was written.
    fn all_sent(&self) -> bool {
        self.output.is_empty() && self.tail.is_none() && !self.stream.has_unsent()
    }

    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let Self { input, stream, .. } = self;
        let read = input.fill(|place| stream.read(place));
        // A short read has emptied the socket: what comes next makes it ready again.
        self.emptied = !matches!(&read, Ok(count) if stream.may_have_more(*count));
        read
    }

    /// Gives memory back while nothing is under way.
    fn release(&mut self) {
        self.input.release();
        self.output.release();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !fork::is_child() {
            let answered = self.wire.close();
            self.context.wires.remove(self.fd());
            if let Some(mut turn) = self.turn.take() {
                // The worker ends, or there was no room for it, before its body was whole.
                if answered {
                    turn.response.status = wire::STATUS;
                }
                turn.record(&self.context, now_ns());
            }
        }
        // To close a descriptor ends a connection only where no child has a copy of it.
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

/// How long a head may take however few bytes of it come: a packet may be lost, and the next one too.
const HEAD_GRACE: Duration = Duration::from_secs(5);
/// How long a client may send nothing, and not close its side either, after a response that closes the connection.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Bytes a second that a client has to send to go beyond that time: it is still sending the body of its request.
const LINGER_RATE: u64 = 64 << 10;
/// How many bytes are read while lingering. A client that sends more without looking at the response may lose it.
const LINGER_BYTES_MAX: u64 = 16 << 20;
/// How much of a request line that was refused stands in the access log.
const LINE_LOGGED_MAX: usize = 256;
