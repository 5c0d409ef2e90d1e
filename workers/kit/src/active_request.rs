//! One request's turn on a connection: what is known of it from its head to the end of its response.

use std::sync::Arc;

use worker_api::abi::std_types::{ROption, RSlice};
use worker_api::{AccessRecord, Failure, Header, RequestHead};

use crate::clock::{deadline_after, now_ns};
use crate::context::ServerContext;
use crate::owned_head::{Decision, Owned, OwnedHead, Parsed, Refused};
use crate::spool::Spool;
use crate::transfer_rate::TransferRate;
use http1::forwarded::check_scheme;
use http1::{BodyDecoder, BodyPlan, Head, Policy, normalize};

/// The request that a connection is serving.
pub(crate) struct ActiveRequest {
    pub(crate) head: OwnedHead,
    pub(crate) body: BodyDecoder,
    /// What was taken in of the body, to be read first.
    pub(crate) spool: Option<Box<Spool>>,
    /// When the body had been taken in, monotonic nanoseconds; 0 where it was not.
    pub(crate) ready_ns: u64,
    /// Whether the application has read some of the body.
    pub(crate) body_begun: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the client would keep the connection.
    pub(crate) persistent: bool,
    pub(crate) is_head_method: bool,
    pub(crate) is_connect: bool,
    pub(crate) wants_upgrade: bool,
    pub(crate) response: Response,
    /// How fast the body comes in, and the response goes out.
    pub(crate) reading: TransferRate,
    pub(crate) writing: TransferRate,
    /// Operations in a row that did not have to wait.
    pub(crate) streak: u32,
    /// Until when the response is to be over, monotonic nanoseconds; 0 for ever.
    pub(crate) deadline_ns: u64,
    /// Why nothing more can be done with the exchange.
    pub(crate) broken: Option<Failure>,
    token: u32,
}

/// The response as far as it has come.
pub(crate) struct Response {
    /// The status that was announced; 0 before.
    pub(crate) status: u16,
    /// The encoded head, until it is handed to the socket.
    pub(crate) head: Vec<u8>,
    /// Whether the head has been handed to the socket.
    pub(crate) on_wire: bool,
    pub(crate) plan: BodyPlan,
    /// How much of the body was written, framing apart.
    pub(crate) written: u64,
    /// The end of a chunked body, where it is not the plain last chunk.
    pub(crate) trailers: Vec<u8>,
    /// Whether a body that may not be sent has been warned of.
    pub(crate) warned: bool,
    /// The fields, where the access log asks for them.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

/// What a connection takes from a head while it is parsed.
struct Seen {
    body: BodyDecoder,
    expects_continue: bool,
    persistent: bool,
    is_head_method: bool,
    is_connect: bool,
    wants_upgrade: bool,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: 0,
            head: Vec::new(),
            on_wire: false,
            plan: BodyPlan::NONE,
            written: 0,
            trailers: Vec::new(),
            warned: false,
            fields: Vec::new(),
        }
    }
}

impl ActiveRequest {
    /// Parses the head with which `owned.bytes` begin, and begins its request. Gives the bytes behind the head too.
    pub(crate) fn begin(
        context: &Arc<ServerContext>,
        mut owned: Owned,
    ) -> Result<(Box<Self>, Vec<u8>), Box<Refused>> {
        let received_ns = now_ns();
        let trusted_peer = context.config.forwarded_allow.contains(owned.peer.ip);
        let policy = context.config.policy(trusted_peer);
        if policy.rewrites() {
            normalize(&mut owned.bytes, policy);
        }
        let secure = owned.tls.is_some();
        let look = |head: &Head<'_>, headers: &[Header<'_>]| {
            let said = if trusted_peer { context.config.schemes.decide(headers)? } else { None };
            let scheme = said.unwrap_or(if secure { "https" } else { "http" });
            check_scheme(head.absolute_scheme, scheme, trusted_peer)?;
            let decision =
                Decision { scheme, trusted_peer, received_ns, id: context.count_request() };
            Ok((decision, Seen::new(policy, head)))
        };
        let Parsed { head, seen, behind } = OwnedHead::parse(owned, policy, look)?;
        let token = context.host.request_started(head.get());
        let turn = Box::new(Self {
            head,
            body: seen.body,
            spool: None,
            ready_ns: 0,
            body_begun: false,
            expects_continue: seen.expects_continue,
            persistent: seen.persistent,
            is_head_method: seen.is_head_method,
            is_connect: seen.is_connect,
            wants_upgrade: seen.wants_upgrade,
            response: Response::default(),
            reading: TransferRate::default(),
            writing: TransferRate::default(),
            streak: 0,
            deadline_ns: deadline_after(received_ns, context.config.request_timeout),
            broken: None,
            token,
        });
        Ok((turn, behind))
    }

    /// The request's head.
    pub(crate) fn request(&self) -> &RequestHead<'_> {
        self.head.get()
    }

    /// Takes the encoded head to send it. What it announces about the connection is binding from here on, so one whose
    /// request may not be read to its end announces that it closes.
    pub(crate) fn take_head(&mut self, input: &[u8]) -> Vec<u8> {
        let response = &mut self.response;
        let mut head = std::mem::take(&mut response.head);
        if !response.on_wire {
            response.on_wire = true;
            if response.plan.keep_alive && !self.body.is_done() && !self.is_worth_reading(input) {
                self.response.plan.announce_close(&mut head);
            }
        }
        head
    }

    /// Whether the rest of the request's body is read to keep the connection where the application does not read it;
    /// `input` is what has come of it already.
    #[cold]
    fn is_worth_reading(&self, input: &[u8]) -> bool {
        if self.expects_continue && input.is_empty() {
            // The client may send the body or not: no one can tell where the next request begins (RFC 9110 10.1.1).
            return false;
        }
        // An application that has begun to read reads on, usually. Where it does not, the promise is kept all the same.
        self.body_begun
            || match self.head.get().content_length {
                ROption::RSome(_) => {
                    self.body.remaining_hint().is_some_and(|rest| rest <= UNREAD_MAX)
                }
                // Its length is known once its end is there.
                ROption::RNone => self.body.ends_within(input),
            }
    }

    /// Tells the host that the request is over: access log, counters, hooks.
    pub(crate) fn record(&self, context: &ServerContext, ended_ns: u64) {
        let head = self.head.get();
        let fields: Vec<Header<'_>> =
            self.response.fields.iter().map(|(name, value)| Header::new(name, value)).collect();
        let record = AccessRecord {
            head: ROption::RSome(head),
            request_line: RSlice::EMPTY,
            peer: head.peer,
            status: self.response.status,
            body_bytes: self.response.written,
            duration_ns: ended_ns.saturating_sub(head.received_ns),
            response_headers: fields.as_slice().into(),
        };
        context.host.request_ended(self.token, &record);
    }
}

impl Seen {
    fn new(policy: &Policy, head: &Head<'_>) -> Self {
        Self {
            body: BodyDecoder::new(head.framing, policy),
            expects_continue: head.expect_continue,
            persistent: head.persistent(),
            is_head_method: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            wants_upgrade: head.connection.upgrade,
        }
    }
}

/// A body of known length of which more than this is left unread is not worth reading to keep the connection: a new one
/// costs less.
const UNREAD_MAX: u64 = 256 << 10;
