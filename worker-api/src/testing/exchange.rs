//! The exchange of a request in memory, and the response that it records.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RVec};

use crate::failure::{Failure, FailureKind, Result};
use crate::head::{Header, RequestHead};
use crate::owned_head::OwnedHead;
use crate::raw::{ExchangeBox, Hijacked, Interest, RawExchange, RawExchange_TO, Step};
use crate::testing::{locked, request::Request};
use crate::waker::Waker;

/// A response, as the client sees it.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Response {
    /// Status; 0 until a part of the response has been sent.
    pub status: u16,
    /// Reason phrase as the application has set it; empty for the standard one.
    pub reason: String,
    /// Headers in order, without those that a server adds. Values are decoded as Latin-1.
    pub headers: Vec<(String, String)>,
    /// Body. Empty for a HEAD.
    pub body: Vec<u8>,
    /// Number of writes by the application.
    pub writes: usize,
    /// Number of parts that were sent from files.
    pub files: usize,
    /// Informational responses (1xx) before it: status and headers.
    pub informational: Vec<(u16, Vec<(String, String)>)>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// Whether the application finished it.
    pub finished: bool,
    /// Failure that ended it.
    pub failed: Option<Failure>,
    /// Whether the application took the connection over.
    pub hijacked: bool,
    is_begun: bool,
}

impl Response {
    /// Returns the value of the first header with this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns whether the client received a complete response of the application.
    pub fn is_complete(&self) -> bool {
        self.finished && self.failed.is_none()
    }

    /// Returns whether the exchange has ended: finished, failed or taken over.
    pub fn is_over(&self) -> bool {
        self.finished || self.failed.is_some() || self.hijacked
    }
}

/// What an exchange in memory has recorded so far. Clones refer to the same exchange.
#[derive(Clone, Debug)]
pub struct Recorded(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    response: Response,
    is_gone: bool,
    on_disconnect: Vec<Waker>,
}

impl Recorded {
    /// Returns the response as it is now.
    pub fn response(&self) -> Response {
        self.lock().response.clone()
    }

    /// Disconnects the client: further operations fail with [`FailureKind::GONE`], and the wakers of
    /// [`crate::Exchange::on_disconnect`] fire.
    pub fn disconnect(&self) {
        let mut state = self.lock();
        state.is_gone = true;
        let wakers = std::mem::take(&mut state.on_disconnect);
        drop(state);
        wakers.iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

/// What completes the pending operations of an exchange.
pub(super) trait Turn: Send + Sync {
    /// Fires a waker in the next turn.
    fn wake_later(&self, waker: Waker);
    /// Has a next turn notice that an exchange has ended.
    fn ended(&self);
}

/// Status, reason and headers, until they are sent.
type Start = (u16, String, Vec<(String, String)>);

pub(super) struct InMemory {
    head: OwnedHead,
    request: Request,
    read: usize,
    /// The caller has waited: the next operation completes.
    waited: bool,
    recorded: Recorded,
    start: Option<Start>,
}

impl InMemory {
    pub(super) fn create(head: OwnedHead, request: Request) -> (ExchangeBox, Recorded) {
        let recorded = Recorded(Arc::default());
        let exchange =
            Self { head, request, read: 0, waited: false, recorded: recorded.clone(), start: None };
        (RawExchange_TO::from_value(exchange, TD_Opaque), recorded)
    }

    /// Returns whether the operation completes only after a turn of the engine, and takes the waker for it.
    fn must_wait(&mut self, waker: ROption<Waker>) -> bool {
        if std::mem::replace(&mut self.waited, false) {
            return false;
        }
        if let (Some(engine), ROption::RSome(waker)) = (&self.request.engine, waker) {
            self.waited = true;
            engine.wake_later(waker);
        }
        true
    }

    fn note_end(&self) {
        if let Some(engine) = &self.request.engine {
            engine.ended();
        }
    }

    fn check_client(&self, limit: Option<usize>, count: usize) -> Result<()> {
        if limit.is_some_and(|limit| count >= limit) {
            self.recorded.disconnect();
        }
        if self.recorded.lock().is_gone {
            return Err(Failure::new(FailureKind::GONE, "the client has disconnected"));
        }
        Ok(())
    }

    fn send_head(&mut self) {
        if let Some((status, reason, headers)) = self.start.take() {
            let response = &mut self.recorded.lock().response;
            (response.status, response.reason, response.headers) = (status, reason, headers);
            response.is_begun = true;
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Step {
        self.send_head();
        let sent = self.recorded.lock().response.body.len();
        if let Err(failure) = self.check_client(self.request.received_until, sent) {
            return Step::Failed(failure);
        }
        let response = &mut self.recorded.lock().response;
        if !response.is_begun {
            return Step::Failed(Failure::application("a body without a head"));
        }
        response.writes += 1;
        if self.request.method != "HEAD" {
            response.body.extend_from_slice(bytes);
        }
        Step::Ready(bytes.len())
    }

    fn check_length(&self, response: &Response) -> Result<()> {
        let announced = response.header("Content-Length").and_then(|n| n.parse::<usize>().ok());
        let sent = response.body.len();
        match announced {
            Some(length) if self.request.method != "HEAD" && length != sent => {
                Err(Failure::application(format!("{sent} of {length} bytes were sent")))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        if !self.recorded.lock().response.is_over() {
            self.fail(Failure::application("the exchange was dropped before its end"));
        }
    }
}

impl RawExchange for InMemory {
    fn head(&self) -> &RequestHead<'_> {
        self.head.get()
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step {
        if let Err(failure) = self.check_client(self.request.sent_until, self.read) {
            return Step::Failed(failure);
        }
        let left = self.request.body.len() - self.read;
        let arrives_in_parts = self.request.part < usize::MAX || self.request.engine.is_some();
        if left > 0 && arrives_in_parts && self.must_wait(waker) {
            return Step::Pending;
        }
        let count = left.min(buf.len()).min(self.request.part);
        let part = &self.request.body[self.read..][..count];
        buf.as_mut_slice()[..count].copy_from_slice(part);
        self.read += count;
        Step::Ready(count)
    }

    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        if self.recorded.lock().response.is_begun {
            return RResult::RErr(Failure::application("the response has begun"));
        }
        if let Some(header) = headers.iter().find(|header| !is_valid(header)) {
            return RResult::RErr(Failure::application(format!("invalid header: {header:?}")));
        }
        self.start = Some((status, reason.to_string(), owned(headers)));
        RResult::ROk(())
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step {
        if self.request.engine.is_none() {
            return self.send(bytes.as_slice());
        }
        if self.must_wait(waker) {
            return Step::Pending;
        }
        let half = bytes.len().div_ceil(2);
        self.send(&bytes.as_slice()[..half])
    }

    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step {
        if self.request.engine.is_some() && self.must_wait(waker) {
            return Step::Pending;
        }
        let mut part = vec![0; usize::try_from(len).expect("a part of a file fits into memory")];
        // SAFETY: the caller keeps the descriptor open during this call.
        let file = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map(File::from);
        let read = file.and_then(|file| file.read_exact_at(&mut part, offset));
        if let Err(error) = read {
            return Step::Failed(Failure::io("cannot read a part of the file", &error));
        }
        self.recorded.lock().response.files += 1;
        self.send(&part)
    }

    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        self.recorded.lock().response.informational.push((status, owned(headers)));
        RResult::ROk(())
    }

    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        self.recorded.lock().response.trailers = owned(headers);
        RResult::ROk(())
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        self.send_head();
        let mut state = self.recorded.lock();
        let response = &mut state.response;
        if !response.is_begun {
            return RResult::RErr(Failure::application("no response was begun"));
        }
        if let Err(failure) = self.check_length(response) {
            return RResult::RErr(failure);
        }
        assert!(!response.finished, "the response is finished twice");
        response.finished = true;
        drop(state);
        self.note_end();
        if let Some(then) = &self.request.then {
            then();
        }
        RResult::ROk(())
    }

    fn fail(&mut self, failure: Failure) {
        let mut state = self.recorded.lock();
        let response = &mut state.response;
        if !response.is_begun {
            response.status = if failure.status == 0 { 500 } else { failure.status };
        }
        response.failed = Some(failure);
        drop(state);
        self.note_end();
    }

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        let copy = match &self.request.connection {
            Some(connection) => connection.try_clone(),
            None => UnixStream::pair().map(|(server, _client)| OwnedFd::from(server)),
        };
        match copy {
            Ok(fd) => {
                self.recorded.lock().response.hijacked = true;
                self.note_end();
                RResult::ROk(Hijacked { fd: fd.into_raw_fd(), already_read: RVec::new() })
            }
            Err(error) => RResult::RErr(Failure::io("cannot hand over the connection", &error)),
        }
    }

    fn descriptor(&self) -> i32 {
        self.request.connection.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn deadline_ns(&self) -> u64 {
        0
    }

    fn extend_deadline(&mut self, _by_ns: u64) {}

    fn on_disconnect(&mut self, waker: Waker) {
        let mut state = self.recorded.lock();
        if state.is_gone {
            drop(state);
            waker.wake();
        } else {
            state.on_disconnect.push(waker);
        }
    }

    fn wait(&mut self, _interest: Interest) -> RResult<(), Failure> {
        self.waited = true;
        RResult::ROk(())
    }

    fn is_proxied(&self) -> bool {
        false
    }
}

/// Returns copies of headers, with values decoded as Latin-1.
fn owned(headers: RSlice<'_, Header<'_>>) -> Vec<(String, String)> {
    let text = |value: &[u8]| value.iter().map(|byte| char::from(*byte)).collect();
    headers.iter().map(|h| (h.name.to_string(), text(h.value.as_slice()))).collect()
}

/// Returns whether a header may be sent (RFC 9110 5.1, 5.5).
fn is_valid(header: &Header<'_>) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = header.name.as_bytes();
    let is_plain = |byte: &u8| !matches!(byte, b'\r' | b'\n' | b'\0');
    !name.is_empty() && name.iter().copied().all(is_token) && header.value.iter().all(is_plain)
}
