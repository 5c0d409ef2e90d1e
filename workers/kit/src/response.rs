//! Sending a response: the head is held back until the first bytes of the body, so that a small response takes
//! one system call.

use std::fmt;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::RawFd;

use worker_api::raw::{Interest, Step};
use worker_api::{Failure, FailureKind, Header, RequestHead, Waker};

use crate::active_request::ActiveRequest;
use crate::buffer;
use crate::context::ServerContext;
use crate::driver::ConnectionDriver;
use crate::io::Io;
use crate::request::request_timed_out;
use crate::socket;
use crate::state::Then;
use jimu_http1::response::{
    CHUNK_END, LAST_CHUNK, chunk_head, encode_informational, encode_trailers,
};
use jimu_http1::{BodyKind, ResponseContext, encode_head};

impl ActiveRequest {
    /// Sets the head of the response; replaces one that has not been sent yet.
    pub(crate) fn start(
        &mut self,
        io: &mut Io,
        status: u16,
        reason: &str,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        let keep_alive = io.context.config.keepalive.is_some() && !io.context.draining();
        let keeps_headers = io.context.wants_response_headers;
        let date = ServerContext::date();
        self.check_unbroken()?;
        if self.response.on_wire {
            return Err(Failure::application(
                "the response's head has been sent: it cannot be replaced",
            ));
        }
        let response_context = ResponseContext {
            version: self.head().version,
            head_method: self.is_head_method,
            connect: self.is_connect,
            upgrade: self.wants_upgrade,
            keep_alive: keep_alive && self.persistent,
            server: io.context.config.server.as_deref(),
            date: &date,
            style: io.context.style,
        };
        let mut head = match std::mem::take(&mut self.response.head) {
            empty if empty.capacity() == 0 => buffer::spare(),
            replaced => replaced,
        };
        head.clear();
        let plan = encode_head(&mut head, &response_context, status, reason, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if plan.upgrade && !self.body.is_done() {
            return Err(Failure::application(
                "cannot switch protocols before the request's body has been read",
            ));
        }
        if plan.left_out {
            io.context.warn_of_removed_header(headers, status);
        }
        self.response.head = head;
        self.response.plan = plan;
        self.response.status = status;
        self.response.headers = if keeps_headers {
            headers.iter().map(|h| (h.name.to_string(), h.value.to_vec())).collect()
        } else {
            Vec::new()
        };
        if plan.upgrade { self.upgrade(io) } else { Ok(()) }
    }

    /// Acquires the right to write to the client. Fails if another thread has already responded because the
    /// request's time was up.
    pub(crate) fn take_wire(&mut self, io: &Io) -> Result<(), Failure> {
        if io.wire.take() { Ok(()) } else { Err(self.break_with(request_timed_out())) }
    }

    /// Writes a part of the body.
    pub(crate) fn poll_write(
        &mut self,
        io: &mut Io,
        bytes: &[u8],
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, driver) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_write(io, bytes) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(io, Interest::WRITE, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends a range of a file as a part of the body.
    pub(crate) fn poll_send_file(
        &mut self,
        io: &mut Io,
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
        match self.try_send_file(io, file, offset, len) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(io, Interest::WRITE, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Sends an informational response ahead of the final one; not to clients of HTTP/1.0, which do not
    /// support them.
    pub(crate) fn informational(
        &mut self,
        io: &mut Io,
        status: u16,
        headers: &[Header<'_>],
    ) -> Result<(), Failure> {
        self.check_unbroken()?;
        if self.response.on_wire {
            return Err(Failure::application(
                "an informational response must precede the final one",
            ));
        }
        let version = self.head().version;
        let sent = encode_informational(io.output.append(), version, status, headers)
            .map_err(|fault| Failure::application(fault.to_string()))?;
        if sent { self.push_interim(io) } else { Ok(()) }
    }

    /// Sets the trailers, which are sent at the end of a chunked body.
    pub(crate) fn trailers(&mut self, headers: &[Header<'_>]) -> Result<(), Failure> {
        self.check_unbroken()?;
        self.response.trailers.clear();
        encode_trailers(&mut self.response.trailers, headers)
            .map_err(|fault| Failure::application(fault.to_string()))
    }

    /// Ends the response, and returns what follows it. If it is incomplete, fails and leaves the request open.
    pub(crate) fn finish(&mut self, io: &mut Io) -> Result<Then, Failure> {
        self.check_unbroken()?;
        let response = &self.response;
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
        let mut last = self.take_head(io)?;
        let response = &self.response;
        if response.plan.kind == BodyKind::Chunked {
            let end = if response.trailers.is_empty() { LAST_CHUNK } else { &response.trailers };
            last.extend_from_slice(end);
        }
        if !last.is_empty() {
            self.push(io, &[&last])?;
        }
        buffer::recycle(last);
        Ok(self.what_follows(io))
    }

    /// Responds to a failure: with an error response if nothing was sent yet, else by cutting the response. Returns
    /// what follows.
    pub(crate) fn fail(&mut self, io: &mut Io, failure: &Failure) -> Then {
        log_failure(self.head(), failure);
        if self.response.on_wire {
            // A body without framing ends with the connection: only a reset shows that it is
            // truncated.
            let is_framed = self.response.plan.kind != BodyKind::UntilClose;
            return if is_framed { Then::Linger } else { Then::Abort };
        }
        if failure.kind == FailureKind::GONE {
            return Then::Close;
        }
        if !io.wire.take() {
            return Then::Linger;
        }
        let status = if failure.status == 0 { 500 } else { failure.status };
        let detail = io.context.config.debug_errors.then(|| failure.to_string());
        let answer = io.context.error_response(
            self.head().version,
            self.is_head_method,
            status,
            detail.as_deref(),
        );
        self.response.status = status;
        self.response.written = 0;
        self.response.on_wire = true;
        io.output.append().extend_from_slice(&answer);
        Then::Linger
    }

    /// Takes the encoded head to send it. What it announces about the connection is final from here on, so if
    /// the rest of the request's body will not be read, the head is changed to announce that the connection
    /// closes.
    pub(crate) fn take_head(&mut self, io: &Io) -> Result<Vec<u8>, Failure> {
        self.take_wire(io)?;
        let mut head = std::mem::take(&mut self.response.head);
        if !self.response.on_wire {
            self.response.on_wire = true;
            if self.response.plan.keep_alive
                && !self.body.is_done()
                && !self.is_worth_reading(io.input.unused())
            {
                self.response.plan.announce_close(&mut head);
            }
        }
        Ok(head)
    }

    /// Hands `parts` to the socket after the unsent bytes; keeps what the socket does not accept, and the end of a
    /// response that is sent together with the next one.
    pub(crate) fn push(&mut self, io: &mut Io, parts: &[&[u8]]) -> Result<(), Failure> {
        if !parts.is_empty() && self.is_followed(io) && io.output.hold(parts) {
            return Ok(());
        }
        let Io { stream, output, .. } = io;
        match output.send(parts, |slices| stream.write(slices)) {
            Ok(count) => {
                self.writing.moved(count);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.break_with(Failure::from(error))),
        }
    }

    /// Returns whether the response ends here and the next request has arrived.
    fn is_followed(&self, io: &Io) -> bool {
        let next = io.input.unused();
        let response = &self.response;
        !next.is_empty()
            && self.body.is_done()
            && response.plan.keep_alive
            && response.plan.kind == BodyKind::Length(response.written)
            && io.stream.is_plain()
            && memchr::memmem::find(next, b"\r\n\r\n").is_some()
            && io.context.batches.can_hold()
    }

    /// Sends an interim response. What the kernel does not accept is sent with the final response, which no
    /// other thread may send then.
    pub(crate) fn push_interim(&mut self, io: &mut Io) -> Result<(), Failure> {
        self.push(io, &[])?;
        if io.output.is_empty() { Ok(()) } else { self.take_wire(io) }
    }

    fn try_write(&mut self, io: &mut Io, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        if self.is_upgraded() {
            return self.write_raw(io, bytes);
        }
        let whole = bytes;
        let bytes = &bytes[..bytes.len().min(WRITE_MAX)];
        if self.prepare_write(io, bytes.len() as u64)? == Ready::No {
            return Ok(self.keep_rest(io, whole).then_some(whole.len()));
        }
        let response = &mut self.response;
        if bytes.is_empty() || matches!(response.plan.kind, BodyKind::None { .. }) {
            return Ok(Some(bytes.len()));
        }
        response.written += bytes.len() as u64;
        let chunked = response.plan.kind == BodyKind::Chunked;
        let mut head = self.take_head(io)?;
        if chunked {
            head.extend_from_slice(chunk_head(bytes.len()).as_slice());
        }
        if bytes.len() <= COPY_MAX {
            // One buffer and one plain write are cheaper than a vectored write.
            head.extend_from_slice(bytes);
            if chunked {
                head.extend_from_slice(CHUNK_END);
            }
            self.push(io, &[&head])?;
        } else {
            self.push(io, &[&head, bytes, if chunked { CHUNK_END } else { b"" }])?;
        }
        buffer::recycle(head);
        Ok(Some(bytes.len()))
    }

    fn try_send_file(
        &mut self,
        io: &mut Io,
        file: RawFd,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Failure> {
        let count = len.min(SEND_FILE_MAX) as usize;
        let kept = |request: &mut Self, io: &mut Io| {
            Ok(request.keep_file(io, file, offset, len).then_some(len as usize))
        };
        if self.prepare_write(io, count as u64)? == Ready::No {
            return kept(self, io);
        }
        let sendfile = io.context.config.sendfile && io.stream.can_send_file();
        let response = &self.response;
        if matches!(response.plan.kind, BodyKind::None { .. }) {
            return Ok(Some(count));
        }
        if !sendfile || response.plan.kind == BodyKind::Chunked {
            return self.copy_file(io, file, offset, count);
        }
        if !response.on_wire {
            let head = self.take_head(io)?;
            self.push(io, &[&head])?;
        }
        if !io.output.is_empty() {
            self.push(io, &[])?;
        }
        if !io.output.is_empty() {
            return kept(self, io);
        }
        match io.stream.send_file(file, offset, count) {
            Ok(0) => Err(file_too_short()),
            Ok(sent) => {
                self.response.written += sent as u64;
                self.writing.moved(sent);
                Ok(Some(sent))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => kept(self, io),
            // The kernel cannot send from this file (a pipe, or some file systems): read it instead.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.copy_file(io, file, offset, count)
            }
            Err(error) => Err(Failure::from(error)),
        }
    }

    fn copy_file(
        &mut self,
        io: &mut Io,
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
        self.try_write(io, &buffer[..read])
    }

    /// Checks that `more` bytes may be written, and returns whether there is room for them.
    fn prepare_write(&mut self, io: &mut Io, more: u64) -> Result<Ready, Failure> {
        self.check_unbroken()?;
        let response = &mut self.response;
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
        if io.tail.is_some() {
            // The application has written the whole body.
            return Ok(Ready::Yes);
        }
        if io.output.len() >= HIGH_WATER {
            self.push(io, &[])?;
        }
        Ok(if io.output.len() >= HIGH_WATER { Ready::No } else { Ready::Yes })
    }

    /// Returns what happens to the connection after a complete response.
    fn what_follows(&self, io: &Io) -> Then {
        if self.response.plan.keep_alive {
            Then::Next
        } else if !self.persistent
            && !self.is_upgraded()
            && self.body.is_done()
            && io.input.is_empty()
        {
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
