//! A client's connection: a state machine that never waits.
//!
//! Every worker class drives it in the same way: [`Connection::advance`] whenever its descriptor is ready,
//! [`Connection::expire`] when its deadline has passed, [`Connection::into_exchange`] when a request has arrived.
//! The module `exchange` handles what happens within a request, `state` has the states and a drawing of them.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;

use worker_api::{Failure, Interest, ProxyProtocol, fork};

use crate::accept::Accepted;
use crate::active_request::{ActiveRequest, Stage};
use crate::buffer::{Input, Output};
use crate::clock::now_ns;
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::ends::Ends;
use crate::hung_request;
use crate::io::Io;
use crate::state::{HeadReader, Proxy, State, Step, Then};
use crate::stream::Stream;
use crate::wire::{Responder, Wire};
use jimu_http1::{BodyDecoder, Reject};

/// A client's connection. An idle one holds a descriptor and this record, and no buffers.
pub struct Connection {
    pub(crate) io: Io,
    state: State,
    requests: u32,
    /// Whether to let the client detect that its response is truncated.
    aborted: bool,
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

impl Connection {
    /// Creates the record of a connection that was just accepted.
    pub fn new(context: &Arc<ServerContext>, accepted: Accepted) -> Box<Self> {
        let waits_since_ns = now_ns();
        let ip = accepted.peer_ip;
        let wire = Wire::new(Ends { peer: accepted.peer, local: accepted.local });
        context.wires.add(accepted.stream.as_raw_fd(), &wire);
        let io = Io {
            context: Arc::clone(context),
            stream: Stream::plain(accepted.stream),
            tls: None,
            input: Input::default(),
            output: Output::default(),
            wire,
            tail: None,
            deadline: Deadline::after(waits_since_ns, context.config.header_timeout),
            trusts_peer: context.config.forwarded_allow.contains(ip),
            duplicated: false,
            emptied: false,
            is_yielding: false,
            sends_fast: false,
        };
        let is_allowed = context.config.proxy_allow.contains(ip);
        let state = State::Proxy(Proxy { is_allowed, waits_since_ns });
        let mut connection = Box::new(Self { io, state, requests: 0, aborted: false });
        if context.config.proxy_protocol == ProxyProtocol::Off {
            connection.state = HeadReader::begin_http(&mut connection.io, waits_since_ns);
        }
        connection
    }

    /// Makes as much progress as possible without waiting.
    pub fn advance(&mut self) -> Advance {
        self.io.is_yielding = false;
        loop {
            let io = &mut self.io;
            let step = match &mut self.state {
                State::Proxy(proxy) => proxy.advance(io),
                State::Head(head) => head.advance(io),
                State::Request(active) => match active.stage {
                    Stage::Intake => active.take_in(io),
                    Stage::Exchange => return Advance::Request,
                },
                State::Flush(flush) => flush.advance(io),
                State::Drain(drain) => drain.advance(io),
                State::Linger(linger) => linger.advance(io),
                State::Closed => return Advance::Closed,
            };
            match step {
                // A head that was thought to be complete is not.
                Step::Wait(_) if self.has_held_response() => {
                    self.state = State::flush(&mut self.io, Then::Next, None);
                }
                Step::Wait(interest) => return Advance::Wait(interest),
                Step::Enter(state) => self.state = state,
                Step::Begin(active) => self.begin_request(active),
                Step::Ready => self.hold_for_exchange(),
                Step::End(then) => self.end_request(then),
                Step::Abort => {
                    self.io.stream.reset_on_close();
                    self.aborted = true;
                    self.state = State::Closed;
                }
            }
        }
    }

    /// Ends the state whose deadline has passed. A client that is too slow with a head receives a 408, an
    /// idle connection is closed, any other is cut.
    pub fn expire(&mut self) -> Advance {
        let io = &mut self.io;
        match &mut self.state {
            State::Head(_) if !io.input.is_empty() => {
                let reject = Reject::new(408, "the request's head did not arrive in time");
                self.state = io.refuse(&reject);
                return self.advance();
            }
            State::Head(_) => io.stream.send_close_notify(),
            State::Request(active) if active.stage == Stage::Intake => {
                let then = active.expire_intake(io);
                self.end_request(then);
                return self.advance();
            }
            State::Request(_) => self.end_request(Then::Close),
            _ => io.log_slow_reader(),
        }
        self.state = State::Closed;
        Advance::Closed
    }

    /// Returns the descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.io.stream.fd()
    }

    /// Returns the deadline of the wait. It changes with every call of the other methods.
    pub fn deadline(&self) -> Deadline {
        self.io.deadline
    }

    /// Returns whether the connection waits for a request and nothing of it has arrived.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head(_)) && self.io.input.is_empty()
    }

    /// Returns whether it has a request whose body has not been received completely.
    pub fn has_body_to_come(&self) -> bool {
        self.request().is_some_and(|active| active.has_body_to_come(&self.io))
    }

    /// Returns whether another descriptor of the connection may exist, in an application that took it over or
    /// in a forked child. Closing our descriptor then does not remove it from an epoll.
    pub fn is_duplicated(&self) -> bool {
        self.io.duplicated || fork::has_forked()
    }

    /// Returns since when the connection has been waiting for a request or for the client to close it, in
    /// monotonic nanoseconds. Such a connection may be evicted. Returns `None` while it is served.
    pub fn waits_since_ns(&self) -> Option<u64> {
        self.state.waits_since_ns()
    }

    /// Closes a waiting connection to make room for another, unless what it waits for has arrived.
    pub fn yield_now(&mut self) -> Advance {
        let next = self.advance();
        if matches!(next, Advance::Wait(_)) && self.waits_since_ns().is_some() {
            self.io.stream.send_close_notify();
            self.state = State::Closed;
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
        self.io.is_yielding
    }

    /// Shortens the wait of an idle connection: for a server that stops.
    pub fn shorten_idle_deadline(&mut self, deadline: Deadline) {
        if self.is_idle() {
            self.io.deadline = self.io.deadline.min(deadline);
        }
    }

    /// Returns the request that is being served.
    pub(crate) fn request(&self) -> Option<&ActiveRequest> {
        match &self.state {
            State::Request(active) => Some(active),
            _ => None,
        }
    }

    /// Returns the request that is being served, and the bytes of its connection.
    pub(crate) fn request_mut(&mut self) -> Option<(&mut ActiveRequest, &mut Io)> {
        match &mut self.state {
            State::Request(active) => Some((active, &mut self.io)),
            _ => None,
        }
    }

    /// Ends the request with a failure: with an error response if nothing was sent yet, else by cutting the
    /// response.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if let Some((active, io)) = self.request_mut() {
            let then = active.fail(io, failure);
            self.end_request(then);
        }
    }

    /// Cuts the connection, whatever its state.
    pub(crate) fn abort(&mut self) {
        self.end_request(Then::Abort);
    }

    /// Ends the request, reports it to the host, and enters the state that follows.
    pub(crate) fn end_request(&mut self, then: Then) {
        let ended_ns = now_ns();
        let responder = self.io.wire.close();
        let answered = responder != Responder::Server;
        // A reset would discard a response that the client has not read yet.
        let then = if answered { Then::Linger } else { then };
        if answered {
            // What the other thread discarded is missing in the session's input.
            self.io.stream.leave_tls();
        }
        let unread = match std::mem::replace(&mut self.state, State::Closed) {
            State::Request(active) => self.record(active, responder, ended_ns),
            _ => None,
        };
        let body = unread.filter(|_| then == Then::Next);
        let may_follow = self.io.all_sent() || self.io.output.is_held();
        self.state = if then == Then::Next && body.is_none() && may_follow {
            // The common case: everything is sent and read, and the clock has just been read.
            State::next_head(&mut self.io, ended_ns)
        } else {
            State::flush(&mut self.io, then, body)
        };
    }

    /// Reports the end of a request to the host. Returns the part of its body that has not been read.
    fn record(
        &mut self,
        mut active: Box<ActiveRequest>,
        responder: Responder,
        ended_ns: u64,
    ) -> Option<Box<BodyDecoder>> {
        if responder != Responder::Server {
            active.response.status = hung_request::STATUS;
            active.response.written = 0;
        }
        if responder != Responder::OtherRecorded {
            active.record(&self.io.context, ended_ns);
        }
        active.note_rate(&mut self.io);
        let ActiveRequest { head, body, .. } = *active;
        head.recycle();
        (!body.is_done()).then(|| Box::new(body))
    }

    fn begin_request(&mut self, active: Box<ActiveRequest>) {
        self.requests += 1;
        self.io.output.lend(&self.io.context.batches, self.io.stream.fd());
        let has_intake = active.has_intake(&self.io);
        self.state = State::Request(active);
        if !has_intake {
            self.hold_for_exchange();
        }
    }

    /// Returns whether it waits for a head and has a response that was to be sent with the next one.
    fn has_held_response(&self) -> bool {
        matches!(self.state, State::Head(_)) && self.io.output.is_held()
    }

    /// Makes the request available to an exchange.
    fn hold_for_exchange(&mut self) {
        self.io.deadline = Deadline::NEVER;
        if let State::Request(active) = &mut self.state {
            active.stage = Stage::Exchange;
            // SAFETY: the head belongs to the active request, which ends in `end_request`, also
            // when the connection is dropped. That closes the wire first. In a forked child, in
            // which it may be dropped without, no one claims a wire.
            unsafe { self.io.wire.open(active.head()) };
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !fork::is_child() {
            if matches!(self.state, State::Request(_)) {
                // The worker ends, or had no room for the request, before its body was complete.
                self.end_request(Then::Close);
            }
            self.io.send_held();
            self.io.context.wires.remove(self.fd());
        }
        // Closing a descriptor ends the connection only if no child has a copy of it.
        if fork::has_forked() && !self.io.duplicated && !fork::is_child() {
            self.io.stream.end(self.aborted);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of connections are idle at a time: these are most of what each takes.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 152, "{}", size_of::<Connection>());
        assert!(size_of::<Wire>() <= 88, "{}", size_of::<Wire>());
    }
}
