//! Requests and responses in memory, as an application sees them.

use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RVec};
use worker_api::raw::{ExchangeBox, Hijacked, Interest, RawExchange, RawExchange_TO, Step};
use worker_api::{Address, AppHandle, Failure, FailureKind, Header, RequestHead, Version, Waker};

use crate::locked;

/// A response, as seen by the client.
#[derive(Clone, Default, Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Number of writes by the application.
    pub writes: usize,
    /// Informational responses before it.
    pub early: Vec<(u16, String)>,
    /// Whether the application finished it.
    pub finished: bool,
    /// Failure that ended it.
    pub failed: Option<Failure>,
    /// Whether the application took the connection over.
    pub hijacked: bool,
    /// Number of parts that were sent from files.
    pub files: usize,
    on_wire: bool,
}

impl Response {
    /// Returns the value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns whether the client got a complete response.
    pub fn is_good(&self) -> bool {
        self.finished && self.failed.is_none()
    }
}

/// What completes the pending operations of a request.
pub trait Turn: Send + Sync {
    /// Fires a waker in the next turn.
    fn wake_later(&self, waker: Waker);
}

/// A request to send.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: &'static str,
    /// Target, with the query.
    pub target: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Whether the body has no length that is known at first.
    pub chunked: bool,
    /// Number of bytes in which the body arrives; every second read is pending first.
    pub part: usize,
    /// Number of bytes of the body after which the client disconnects.
    pub gone_after: Option<usize>,
    /// Number of bytes of the response after which the client disconnects.
    pub reads_until: Option<usize>,
    /// The engine that must turn before a pending operation completes.
    pub engine: Option<Arc<dyn Turn>>,
    /// The client's port; 0 if it has none.
    pub port: u16,
    /// The server's end of the connection, if there is one.
    pub connection: Option<Arc<UnixStream>>,
    /// Called by the worker class when the request has ended.
    pub then: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Request {
    /// A GET.
    pub fn get(target: &str) -> Self {
        Self {
            method: "GET",
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), "localhost:8000".to_owned())],
            body: Vec::new(),
            chunked: false,
            part: 7,
            gone_after: None,
            reads_until: None,
            engine: None,
            port: 40_000,
            connection: None,
            then: None,
        }
    }

    /// Sets the method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes it a POST with this body, of known length.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.method = "POST";
        self.body = body.to_vec();
        self.headers.push(("Content-Length".to_owned(), body.len().to_string()));
        self
    }

    /// Sends the body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self.headers.retain(|(name, _)| name != "Content-Length");
        self.headers.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
        self
    }

    /// Sets the number of bytes in which the body arrives.
    #[must_use]
    pub fn part(mut self, part: usize) -> Self {
        self.part = part;
        self
    }

    /// Calls the application with it.
    pub fn call(&self, app: &AppHandle) -> Response {
        let (exchange, seen) = self.exchange();
        app.call(exchange);
        locked(&seen).clone()
    }

    /// Returns the exchange, and the response that is recorded for it.
    pub fn exchange(&self) -> (ExchangeBox, Arc<Mutex<Response>>) {
        let seen = Arc::new(Mutex::new(Response::default()));
        let exchange = InMemory {
            head: self.head(),
            request: self.clone(),
            read: 0,
            waited: false,
            seen: Arc::clone(&seen),
            start: None,
        };
        (RawExchange_TO::from_value(exchange, TD_Opaque), seen)
    }

    /// Returns the head, in leaked memory: otherwise this type would borrow from itself.
    fn head(&self) -> RequestHead<'static> {
        let copy: &'static Self = Box::leak(Box::new(self.clone()));
        let headers: Vec<Header<'static>> =
            copy.headers.iter().map(|(name, value)| Header::new(name, value)).collect();
        let (path, query) = copy.target.split_once('?').unwrap_or((&copy.target, ""));
        RequestHead {
            method: copy.method.into(),
            target: copy.target.as_bytes().into(),
            path: path.as_bytes().into(),
            query: query.as_bytes().into(),
            authority: "localhost:8000".into(),
            version: Version::HTTP_11,
            trusted_peer: false,
            chunked: copy.chunked,
            content_length: if copy.chunked {
                ROption::RNone
            } else {
                ROption::RSome(copy.body.len() as u64)
            },
            scheme: "http".into(),
            headers: RSlice::from_slice(headers.leak()),
            peer: Address { host: "192.0.2.7".into(), port: copy.port },
            local: Address { host: "127.0.0.1".into(), port: 8000 },
            tls: ROption::RNone,
            received_ns: 0,
            id: 1,
        }
    }
}

/// Status, reason and headers, until the first byte of the body is written.
type Start = (u16, String, Vec<(String, String)>);

struct InMemory {
    head: RequestHead<'static>,
    request: Request,
    read: usize,
    waited: bool,
    seen: Arc<Mutex<Response>>,
    start: Option<Start>,
}

impl InMemory {
    /// Reports a pending operation, which completes after the engine has turned.
    fn pending(&mut self, waker: ROption<Waker>) -> Step {
        if let (Some(engine), ROption::RSome(waker)) = (&self.request.engine, waker) {
            self.waited = true;
            engine.wake_later(waker);
        }
        Step::Pending
    }

    fn flush_head(&mut self) {
        if let Some((status, reason, headers)) = self.start.take() {
            let mut seen = locked(&self.seen);
            (seen.status, seen.reason, seen.headers) = (status, reason, headers);
            seen.on_wire = true;
        }
    }

    fn take_in(&mut self, bytes: &[u8]) -> Step {
        self.flush_head();
        let mut seen = locked(&self.seen);
        if !seen.on_wire {
            return Step::Failed(Failure::application("a body without a head"));
        }
        if self.request.reads_until.is_some_and(|limit| seen.body.len() >= limit) {
            return Step::Failed(Failure::new(FailureKind::GONE, "the client is gone"));
        }
        seen.writes += 1;
        seen.body.extend_from_slice(bytes);
        Step::Ready(bytes.len())
    }
}

impl RawExchange for InMemory {
    fn head(&self) -> &RequestHead<'_> {
        &self.head
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step {
        if self.request.gone_after.is_some_and(|limit| self.read >= limit) {
            return Step::Failed(Failure::new(FailureKind::GONE, "the client is gone"));
        }
        let rest = &self.request.body[self.read..];
        if !rest.is_empty() && !std::mem::replace(&mut self.waited, false) {
            return self.pending(waker);
        }
        let rest = &self.request.body[self.read..];
        let n = rest.len().min(buf.len()).min(self.request.part);
        buf.as_mut_slice()[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        Step::Ready(n)
    }

    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        let headers = headers
            .iter()
            .map(|h| (h.name.to_string(), h.value.iter().map(|b| char::from(*b)).collect()))
            .collect();
        self.start = Some((status, reason.to_string(), headers));
        RResult::ROk(())
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step {
        if self.request.engine.is_none() {
            return self.take_in(bytes.as_slice());
        }
        if !std::mem::replace(&mut self.waited, false) {
            return self.pending(waker);
        }
        let half = bytes.len().div_ceil(2);
        self.take_in(&bytes.as_slice()[..half])
    }

    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step {
        if self.request.engine.is_some() && !std::mem::replace(&mut self.waited, false) {
            return self.pending(waker);
        }
        let path = format!("/proc/self/fd/{fd}");
        let content = fs::read(path).expect("the descriptor is a file's");
        locked(&self.seen).files += 1;
        self.take_in(&content[offset as usize..(offset + len) as usize])
    }

    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        let text = format!("{:?}", headers.as_slice());
        locked(&self.seen).early.push((status, text));
        RResult::ROk(())
    }

    fn trailers(&mut self, _headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        self.flush_head();
        let mut seen = locked(&self.seen);
        if !seen.on_wire {
            return RResult::RErr(Failure::application("no response was begun"));
        }
        assert!(!seen.finished, "finished twice");
        seen.finished = true;
        drop(seen);
        if let Some(then) = &self.request.then {
            then();
        }
        RResult::ROk(())
    }

    fn fail(&mut self, failure: Failure) {
        let mut seen = locked(&self.seen);
        if !seen.on_wire {
            seen.status = if failure.status == 0 { 500 } else { failure.status };
        }
        seen.failed = Some(failure);
    }

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        locked(&self.seen).hijacked = true;
        let (one, _other) = UnixStream::pair().expect("there are descriptors left");
        let fd = one.into_raw_fd();
        RResult::ROk(Hijacked { fd, already_read: RVec::new() })
    }

    fn descriptor(&self) -> i32 {
        self.request.connection.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn deadline_ns(&self) -> u64 {
        0
    }

    fn extend_deadline(&mut self, _by_ns: u64) {}

    fn on_disconnect(&mut self, _waker: Waker) {}

    fn wait(&mut self, _interest: Interest) -> RResult<(), Failure> {
        self.waited = true;
        RResult::ROk(())
    }

    fn is_proxied(&self) -> bool {
        false
    }
}
