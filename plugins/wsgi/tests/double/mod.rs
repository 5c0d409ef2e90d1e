//! A worker class and a host in memory, as far as an application can see them.

#![allow(dead_code, reason = "each test uses a part of it")]

mod interpreter;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use worker_api::raw::{
    Counter, ExchangeBox, Hijacked, HostBox, Interest, Listener, RawEngine, RawEngine_TO,
    RawExchange, RawExchange_TO, RawHost, RawHost_TO, Step, TaskBox, Value,
};
use worker_api::{
    AccessRecord, Address, AppHandle, Failure, FailureKind, Header, RawAppContext, RequestHead,
    Version, Waker,
};

pub(crate) use interpreter::{become_python, has_library};

/// A host with settings and a log.
#[derive(Clone, Default)]
pub(crate) struct Host {
    settings: HashMap<String, Value>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Host {
    pub(crate) fn set(mut self, name: &str, value: Value) -> Self {
        self.settings.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.set(name, Value::Text(value.into()))
    }

    /// Returns the lines that were logged since the last call.
    pub(crate) fn take_log(&self) -> String {
        std::mem::take(&mut *locked(&self.log)).join("\n")
    }

    /// Creates an application, as the host does.
    pub(crate) fn app(
        &self,
        spec: &str,
        class: &str,
        guest_loop: &str,
    ) -> Result<AppHandle, Failure> {
        let context =
            RawAppContext { spec: spec.into(), class: class.into(), guest_loop: guest_loop.into() };
        let new = wsgi_app::root_module().new();
        new(self.raw(), context).into_result().map(AppHandle::from_raw)
    }

    fn raw(&self) -> HostBox {
        RawHost_TO::from_value(self.clone(), TD_Opaque)
    }
}

impl RawHost for Host {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        self.settings.get(name.as_str()).cloned().into()
    }
    fn section(&self) -> RString {
        RString::new()
    }
    fn setting_file(&self, _name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        RResult::ROk(ROption::RNone)
    }
    fn listeners(&self) -> RVec<Listener> {
        RVec::new()
    }
    fn close_listeners(&self) {}
    fn spawn_index(&self) -> u64 {
        1
    }
    fn arbiter_pid(&self) -> i32 {
        0
    }
    fn notify(&self) {}
    fn alive(&self) -> bool {
        true
    }
    fn stop(&self) {}
    fn retire(&self) {}
    fn wake_descriptor(&self) -> i32 {
        -1
    }
    fn deliver_signals(&self) {}
    fn count(&self, _counter: Counter, _by: i64) {}
    fn request_started(&self, _head: &RequestHead<'_>) -> u32 {
        1
    }
    fn request_ended(&self, _token: u32, _record: &AccessRecord<'_>) {}
    fn wants_response_headers(&self) -> bool {
        false
    }
    fn log_level(&self) -> u8 {
        4
    }
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>) {
        locked(&self.log).push(format!("{level} {target}: {message}"));
    }

    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        locked(&self.log).push(format!("{target}: {}", text.escape_ascii()));
    }
    fn retire_for(&self, _: RStr<'_>) {}
    fn logged_variables(&self) -> RVec<RString> {
        RVec::new()
    }
    fn set_logged_variable(&self, _: u64, _: RStr<'_>, _: RSlice<'_, u8>) {}
    fn on_signal(&self, _: i32) {}
    fn reclaim_signals(&self) {}
    fn signal_descriptor(&self) -> i32 {
        -1
    }
    fn remaining_backlog(&self, _: i32) -> u64 {
        u64::MAX
    }
    fn at_abort(&self, _: TaskBox) {}
    fn log_stack(&self, _: u8, _: RStr<'_>, _: RStr<'_>, _: RSlice<'_, usize>) {}
}

/// The response, as seen by the client.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of writes by the application.
    pub(crate) writes: usize,
    pub(crate) early: Vec<(u16, String)>,
    pub(crate) finished: bool,
    pub(crate) failed: Option<Failure>,
    pub(crate) hijacked: bool,
    pub(crate) files: usize,
    on_wire: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns whether the client got a complete response.
    pub(crate) fn is_good(&self) -> bool {
        self.finished && self.failed.is_none()
    }
}

/// A request to send.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) chunked: bool,
    /// Number of bytes in which the body arrives; every second read is pending first.
    pub(crate) part: usize,
    /// Number of bytes of the body after which the client disconnects.
    pub(crate) gone_after: Option<usize>,
    /// Number of bytes of the response after which the client disconnects.
    pub(crate) reads_until: Option<usize>,
    /// The engine that must turn before a pending operation completes.
    pub(crate) engine: Option<Arc<Engine>>,
    /// The client's port; 0 if it has none.
    pub(crate) port: u16,
    /// The server's end of the connection, if there is one.
    pub(crate) connection: Option<Arc<std::os::unix::net::UnixStream>>,
    /// Called by the worker class when the request has ended.
    pub(crate) then: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Request {
    pub(crate) fn get(target: &str) -> Self {
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

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.method = "POST";
        self.body = body.to_vec();
        self.headers.push(("Content-Length".to_owned(), body.len().to_string()));
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self.headers.retain(|(name, _)| name != "Content-Length");
        self.headers.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
        self
    }

    pub(crate) fn part(mut self, part: usize) -> Self {
        self.part = part;
        self
    }

    /// Calls the application with it.
    pub(crate) fn call(&self, app: &AppHandle) -> Seen {
        let (exchange, seen) = self.exchange();
        app.call(exchange);
        locked(&seen).clone()
    }

    /// Returns the exchange, and the response that is recorded for it.
    pub(crate) fn exchange(&self) -> (ExchangeBox, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
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
    seen: Arc<Mutex<Seen>>,
    start: Option<Start>,
}

impl InMemory {
    /// Reports a pending operation, which completes after the engine has turned.
    fn pending(&mut self, waker: ROption<Waker>) -> Step {
        if let (Some(engine), ROption::RSome(waker)) = (&self.request.engine, waker) {
            self.waited = true;
            locked(&engine.wakers).push(waker);
            engine.signal();
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
        let content = std::fs::read(path).expect("the descriptor is a file's");
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
        let (one, _other) =
            std::os::unix::net::UnixStream::pair().expect("there are descriptors left");
        let fd = std::os::fd::IntoRawFd::into_raw_fd(one);
        RResult::ROk(Hijacked { fd, already_read: RVec::new() })
    }

    fn descriptor(&self) -> i32 {
        self.request.connection.as_ref().map_or(-1, std::os::fd::AsRawFd::as_raw_fd)
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

/// A worker class's engine. It hands over the exchanges that were added, and stops when all have ended.
pub(crate) struct Engine {
    wakers: Mutex<Vec<Waker>>,
    waiting: Mutex<Vec<ExchangeBox>>,
    seen: Mutex<Vec<Arc<Mutex<Seen>>>>,
    event: std::fs::File,
}

impl Engine {
    pub(crate) fn new() -> Arc<Self> {
        // SAFETY: the call creates a descriptor, which only the file owns.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            assert!(fd >= 0, "there are descriptors left");
            std::os::fd::FromRawFd::from_raw_fd(fd)
        };
        Arc::new(Self {
            wakers: Mutex::default(),
            waiting: Mutex::default(),
            seen: Mutex::default(),
            event,
        })
    }

    /// Adds a request, which is handed over in the next turn.
    pub(crate) fn add(self: &Arc<Self>, mut request: Request) -> Arc<Mutex<Seen>> {
        request.engine = Some(Arc::clone(self));
        let (exchange, seen) = request.exchange();
        locked(&self.waiting).push(exchange);
        locked(&self.seen).push(Arc::clone(&seen));
        self.signal();
        seen
    }

    /// Runs the application's loop until all requests have ended.
    pub(crate) fn run(self: &Arc<Self>, app: &AppHandle) -> Result<(), Failure> {
        let driven = Driven { engine: Arc::clone(self), app: app.clone() };
        app.run_loop(RawEngine_TO::from_value(driven, TD_Opaque))
    }

    fn signal(&self) {
        (&self.event).write_all(&1_u64.to_ne_bytes()).expect("an event can be counted");
    }
}

struct Driven {
    engine: Arc<Engine>,
    app: AppHandle,
}

impl RawEngine for Driven {
    fn descriptor(&self) -> i32 {
        self.engine.event.as_raw_fd()
    }

    fn turn(&self) -> RResult<(), Failure> {
        let _ = (&self.engine.event).read(&mut [0; 8]);
        let wakers = std::mem::take(&mut *locked(&self.engine.wakers));
        for waker in wakers {
            waker.wake();
        }
        let waiting = std::mem::take(&mut *locked(&self.engine.waiting));
        for exchange in waiting {
            self.app.call(exchange);
        }
        if !self.stopped() {
            // In place of an engine's timers: the next turn checks what has ended.
            self.engine.signal();
        }
        RResult::ROk(())
    }

    fn stopped(&self) -> bool {
        let over = |seen: &Arc<Mutex<Seen>>| {
            let seen = locked(seen);
            seen.finished || seen.failed.is_some() || seen.hijacked
        };
        locked(&self.engine.seen).iter().all(over)
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
