//! Sending a response: the head is held back until the first bytes of the body, so that a small response takes
//! one system call.

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
use crate::request::{request_timed_out, unbroken};
use crate::socket;
use crate::wire;
use http1::response::{CHUNK_END, LAST_CHUNK, chunk_head, encode_informational, encode_trailers};
use http1::{BodyKind, ResponseContext, encode_head};

impl Connection {
    /// Sets the head of the response; replaces one that has not been sent yet.
    pub(crate) fn start(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        let keep_alive = self.context.config.keepalive.is_some() && !self.context.draining();
        let keeps_headers = self.context.wants_response_headers;
        let date = ServerContext::date();
        let Self { context, active, .. } = self;
        let active = unbroken(active.as_deref_mut())?;
        if active.response.on_wire {
            return Err(Failure::application(
                "the response's head has been sent: it cannot be replaced",
            ));
        }
        let response_context = ResponseContext {
            version: active.head().version,
            head_method: active.is_head_method,
            connect: active.is_connect,
            upgrade: active.wants_upgrade,
            keep_alive: keep_alive && active.persistent,
            server: context.config.server.as_deref(),
            date: &date,
            style: context.style,
        };
        let mut head = match std::mem::take(&mut active.response.head) {
            empty if empty.capacity() == 0 => buffer::spare(),
            replaced => replaced,
        };
        head.clear();
        let plan = encode_head(&mut head, &response_context, status, reason, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if plan.left_out {
            context.warn_of_removed_header(headers, status);
        }
        active.response.head = head;
        active.response.plan = plan;
        active.response.status = status;
        active.response.headers = if keeps_headers {
            headers.iter().map(|h| (h.name.to_string(), h.value.to_vec())).collect()
        } else {
            Vec::new()
        };
        if status == 101 {
            // The client waits for the head before it switches protocols.
            let head = self.take_head()?;
            self.push(&[&head])?;
        }
        Ok(())
    }

    /// Acquires the right to write to the client. Fails if another thread has already responded because the
    /// request's time was up.
    pub(crate) fn take_wire(&mut self) -> Result<(), Failure> {
        if self.wire.take() { Ok(()) } else { Err(self.break_with(request_timed_out())) }
    }

    /// Writes a part of the body.
    pub(crate) fn poll_write(
        &mut self,
        bytes: &[u8],
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, driver) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_write(bytes) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(Interest::WRITE, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends a range of a file as a part of the body.
    pub(crate) fn poll_send_file(
        &mut self,
        file: RawFd,
        offset: u64,
        len: u64,
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, driver) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_send_file(file, offset, len) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(Interest::WRITE, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends an informational response ahead of the final one; not to clients of HTTP/1.0, which do not
    /// support them.
    pub(crate) fn informational(
        &mut self,
        status: u16,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        let active = self.active()?;
        if active.response.on_wire {
            return Err(Failure::application(
                "an informational response must precede the final one",
            ));
        }
        let version = active.head().version;
        let sent = encode_informational(self.output.append(), version, status, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if sent { self.push_interim() } else { Ok(()) }
    }

    /// Sets the trailers, which are sent at the end of a chunked body.
    pub(crate) fn trailers(&mut self, headers: &[Header<'_>]) -> Result<(), Failure> {
        let active = self.active()?;
        active.response.trailers.clear();
        encode_trailers(&mut active.response.trailers, headers)
            .map_err(|fault| Failure::application(fault.to_string()))
    }

    /// Ends the response. If it is incomplete, fails and leaves the request open.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let active = self.active()?;
        let response = &mut active.response;
        if response.status == 0 {
            return Err(Failure::application(
                "the application ended the request without a response",
            ));
        }
        if let BodyKind::Length(length) = response.plan.kind
            && response.written < length
        {
            let message = format!(
                "the response's body is shorter than its Content-Length: {} of {length} bytes",
                response.written
            );
            return Err(self.break_with(Failure::application(message)));
        }
        let mut last = self.take_head()?;
        let response = &self.active()?.response;
        if response.plan.kind == BodyKind::Chunked {
            let end = if response.trailers.is_empty() { LAST_CHUNK } else { &response.trailers };
            last.extend_from_slice(end);
        }
        if !last.is_empty() {
            self.push(&[&last])?;
        }
        buffer::recycle(last);
        let then = self.what_follows();
        self.end_request(then);
        Ok(())
    }

    /// Ends the request with a failure: with an error response if nothing was sent yet, else by cutting the
    /// response.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        let debug = self.context.config.debug_errors;
        let Some(active) = self.active.as_deref_mut() else { return };
        log_failure(active.head(), failure);
        let response = &mut active.response;
        if response.on_wire {
            // A body without framing ends with the connection: only a reset shows that it is
            // truncated.
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
        let is_head = active.is_head_method;
        let answer = self.context.error_response(
            active.head.get().version,
            is_head,
            status,
            detail.as_deref(),
        );
        response.status = status;
        response.written = 0;
        response.on_wire = true;
        self.output.append().extend_from_slice(&answer);
        self.end_request(Then::Linger);
    }

    /// Cuts the connection, whatever its state.
    pub(crate) fn abort(&mut self) {
        self.end_request(Then::Abort);
    }

    /// Ends the request, reports it to the host, and sets what follows.
    pub(crate) fn end_request(&mut self, then: Then) {
        let ended_ns = now_ns();
        let answered = self.wire.close();
        // A reset would discard a response that the client has not read yet.
        let then = if answered { Then::Linger } else { then };
        if answered {
            // What the other thread discarded is missing in the session's input.
            self.stream.leave_tls();
        }
        if let Some(mut active) = self.active.take() {
            if answered {
                active.response.status = wire::STATUS;
                active.response.written = 0;
            }
            active.record(&self.context, ended_ns);
            let ActiveRequest { head, body, .. } = *active;
            self.body = (then == Then::Next && !body.is_done()).then_some(body);
            head.recycle();
        }
        self.leave_exchange(then, ended_ns);
    }

    /// Takes the encoded head to send it: see [`ActiveRequest::take_head`].
    fn take_head(&mut self) -> Result<Vec<u8>, Failure> {
        self.take_wire()?;
        let Self { active, input, .. } = self;
        Ok(unbroken(active.as_deref_mut())?.take_head(input.unused()))
    }

    /// Hands `parts` to the socket after the unsent bytes; keeps what the socket does not accept.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        let Self { stream, output, .. } = self;
        match output.send(parts, |slices| stream.write(slices)) {
            Ok(count) => {
                if let Some(active) = self.active.as_deref_mut() {
                    active.writing.moved(count);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.break_with(Failure::from(error))),
        }
    }

    /// Sends an interim response. What the kernel does not accept is sent with the final response, which no
    /// other thread may send then.
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
        let active = self.active()?;
        let response = &mut active.response;
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
            // One buffer and one plain write are cheaper than a vectored write.
            head.extend_from_slice(bytes);
            if chunked {
                head.extend_from_slice(CHUNK_END);
            }
            self.push(&[&head])?;
        } else {
            self.push(&[&head, bytes, if chunked { CHUNK_END } else { b"" }])?;
        }
        buffer::recycle(head);
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
        let active = self.active()?;
        let response = &mut active.response;
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
                let active = self.active()?;
                active.response.written += sent as u64;
                active.writing.moved(sent);
                Ok(Some(sent))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => kept(self),
            // The kernel cannot send from this file (a pipe, or some file systems): read it instead.
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

    /// Checks that `more` bytes may be written, and returns whether there is room for them.
    fn prepare_write(&mut self, more: u64) -> Result<Ready, Failure> {
        let active = self.active()?;
        let response = &mut active.response;
        match response.plan.kind {
            _ if response.status == 0 => {
                return Err(Failure::application(
                    "a body was written before the response was started",
                ));
            }
            BodyKind::Length(length) if response.written + more > length => {
                let message = format!(
                    "the response's body is longer than its Content-Length: {} of {length} bytes",
                    response.written + more
                );
                return Err(Failure::application(message));
            }
            BodyKind::None { warn_if_body: true } if more > 0 && !response.warned => {
                response.warned = true;
                let status = response.status;
                tracing::warn!(
                    "a response with status {status} cannot have a body: dropped what the application wrote"
                );
            }
            _ => {}
        }
        if self.tail.is_some() {
            // The application has written the whole body.
            return Ok(Ready::Yes);
        }
        if self.output.len() >= HIGH_WATER {
            self.push(&[])?;
        }
        Ok(if self.output.len() >= HIGH_WATER { Ready::No } else { Ready::Yes })
    }

    /// Returns what happens to the connection after a complete response.
    fn what_follows(&self) -> Then {
        let Some(active) = self.active.as_deref() else { return Then::Close };
        if active.response.plan.keep_alive {
            Then::Next
        } else if !active.persistent && active.body.is_done() && self.input.is_empty() {
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
    Failure::application("the file to send is shorter than the range to send")
}

fn log_failure(request: &RequestHead<'_>, failure: &Failure) {
    let path = request.target.as_slice().escape_ascii();
    let method = request.method;
    let report = Report(failure);
    match failure.kind {
        FailureKind::GONE | FailureKind::INTERRUPTED => {
            tracing::debug!("{method} {path}: {report}");
        }
        FailureKind::TIMEOUT | FailureKind::PROTOCOL | FailureKind::TOO_LARGE => {
            tracing::warn!("{method} {path}: {report}");
        }
        _ => tracing::error!("{method} {path}: {report}"),
    }
}

/// A failure as one log record: one-line causes follow the message, causes of several lines (tracebacks) are
/// appended below it.
struct Report<'a>(&'a Failure);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.0.chain.iter().try_for_each(|cause| match cause.trim_end() {
            lines if lines.contains('\n') => write!(f, "\n{lines}"),
            line => write!(f, ": {line}"),
        })
    }
}

/// The number of unsent bytes at which writes return `Pending`.
const HIGH_WATER: usize = 64 << 10;
/// The most bytes that one write takes. In the worst case the connection keeps all of them in memory.
const WRITE_MAX: usize = 128 << 10;
/// The most bytes that one `sendfile` takes, so that other connections are served too.
const SEND_FILE_MAX: u64 = 1 << 20;
/// Up to this size a body is copied after its head.
const COPY_MAX: usize = 4 << 10;
