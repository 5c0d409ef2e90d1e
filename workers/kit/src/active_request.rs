//! The state of one request on a connection, from its head to the end of its response.

use std::sync::Arc;

use worker_api::abi::std_types::{ROption, RSlice};
use worker_api::{AccessRecord, Counter, Failure, Header, RequestHead};

use crate::clock::now_ns;
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::owned_head::{Decision, Owned, OwnedHead, Parsed, Refused};
use crate::spool::Spool;
use crate::transfer_rate::TransferRate;
use jimu_http1::forwarded::check_scheme;
use jimu_http1::{BodyDecoder, BodyPlan, Head, Policy, normalize};

/// The request that a connection is serving.
pub(crate) struct ActiveRequest {
    pub(crate) stage: Stage,
    pub(crate) head: OwnedHead,
    pub(crate) body: BodyDecoder,
    /// The part of the body that was buffered before the application was called; it is read first.
    pub(crate) spool: Option<Box<Spool>>,
    /// When buffering of the body completed, in monotonic nanoseconds; 0 if it was not buffered.
    pub(crate) ready_ns: u64,
    /// Whether the application has read some of the body.
    pub(crate) body_begun: bool,
    /// Whether the client waits for `100 Continue` before sending the body.
    pub(crate) expects_continue: bool,
    /// Whether the client accepts to keep the connection open.
    pub(crate) persistent: bool,
    pub(crate) is_head_method: bool,
    pub(crate) is_connect: bool,
    pub(crate) wants_upgrade: bool,
    pub(crate) response: Response,
    /// The rates at which the body arrives and the response is sent.
    pub(crate) reading: TransferRate,
    pub(crate) writing: TransferRate,
    /// Consecutive operations that did not have to wait.
    pub(crate) streak: u32,
    /// The deadline of the response.
    pub(crate) deadline: Deadline,
    /// The failure after which nothing more can be done with the exchange.
    pub(crate) broken: Option<Failure>,
    token: u32,
}

/// Who works on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The connection, which buffers the body before the application is called.
    Intake,
    /// An exchange.
    Exchange,
}

/// The response so far.
pub(crate) struct Response {
    /// The status that was set; 0 before the response is started.
    pub(crate) status: u16,
    /// The encoded head, until it is handed to the socket.
    pub(crate) head: Vec<u8>,
    /// Whether the head has been handed to the socket.
    pub(crate) on_wire: bool,
    pub(crate) plan: BodyPlan,
    /// The bytes of the body written so far, without framing.
    pub(crate) written: u64,
    /// The last chunk with its trailers; empty for the plain last chunk.
    pub(crate) trailers: Vec<u8>,
    /// Whether a warning about a body that must not be sent has been logged.
    pub(crate) warned: bool,
    /// The response's headers, if the access log needs them.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// Properties of a request that the connection needs after parsing.
struct Properties {
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
            headers: Vec::new(),
        }
    }
}

impl ActiveRequest {
    /// Parses the head at the start of `owned.bytes` and starts its request. Also returns the bytes that
    /// follow the head.
    pub(crate) fn begin(
        context: &Arc<ServerContext>,
        mut owned: Owned,
        trusted_peer: bool,
    ) -> Result<(Box<Self>, Vec<u8>), Box<Refused>> {
        let received_ns = now_ns();
        let policy = context.config.policy(trusted_peer);
        if policy.rewrites() {
            normalize(&mut owned.bytes, policy);
        }
        let secure = owned.tls.is_some();
        let look = |head: &Head<'_>, headers: &[Header<'_>]| {
            let forwarded =
                if trusted_peer { context.config.schemes.decide(headers)? } else { None };
            let scheme = forwarded.unwrap_or(if secure { "https" } else { "http" });
            check_scheme(head.absolute_scheme, scheme, trusted_peer)?;
            let decision =
                Decision { scheme, trusted_peer, received_ns, id: context.count_request() };
            Ok((decision, Properties::new(policy, head)))
        };
        let Parsed { head, properties, following } = OwnedHead::parse(owned, policy, look)?;
        let token = context.host.request_started(head.get());
        let active = Box::new(Self {
            stage: Stage::Intake,
            head,
            body: properties.body,
            spool: None,
            ready_ns: 0,
            body_begun: false,
            expects_continue: properties.expects_continue,
            persistent: properties.persistent,
            is_head_method: properties.is_head_method,
            is_connect: properties.is_connect,
            wants_upgrade: properties.wants_upgrade,
            response: Response::default(),
            reading: TransferRate::default(),
            writing: TransferRate::default(),
            streak: 0,
            deadline: Deadline::after(received_ns, context.config.request_timeout),
            broken: None,
            token,
        });
        Ok((active, following))
    }

    /// Returns the request's head.
    pub(crate) fn head(&self) -> &RequestHead<'_> {
        self.head.get()
    }

    /// Returns whether to read the rest of the request's body to keep the connection if the application does
    /// not read it. `input` holds the bytes that have arrived already.
    #[cold]
    pub(crate) fn is_worth_reading(&self, input: &[u8]) -> bool {
        if self.expects_continue && input.is_empty() {
            // The client may send the body or not, so the start of the next request cannot be
            // determined (RFC 9110 10.1.1).
            return false;
        }
        // An application that has begun to read the body usually reads all of it. If it does not, the rest
        // is read anyway.
        self.body_begun
            || match self.head.get().content_length {
                ROption::RSome(_) => {
                    self.body.remaining_hint().is_some_and(|rest| rest <= UNREAD_MAX)
                }
                // Its length is known only once its end has arrived.
                ROption::RNone => self.body.ends_within(input).unwrap_or(false),
            }
    }

    /// Reports the end of the request to the host: access log, counters, hooks.
    pub(crate) fn record(&self, context: &ServerContext, ended_ns: u64) {
        if self.is_upgraded() {
            context.host.count(Counter::UPGRADED, -1);
        }
        let head = self.head.get();
        let headers: Vec<Header<'_>> =
            self.response.headers.iter().map(|(name, value)| Header::new(name, value)).collect();
        let record = AccessRecord {
            head: ROption::RSome(head),
            request_line: RSlice::EMPTY,
            peer: head.peer,
            status: self.response.status,
            body_bytes: self.response.written,
            duration_ns: ended_ns.saturating_sub(head.received_ns),
            response_headers: headers.as_slice().into(),
        };
        context.host.request_ended(self.token, &record);
    }
}

impl Properties {
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

/// The most bytes of an unread body of known length that are read to keep the connection: beyond that, a new
/// connection is cheaper.
const UNREAD_MAX: u64 = 256 << 10;
