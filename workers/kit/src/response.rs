//! Answering on a connection: the head is held back until the body's first bytes, so that a small response is one
//! system call.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::RawFd;

use worker_api::raw::{Interest, Step};
use worker_api::{Failure, FailureKind, Header, RequestHead, Waker};

use crate::active_request::ActiveRequest;
use crate::buffer;
use crate::clock::now_ns;
use crate::connection::{Connection, Then};
use crate::context::ServerContext;
use crate::driver::ConnectionDriver;
use crate::request::{ran_over, whole};
use crate::socket;
use crate::wire;
use http1::response::{CHUNK_END, LAST_CHUNK, chunk_head, encode_informational, encode_trailers};
use http1::{BodyKind, ResponseContext, encode_head};

impl Connection {
    /// Takes the head of the response; replaces one that is not on the wire yet.
    pub(crate) fn start(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        let keep_alive = self.context.config.keepalive.is_some() && !self.context.draining();
        let keeps_fields = self.context.wants_response_headers;
        let date = ServerContext::date();
        let Self { context, turn, .. } = self;
        let turn = whole(turn.as_deref_mut())?;
        if turn.response.on_wire {
            return Err(Failure::application(
                "the response's head is on its way: it cannot be replaced",
            ));
        }
        let response_context = ResponseContext {
            version: turn.request().version,
            head_method: turn.is_head_method,
            connect: turn.is_connect,
            upgrade: turn.wants_upgrade,
            keep_alive: keep_alive && turn.persistent,
            server: context.config.server.as_deref(),
            date: &date,
            style: context.style,
        };
        let mut head = match std::mem::take(&mut turn.response.head) {
            none if none.capacity() == 0 => buffer::spare(),
            replaced => replaced,
        };
        head.clear();
        let plan = encode_head(&mut head, &response_context, status, reason, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if plan.left_out {
            context.warn_of_left_out(headers, status);
        }
        turn.response.head = head;
        turn.response.plan = plan;
        turn.response.status = status;
        turn.response.fields = if keeps_fields {
            headers.iter().map(|h| (h.name.to_string(), h.value.to_vec())).collect()
        } else {
            Vec::new()
        };
        if status == 101 {
            // The client waits for it before it speaks the other protocol.
            self.take_wire()?;
            let head = self.turn()?.take_head(&[]);
            self.push(&[&head])?;
        }
        Ok(())
    }

    /// Takes the right to write to the client. Fails where the request was answered because its time was up.
    pub(crate) fn take_wire(&mut self) -> Result<(), Failure> {
        if self.wire.take() { Ok(()) } else { Err(self.break_with(ran_over())) }
    }

    /// Writes a part of the body.
    pub(crate) fn poll_write(
        &mut self,
        bytes: &[u8],
        waker: Option<Waker>,
        home: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, home) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_write(bytes) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.not_yet(Interest::WRITE, waker, home),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends a part of a file as a part of the body.
    pub(crate) fn poll_send_file(
        &mut self,
        file: RawFd,
        offset: u64,
        len: u64,
        waker: Option<Waker>,
        home: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, home) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_send_file(file, offset, len) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.not_yet(Interest::WRITE, waker, home),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends an informational response ahead of the final one; a client of HTTP/1.0 does not know them.
    pub(crate) fn informational(
        &mut self,
        status: u16,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        let turn = self.turn()?;
        if turn.response.on_wire {
            return Err(Failure::application(
                "an informational response comes before the final one",
            ));
        }
        let version = turn.request().version;
        let sent = encode_informational(self.output.append(), version, status, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if sent { self.push_interim() } else { Ok(()) }
    }

    /// Takes the trailer fields; they go out at the end of a body in chunks.
    pub(crate) fn trailers(&mut self, headers: &[Header<'_>]) -> Result<(), Failure> {
        let turn = self.turn()?;
        turn.response.trailers.clear();
        encode_trailers(&mut turn.response.trailers, headers)
            .map_err(|fault| Failure::application(fault.to_string()))
    }

    /// Ends the response. Fails, and leaves the request open, where there is none to end.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let turn = self.turn()?;
        let response = &mut turn.response;
        if response.status == 0 {
            return Err(Failure::application(
                "the application ended the request without a response",
            ));
        }
        if let BodyKind::Length(length) = response.plan.kind
            && response.written < length
        {
            let words = format!(
                "the response's body is shorter than its Content-Length: {} of {length} bytes",
                response.written
            );
            return Err(self.break_with(Failure::application(words)));
        }
        let mut last = self.take_head()?;
        let response = &self.turn()?.response;
        if response.plan.kind == BodyKind::Chunked {
            let end = if response.trailers.is_empty() { LAST_CHUNK } else { &response.trailers };
            last.extend_from_slice(end);
        }
        if !last.is_empty() {
            self.push(&[&last])?;
        }
        buffer::give_back(last);
        let then = self.what_follows();
        self.end_request(then);
        Ok(())
    }

    /// Ends the response for a failure: an error answer while nothing is on the wire, a cut otherwise.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        let debug = self.context.config.debug_errors;
        let Some(turn) = self.turn.as_deref_mut() else { return };
        log_failure(turn.request(), failure);
        let response = &mut turn.response;
        if response.on_wire {
            // A body without framing ends with the connection: only a reset tells that it is cut.
            let cut =
                if response.plan.kind == BodyKind::UntilClose { Then::Abort } else { Then::Linger };
            return self.end_request(cut);
        }
        if failure.kind == FailureKind::GONE {
            return self.end_request(Then::Close);
        }
        if !self.wire.take() {
            return self.end_request(Then::Linger);
        }
        let status = if failure.status == 0 { 500 } else { failure.status };
        let detail = debug.then(|| failure.to_string());
        let is_head = turn.is_head_method;
        let answer =
            self.context.error_answer(turn.head.get().version, is_head, status, detail.as_deref());
        response.status = status;
        response.written = 0;
        response.on_wire = true;
        self.output.append().extend_from_slice(&answer);
        self.end_request(Then::Linger);
    }

    /// Cuts the connection, whatever it is doing.
    pub(crate) fn abort(&mut self) {
        self.end_request(Then::Abort);
    }

    /// Closes the request's account and says what becomes of the connection.
    pub(crate) fn end_request(&mut self, then: Then) {
        let ended_ns = now_ns();
        let answered = self.wire.close();
        // A reset would take the answer away from a client that has not read it.
        let then = if answered { Then::Linger } else { then };
        if let Some(mut turn) = self.turn.take() {
            if answered {
                turn.response.status = wire::STATUS;
                turn.response.written = 0;
            }
            turn.record(&self.context, ended_ns);
            let ActiveRequest { head, body, .. } = *turn;
            self.body = (then == Then::Next && !body.is_done()).then_some(body);
            head.recycle();
        }
        self.end_turn(then, ended_ns);
    }

    /// Takes the encoded head to send it: see [`ActiveRequest::take_head`].
    fn take_head(&mut self) -> Result<Vec<u8>, Failure> {
        self.take_wire()?;
        let Self { turn, input, .. } = self;
        Ok(whole(turn.as_deref_mut())?.take_head(input.unused()))
    }

    /// Hands `parts` to the socket behind what is unsent; keeps what it does not take.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        let Self { stream, output, .. } = self;
        match output.send(parts, |slices| stream.write(slices)) {
            Ok(count) => {
                if let Some(turn) = self.turn.as_deref_mut() {
                    turn.writing.moved(count);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.break_with(Failure::from(error))),
        }
    }

    /// Sends an interim response. What the kernel does not take of it is sent with the final one, which no one else may
    /// send then.
    pub(crate) fn push_interim(&mut self) -> Result<(), Failure> {
        self.push(&[])?;
        if self.output.is_empty() { Ok(()) } else { self.take_wire() }
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let whole = bytes;
        let bytes = &bytes[..bytes.len().min(WRITE_MAX)];
        if self.prepare_write(bytes.len() as u64)? == Ready::No {
            return Ok(self.keep_rest(whole).then_some(whole.len()));
        }
        let turn = self.turn()?;
        let response = &mut turn.response;
        if bytes.is_empty() || matches!(response.plan.kind, BodyKind::None { .. }) {
            return Ok(Some(bytes.len()));
        }
        response.written += bytes.len() as u64;
        let chunked = response.plan.kind == BodyKind::Chunked;
        let mut head = self.take_head()?;
        if chunked {
            head.extend_from_slice(chunk_head(bytes.len()).as_slice());
        }
        if bytes.len() <= COPY_MAX {
            // One buffer and one plain write are cheaper than gathering two.
            head.extend_from_slice(bytes);
            if chunked {
                head.extend_from_slice(CHUNK_END);
            }
            self.push(&[&head])?;
        } else {
            self.push(&[&head, bytes, if chunked { CHUNK_END } else { b"" }])?;
        }
        buffer::give_back(head);
        Ok(Some(bytes.len()))
    }

    fn try_send_file(
        &mut self,
        file: RawFd,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Failure> {
        let count = len.min(SEND_FILE_MAX) as usize;
        let kept = |connection: &mut Self| {
            Ok(connection.keep_file(file, offset, len).then_some(len as usize))
        };
        if self.prepare_write(count as u64)? == Ready::No {
            return kept(self);
        }
        let sendfile = self.context.config.sendfile && self.stream.can_send_file();
        let turn = self.turn()?;
        let response = &mut turn.response;
        if matches!(response.plan.kind, BodyKind::None { .. }) {
            return Ok(Some(count));
        }
        if !sendfile || response.plan.kind == BodyKind::Chunked {
            return self.copy_file(file, offset, count);
        }
        if !response.on_wire {
            let head = self.take_head()?;
            self.push(&[&head])?;
        }
        if !self.output.is_empty() {
            self.push(&[])?;
        }
        if !self.output.is_empty() {
            return kept(self);
        }
        match self.stream.send_file(file, offset, count) {
            Ok(0) => Err(file_too_short()),
            Ok(sent) => {
                let turn = self.turn()?;
                turn.response.written += sent as u64;
                turn.writing.moved(sent);
                Ok(Some(sent))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => kept(self),
            // A file that the kernel cannot send from, one of a pipe or of some file systems, is read instead.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.copy_file(file, offset, count)
            }
            Err(error) => Err(Failure::from(error)),
        }
    }

    fn copy_file(
        &mut self,
        file: RawFd,
        offset: u64,
        count: usize,
    ) -> Result<Option<usize>, Failure> {
        let mut buffer = vec![0; count.min(WRITE_MAX)];
        let read = socket::read_file(file, &mut buffer, offset)
            .map_err(|error| Failure::io("cannot read the file to send", &error))?;
        if read == 0 {
            return Err(file_too_short());
        }
        self.try_write(&buffer[..read])
    }

    /// Checks that so many bytes more may be written, and that there is room for them.
    fn prepare_write(&mut self, more: u64) -> Result<Ready, Failure> {
        let turn = self.turn()?;
        let response = &mut turn.response;
        match response.plan.kind {
            _ if response.status == 0 => {
                return Err(Failure::application(
                    "a body was written before the response was started",
                ));
            }
            BodyKind::Length(length) if response.written + more > length => {
                let words = format!(
                    "the response's body is longer than its Content-Length: {} of {length} bytes",
                    response.written + more
                );
                return Err(Failure::application(words));
            }
            BodyKind::None { warn_if_body: true } if more > 0 && !response.warned => {
                response.warned = true;
                let status = response.status;
                tracing::warn!(
                    "a response with status {status} has no body: what the application wrote is left out"
                );
            }
            _ => {}
        }
        if self.tail.is_some() {
            // The application has written all of the body.
            return Ok(Ready::Yes);
        }
        if self.output.len() >= HIGH_WATER {
            self.push(&[])?;
        }
        Ok(if self.output.len() >= HIGH_WATER { Ready::No } else { Ready::Yes })
    }

    /// What becomes of the connection behind a complete response.
    fn what_follows(&self) -> Then {
        let Some(turn) = self.turn.as_deref() else { return Then::Close };
        if turn.response.plan.keep_alive {
            Then::Next
        } else if !turn.persistent && turn.body.is_done() && self.input.is_empty() {
            Then::Close
        } else {
            Then::Linger
        }
    }
}

/// Whether there is room to write.
#[derive(PartialEq, Eq)]
enum Ready {
    Yes,
    No,
}

fn file_too_short() -> Failure {
    Failure::application("the file to send is shorter than what was to be sent of it")
}

fn log_failure(request: &RequestHead<'_>, failure: &Failure) {
    let path = request.target.as_slice().escape_ascii();
    let method = request.method;
    let story = Story(failure);
    match failure.kind {
        FailureKind::GONE | FailureKind::INTERRUPTED => {
            tracing::debug!("{method} {path}: {story}");
        }
        FailureKind::TIMEOUT | FailureKind::PROTOCOL | FailureKind::TOO_LARGE => {
            tracing::warn!("{method} {path}: {story}");
        }
        _ => tracing::error!("{method} {path}: {story}"),
    }
}

/// A failure as one record of the log: causes of one line behind the message, others, which are tracebacks, below it.
struct Story<'a>(&'a Failure);

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.0.chain.iter().try_for_each(|cause| match cause.trim_end() {
            lines if lines.contains('\n') => write!(f, "\n{lines}"),
            line => write!(f, ": {line}"),
        })
    }
}

/// Above so many bytes that the socket has not taken, a write is "not yet".
const HIGH_WATER: usize = 64 << 10;
/// The most that one write takes: what is kept of it at the worst is memory that each connection may hold.
const WRITE_MAX: usize = 128 << 10;
/// The most that one `sendfile` takes: a fair turn.
const SEND_FILE_MAX: u64 = 1 << 20;
/// Up to here a body is copied behind its head.
const COPY_MAX: usize = 4 << 10;
