//! The states of a connection, each with the data that only it needs: little, because an idle connection is one of many.
//!
//! ```text
//!   Proxy ──> Head ──complete──> Request ──> Flush ──> Drain ──> Head        (kept alive)
//!     └─────────┴────rejected──────────────────^  └──> Linger ──> Closed
//! ```
//!
//! A request begins in its intake, if its body is buffered, and continues in its exchange ([`Stage`]). Every state may
//! also end in `Closed`.
//!
//! [`Stage`]: crate::active_request::Stage

use worker_api::Interest;

use crate::active_request::ActiveRequest;
use crate::clock::now_ns;
use crate::deadline::Deadline;
use crate::io::Io;
use crate::transfer_rate::TransferRate;
use jimu_http1::{BodyDecoder, HeadScan};

/// What a connection is doing.
pub(crate) enum State {
    /// Reading an optional PROXY header.
    Proxy(Proxy),
    /// Waiting for a head, or reading it.
    Head(HeadReader),
    /// Serving a request, from a complete head to the end of its response.
    Request(Box<ActiveRequest>),
    /// Sending the rest of a response.
    Flush(Flush),
    /// Reading the rest of a request's body, to keep the connection.
    Drain(Drain),
    /// Our side is shut down; reading until the client closes its side too, so that the connection is not
    /// reset (RFC 9112 9.6).
    Linger(Linger),
    /// Finished.
    Closed,
}

/// See [`State::Proxy`].
pub(crate) struct Proxy {
    /// Whether the peer may send a PROXY header.
    pub(crate) is_allowed: bool,
    /// When the connection was accepted.
    pub(crate) waits_since_ns: u64,
}

/// See [`State::Head`].
pub(crate) struct HeadReader {
    /// The scan of a head that has not arrived at once.
    pub(crate) scan: Option<Box<HeadScan>>,
    /// Whether a read is worth its system call.
    pub(crate) readable: bool,
    /// Whether the connection has served a request before.
    pub(crate) kept_alive: bool,
    /// When the first byte of the head arrived, in monotonic nanoseconds; 0 before that.
    pub(crate) began_ns: u64,
    /// Since when the connection waits for the head. If it was kept alive, the first byte of the head starts the
    /// wait again.
    pub(crate) waits_since_ns: u64,
}

/// See [`State::Flush`].
pub(crate) struct Flush {
    pub(crate) then: Then,
    /// The rest of the body of the request, to be read before the next one.
    pub(crate) body: Option<Box<BodyDecoder>>,
}

/// See [`State::Drain`].
pub(crate) struct Drain {
    pub(crate) body: Box<BodyDecoder>,
    /// The rate at which the client sends the body.
    pub(crate) rate: TransferRate,
}

/// See [`State::Linger`].
pub(crate) struct Linger {
    /// The rate at which the client sends what is discarded.
    pub(crate) rate: TransferRate,
    pub(crate) waits_since_ns: u64,
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

/// The result of advancing a state.
pub(crate) enum Step {
    /// The state waits for the descriptor.
    Wait(Interest),
    /// Another state follows.
    Enter(State),
    /// A complete head has arrived.
    Begin(Box<ActiveRequest>),
    /// The request is ready for its exchange.
    Ready,
    /// The request ends without an exchange.
    End(Then),
    /// The connection is reset.
    Abort,
}

impl Step {
    /// The connection is closed.
    pub(crate) const CLOSE: Self = Self::Enter(State::Closed);
}

impl State {
    /// Starts waiting for a request on a kept-alive connection.
    pub(crate) fn next_head(io: &mut Io, now_ns: u64) -> Self {
        io.deadline = Deadline::after(now_ns, io.context.config.keepalive);
        Self::Head(HeadReader {
            scan: None,
            readable: !io.emptied,
            kept_alive: true,
            began_ns: 0,
            waits_since_ns: now_ns,
        })
    }

    /// Starts sending the rest of a response.
    pub(crate) fn flush(io: &mut Io, then: Then, body: Option<Box<BodyDecoder>>) -> Self {
        if !io.all_sent() {
            io.deadline = Deadline::after(now_ns(), io.context.config.write_timeout);
        }
        Self::Flush(Flush { then, body })
    }

    /// Returns since when the connection has been waiting for a request or for the client to close it; `None` while
    /// it is served.
    pub(crate) fn waits_since_ns(&self) -> Option<u64> {
        match self {
            Self::Proxy(Proxy { waits_since_ns, .. })
            | Self::Head(HeadReader { waits_since_ns, .. })
            | Self::Linger(Linger { waits_since_ns, .. }) => Some(*waits_since_ns),
            Self::Request(_) | Self::Flush(_) | Self::Drain(_) | Self::Closed => None,
        }
    }
}
