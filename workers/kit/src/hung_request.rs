//! Responding to a request on behalf of a thread that hangs in the application: when the request's time is up
//! ([`crate::request_deadlines`]), when the worker has to end before it ([`crate::WorkerBase::cut_requests`]), or when the
//! worker aborts. The module [`wire`](crate::wire) decides who responds.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use worker_api::Host;

use crate::clock::now_ns;
use crate::context::{ServerContext, record_line};
use crate::wire::{Claim, RequestLine, Wire};

/// Calls [`answer_at_once`] when the host aborts the worker, which it does if the worker's heartbeat is late.
pub(crate) fn answer_at_abort(context: &Arc<ServerContext>) {
    let weak = Arc::downgrade(context);
    context.host.at_abort(move || {
        if let Some(context) = weak.upgrade() {
            answer_at_once(&context);
        }
    });
}

/// Like [`answer_all`], but does not wait for a lock: for a process that is about to abort.
pub(crate) fn answer_at_once(context: &ServerContext) {
    if let Some(wires) = context.wires.try_lock_for_end() {
        answer(context, &wires, |_| ());
    }
}

/// Responds to each request whose response has not begun, and logs those and the ones that were responded to before: once,
/// for a process that is about to end. Calls `each` with every such request.
pub(crate) fn answer_all(context: &ServerContext, each: impl FnMut(&RequestLine<'_>)) {
    if let Some(wires) = context.wires.lock_for_end() {
        answer(context, &wires, each);
    }
}

fn answer(
    context: &ServerContext,
    wires: &[Option<Arc<Wire>>],
    mut each: impl FnMut(&RequestLine<'_>),
) {
    let mut answered = Vec::new();
    // Clients come first: the log may be what hangs.
    for (fd, wire) in wires.iter().enumerate() {
        let Some(wire) = wire else { continue };
        if let Some(claim) = wire.claim() {
            if claim.answer(context, fd as RawFd) {
                answered.push(claim);
            }
        } else {
            answered.extend(wire.claim_answered());
        }
    }
    for claim in &mut answered {
        claim.record(context);
        each(&claim.line());
    }
}

impl Claim<'_> {
    /// Sends a 500 that closes the connection, without waiting. Returns whether the kernel accepted it.
    pub(crate) fn answer(&self, context: &ServerContext, fd: RawFd) -> bool {
        let line = self.line();
        let answer = context.error_response(line.version, line.is_head_method(), STATUS, None);
        let Some(answer) = self.encrypted(answer) else { return false };
        if !context.batches.send_now(fd) {
            return false;
        }
        // The kernel resets a connection that is closed with unread bytes, and the client would lose the
        // response.
        let mut scratch = [0; 4096];
        for _ in 0..DISCARDS_MAX {
            if !matches!(recv(fd, &mut scratch, MsgFlags::MSG_DONTWAIT), Ok(1..)) {
                break;
            }
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(fd, &answer, flags).is_ok_and(|count| count == answer.len());
        // Fails if the client has already disconnected.
        let _ = shutdown(fd, Shutdown::Write);
        sent
    }

    /// Writes the request's line into the access log, for a process that may end before the exchange does it.
    fn record(&mut self, context: &ServerContext) {
        self.line().record(&context.host, STATUS);
        self.set_recorded();
    }
}

impl RequestLine<'_> {
    /// Writes a line into the access log.
    pub(crate) fn record(&self, host: &Host, status: u16) {
        let text = [self.method, self.target, self.version.name().as_bytes()].join(&b' ');
        record_line(host, &text, self.peer, status, now_ns().saturating_sub(self.received_ns));
    }

    /// Returns method, target and age, for the log.
    pub(crate) fn describe(&self) -> String {
        let age_ns = now_ns().saturating_sub(self.received_ns);
        let (method, target) = (self.method.escape_ascii(), self.target.escape_ascii());
        format!("{method} {target} for {:.1} s", Duration::from_nanos(age_ns).as_secs_f64())
    }
}

/// The status of the response to a request that hangs.
pub(crate) const STATUS: u16 = 500;
/// The maximum number of 4 KiB reads that discard a request's body before the response.
const DISCARDS_MAX: usize = 64;
