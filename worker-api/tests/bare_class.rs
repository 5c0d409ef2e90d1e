//! A worker class without the kit: one request at a time, one request on a connection. It shows what a class owes the
//! server and the application. Its HTTP is as short as an example allows; a real class uses `jimu-http1`, or a parser
//! that rejects what RFC 9112 tells it to reject.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr};
use worker_api::raw::{Hijacked, RawExchange, RawExchange_TO};
use worker_api::testing::{AppFn, RunningWorker, TestHost, TestRuntime};
use worker_api::{
    AccessRecord, Address, AppHandle, Counter, Exchange, Failure, FailureKind, Header, Host,
    Interest, Listener, OwnedHead, RequestHead, Result, Runtime, Step, Version, Waker, Worker,
    WorkerContext, WorkerFactory,
};

struct Bare {
    host: Host,
    app: AppHandle,
    runtime: Runtime,
}

impl WorkerFactory for Bare {
    const NAME: &'static str = "bare";
    const VERSION: &'static str = "1.0.0";
    const DESCRIPTION: &'static str = "one request at a time, without the kit";

    fn new(context: WorkerContext) -> Result<Self> {
        // A real class implements `RawRuntime`; this one blocks the thread, as the class does.
        let runtime = Runtime::from_raw(TestRuntime::raw());
        Ok(Self { host: context.host, app: context.app, runtime })
    }
}

impl Worker for Bare {
    fn init_process(&self) -> Result<()> {
        self.app.init_worker(TestRuntime::raw())
    }

    fn run(&self) -> Result<()> {
        // Among them is the private one (`worker_api::PRIVATE`), through which the server probes `health_path`.
        let listeners = self.host.listeners();
        self.host.notify();
        while self.host.alive() {
            for listener in &listeners {
                while self.host.alive() && self.serve_next(listener) {}
            }
            // A real class waits for all listeners as well, for a second at most: then a heartbeat is due.
            let wake = self.host.wake_descriptor();
            self.runtime.wait_fd(wake, Interest::READ, Some(Duration::from_millis(10)))?;
            self.host.deliver_signals();
            self.host.notify();
        }
        self.app.drain();
        for listener in &listeners {
            let mut left = self.host.remaining_backlog(listener.fd);
            while left > 0 && self.serve_next(listener) {
                left -= 1;
            }
        }
        self.host.close_listeners();
        self.app.shutdown();
        Ok(())
    }
}

impl Bare {
    /// Serves one connection; returns whether another one may be waiting.
    fn serve_next(&self, listener: &Listener) -> bool {
        let Some(socket) = accept(listener) else { return false };
        self.host.count(Counter::ACCEPTED, 1);
        self.host.count(Counter::CONNECTIONS, 1);
        match self.read_request(socket) {
            Ok(exchange) => self.app.call(RawExchange_TO::from_value(exchange, TD_Opaque)),
            Err(failure) => {
                self.host.count(Counter::CONNECTIONS, -1);
                self.host.log(worker_api::LogLevel::DEBUG, "bare", &failure.to_string());
            }
        }
        true
    }

    fn read_request(&self, mut socket: File) -> Result<BareExchange> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if received.len() > HEAD_MAX {
                return Err(Failure::new(FailureKind::TOO_LARGE, "the head is too large"));
            }
            let mut part = [0; 4096];
            match socket.read(&mut part) {
                Ok(0) => return Err(Failure::new(FailureKind::GONE, "no request")),
                Ok(count) => received.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.host, &self.runtime, socket.as_raw_fd(), Interest::READ, deadline)?;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let body = received.split_off(end);
        let head = parse(&received).ok_or_else(|| malformed("the head is malformed"))?;
        let left = match head.get().content_length {
            ROption::RSome(length) => length,
            ROption::RNone => return Err(malformed("chunked bodies are beyond this example")),
        };
        Ok(BareExchange {
            token: self.host.request_started(head.get()),
            head,
            socket: Some(socket),
            host: self.host.clone(),
            runtime: self.runtime.clone(),
            deadline,
            began: Instant::now(),
            received: body,
            left,
            unsent_head: Vec::new(),
            status: 0,
            is_begun: false,
            body_bytes: 0,
        })
    }
}

/// Accepts the next connection, non-blocking.
fn accept(listener: &Listener) -> Option<File> {
    let fd = if listener.unix {
        // SAFETY: the host keeps the descriptor open until `close_listeners`; `ManuallyDrop` leaves it open.
        let socket = ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(listener.fd) });
        let (connection, _) = socket.accept().ok()?;
        connection.set_nonblocking(true).ok()?;
        OwnedFd::from(connection)
    } else {
        // SAFETY: as above.
        let socket = ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(listener.fd) });
        let (connection, _) = socket.accept().ok()?;
        connection.set_nonblocking(true).ok()?;
        OwnedFd::from(connection)
    };
    Some(File::from(fd))
}

/// Waits for the client, with a heartbeat each second.
fn wait(host: &Host, runtime: &Runtime, fd: i32, interest: Interest, until: Instant) -> Result<()> {
    while Instant::now() < until {
        host.notify();
        if runtime.wait_fd(fd, interest, Some(Duration::from_secs(1)))? {
            return Ok(());
        }
    }
    Err(Failure::new(FailureKind::TIMEOUT, "the client is too slow").with_status(408))
}

/// Copies a parsed head, so that the exchange owns it.
fn parse(bytes: &[u8]) -> Option<OwnedHead> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.trim_end().split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, target) = (request_line.next()?, request_line.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.push(Header::new(name, value.trim()));
    }
    let find = |name: &str| headers.iter().find(|header| header.is(name)).map(|h| h.value);
    let chunked = find("Transfer-Encoding").is_some();
    let length = find("Content-Length").map(|value| std::str::from_utf8(value.as_slice()));
    let length = length.map_or(Some(0), |value| value.ok()?.parse().ok())?;
    let nowhere = Address { host: "".into(), port: 0 };
    Some(OwnedHead::new(&RequestHead {
        method: method.into(),
        target: target.as_bytes().into(),
        path: path.as_bytes().into(),
        query: query.as_bytes().into(),
        authority: "".into(),
        version: Version::HTTP_10,
        trusted_peer: false,
        chunked,
        content_length: if chunked { ROption::RNone } else { ROption::RSome(length) },
        scheme: "http".into(),
        headers: RSlice::from_slice(&headers),
        peer: nowhere,
        local: nowhere,
        tls: ROption::RNone,
        received_ns: 0,
        id: 1,
    }))
}

fn malformed(message: &str) -> Failure {
    Failure::new(FailureKind::PROTOCOL, message).with_status(400)
}

/// A request and its response. `socket` is `None` after the end.
struct BareExchange {
    head: OwnedHead,
    socket: Option<File>,
    host: Host,
    runtime: Runtime,
    token: u32,
    deadline: Instant,
    began: Instant,
    /// Bytes of the body that arrived with the head.
    received: Vec<u8>,
    left: u64,
    unsent_head: Vec<u8>,
    status: u16,
    is_begun: bool,
    body_bytes: u64,
}

impl BareExchange {
    /// Ends the request: the connection is closed, or belongs to the application from now on.
    fn end(&mut self) -> Option<File> {
        let socket = self.socket.take()?;
        let head = self.head.get();
        let record = AccessRecord {
            head: ROption::RSome(head),
            request_line: RSlice::EMPTY,
            peer: head.peer,
            status: self.status,
            body_bytes: self.body_bytes,
            duration_ns: self.began.elapsed().as_nanos() as u64,
            response_headers: RSlice::EMPTY,
        };
        self.host.request_ended(self.token, &record);
        self.host.count(Counter::CONNECTIONS, -1);
        Some(socket)
    }

    /// Writes without blocking, the head first.
    fn send(&mut self, bytes: &[u8]) -> Step {
        let Some(mut socket) = self.socket.as_ref() else { return Step::Failed(over()) };
        while !self.unsent_head.is_empty() {
            match socket.write(&self.unsent_head) {
                Ok(count) => drop(self.unsent_head.drain(..count)),
                Err(error) => return to_step(error),
            }
            self.is_begun = true;
        }
        match socket.write(bytes) {
            Ok(count) => {
                self.body_bytes += count as u64;
                Step::Ready(count)
            }
            Err(error) => to_step(error),
        }
    }
}

fn to_step(error: std::io::Error) -> Step {
    match error.kind() {
        ErrorKind::WouldBlock => Step::Pending,
        _ => Step::Failed(error.into()),
    }
}

fn over() -> Failure {
    Failure::application("the exchange has ended")
}

impl Drop for BareExchange {
    fn drop(&mut self) {
        self.fail(Failure::application("the exchange was dropped before its end"));
    }
}

impl RawExchange for BareExchange {
    fn head(&self) -> &RequestHead<'_> {
        self.head.get()
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, _: ROption<Waker>) -> Step {
        let Some(mut socket) = self.socket.as_ref() else { return Step::Failed(over()) };
        let room = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = if self.received.is_empty() && room > 0 {
            match socket.read(&mut buf.as_mut_slice()[..room]) {
                Ok(0) => return Step::Failed(Failure::new(FailureKind::GONE, "the body is cut")),
                Ok(count) => count,
                Err(error) => return to_step(error),
            }
        } else {
            let count = room.min(self.received.len());
            buf.as_mut_slice()[..count].copy_from_slice(&self.received[..count]);
            self.received.drain(..count);
            count
        };
        self.left -= count as u64;
        Step::Ready(count)
    }

    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        if self.is_begun {
            return RResult::RErr(Failure::application("the response has begun"));
        }
        let mut head = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\n").into_bytes();
        for Header { name, value } in headers {
            // A real class also leaves out hop-by-hop headers, and checks the names.
            if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                return RResult::RErr(Failure::application(format!("invalid header: {name}")));
            }
            head.extend_from_slice(&[name.as_bytes(), b": ", value.as_slice(), b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        (self.status, self.unsent_head) = (status, head);
        RResult::ROk(())
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, _: ROption<Waker>) -> Step {
        self.send(bytes.as_slice())
    }

    fn poll_send_file(&mut self, _: i32, _: u64, _: u64, _: ROption<Waker>) -> Step {
        Step::Failed(Failure::unsupported("files are beyond this example"))
    }

    fn informational(&mut self, _: u16, _: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn trailers(&mut self, _: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        RResult::ROk(())
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        if self.status == 0 {
            return RResult::RErr(Failure::application("no response was begun"));
        }
        loop {
            match self.send(b"") {
                Step::Ready(_) => break,
                Step::Pending => match self.wait(Interest::WRITE) {
                    RResult::ROk(()) => {}
                    RResult::RErr(failure) => return RResult::RErr(failure),
                },
                Step::Failed(failure) => return RResult::RErr(failure),
            }
        }
        self.end();
        RResult::ROk(())
    }

    fn fail(&mut self, failure: Failure) {
        if self.socket.is_some() && !self.is_begun && failure.kind != FailureKind::GONE {
            let status = if failure.status == 0 { 500 } else { failure.status };
            let _ = self.start(status, RStr::from_str("Failed"), RSlice::EMPTY);
            // What the socket does not accept at once is not worth waiting for.
            let _ = self.send(b"");
        }
        self.end();
    }

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        // The request ends here: it is logged, and the connection is no longer one of the class.
        let already_read = std::mem::take(&mut self.received).into();
        match self.end() {
            Some(socket) => RResult::ROk(Hijacked { fd: socket.into_raw_fd(), already_read }),
            None => RResult::RErr(over()),
        }
    }

    fn descriptor(&self) -> i32 {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn deadline_ns(&self) -> u64 {
        0
    }

    fn extend_deadline(&mut self, by_ns: u64) {
        self.deadline = self.deadline.max(Instant::now()) + Duration::from_nanos(by_ns);
    }

    fn on_disconnect(&mut self, _: Waker) {}

    fn wait(&mut self, interest: Interest) -> RResult<(), Failure> {
        wait(&self.host, &self.runtime, self.descriptor(), interest, self.deadline).into()
    }

    fn is_proxied(&self) -> bool {
        false
    }
}

const HEAD_MAX: usize = 8190;

fn app(exchange: &mut Exchange) -> Result<()> {
    match exchange.head().path_str() {
        "/fail" => Err(Failure::application("on purpose").with_status(503)),
        "/raw" => {
            let hijacked = exchange.hijack()?;
            let mut stream = UnixStream::from(hijacked.fd);
            stream.write_all(&hijacked.already_read)?;
            Ok(stream.write_all(b" raw")?)
        }
        _ => {
            let body = exchange.read_to_end(100)?;
            exchange.respond(200, &[], &body)
        }
    }
}

#[test]
fn requests_are_served_and_recorded() {
    let worker = RunningWorker::start::<Bare>(TestHost::default(), AppFn(app));
    let send = |request: &str| {
        let received = worker.exchange_bytes(request.as_bytes()).expect("the worker responds");
        String::from_utf8(received).expect("the response is text")
    };
    let echo = send("POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
    assert!(echo.starts_with("HTTP/1.1 200 ") && echo.ends_with("\r\n\r\nbody"), "{echo}");
    let failed = send("GET /fail HTTP/1.1\r\n\r\n");
    assert!(failed.starts_with("HTTP/1.1 503 "), "{failed}");
    assert_eq!(send("GET /raw HTTP/1.1\r\n\r\nmore"), "more raw");
    worker.stop();
    let log = worker.host.access_log();
    assert_eq!(log, ["POST /echo 200 4", "GET /fail 503 0", "GET /raw 0 0"]);
    assert_eq!(worker.host.counter(Counter::ACCEPTED), 3);
    assert_eq!(worker.host.counter(Counter::CONNECTIONS), 0);
}
