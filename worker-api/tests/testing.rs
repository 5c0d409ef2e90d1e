//! The doubles of `worker_api::testing`: an exchange in memory refuses what a server refuses.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use worker_api::testing::{AppFn, Request, Response, TestRuntime};
use worker_api::{AppHandle, Exchange, FailureKind, Header, Interest, Result, Runtime, Waker};

fn call(
    request: &Request,
    app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
) -> Response {
    request.call(&AppHandle::from_app(AppFn(app)))
}

#[test]
fn a_response_that_a_server_refuses_fails() {
    let get = Request::get("/");
    let split = call(&get, |exchange| exchange.respond(200, &[Header::new("A", "b\r\nC: d")], b""));
    assert_eq!((split.status, split.is_complete()), (500, false));
    let start =
        |exchange: &mut Exchange| exchange.start(200, "", &[Header::new("Content-Length", "3")]);
    for finishes in [false, true] {
        let short = call(&get, move |exchange| {
            start(exchange)?;
            if finishes { exchange.finish() } else { Ok(()) }
        });
        let failure = short.failed.expect("3 bytes were announced");
        assert_eq!(failure.kind, FailureKind::APPLICATION);
        assert_eq!(&*failure.message, "0 of 3 bytes were sent");
    }
    let none = call(&get, |_| Ok(()));
    assert_eq!(none.status, 500);
    let panicked = call(&get, |_| panic!("on purpose"));
    assert_eq!(panicked.failed.map(|failure| failure.kind), Some(FailureKind::PANIC));
}

#[test]
fn a_body_arrives_in_parts_until_the_client_disconnects() {
    let request = Request::post("/", b"0123456789").part(4);
    let echo = |exchange: &mut Exchange| {
        let body = exchange.read_to_end(100)?;
        exchange.respond(200, &[], &body)
    };
    assert_eq!(call(&request, echo).text(), "0123456789");
    let cut = call(&request.sent_until(8), echo);
    assert_eq!(cut.failed.map(|failure| failure.kind), Some(FailureKind::GONE));
}

#[test]
fn an_exchange_that_is_kept_learns_of_a_disconnect_and_ends_when_dropped() {
    let (mut exchange, recorded) = Request::get("/").exchange();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let waker = Waker::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    exchange.on_disconnect(waker).expect("the exchange is open");
    recorded.disconnect();
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(!recorded.response().is_over());
    drop(exchange);
    assert!(recorded.response().failed.is_some());
}

#[test]
fn a_connection_is_taken_over() {
    let (mut client, server) = UnixStream::pair().expect("there are descriptors left");
    let request = Request::get("/").connection(OwnedFd::from(server));
    let response = call(&request, |exchange| {
        let mut stream = UnixStream::from(exchange.hijack()?.fd);
        Ok(stream.write_all(b"raw")?)
    });
    assert!(response.hijacked && !response.finished);
    drop(request);
    let mut received = String::new();
    client.read_to_string(&mut received).expect("the end comes");
    assert_eq!(received, "raw");
}

#[test]
fn the_runtime_connects_and_resolves() {
    let runtime = Runtime::from_raw(TestRuntime::raw());
    let limit = Some(Duration::from_secs(10));
    let kind = |address: &str, limit| {
        runtime.connect(address, limit).map(drop).map_err(|failure| failure.kind)
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let found = runtime.resolve("localhost", address.port(), limit).expect("it has an address");
    assert!(!found.is_empty());
    assert!(found.iter().all(|found| found.port() == address.port()), "{found:?}");
    let mut client =
        TcpStream::from(runtime.connect(&address.to_string(), limit).expect("it listens"));
    let empty = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(empty, Err(ErrorKind::WouldBlock), "it does not block");
    let (mut server, _) = listener.accept().expect("a client has connected");
    server.write_all(b"x").expect("it is open");
    assert!(runtime.wait_fd(client.as_raw_fd(), Interest::READ, limit).expect("it is open"));
    assert_eq!(client.read(&mut [0]).ok(), Some(1));
    drop(listener);
    assert_eq!(kind(&address.to_string(), limit), Err(FailureKind::IO));
    assert_eq!(kind("unix:/nowhere/socket", limit), Err(FailureKind::IO));
    for malformed in ["", "unix:", "no port", ":80"] {
        assert_eq!(kind(malformed, limit), Err(FailureKind::APPLICATION), "{malformed:?}");
    }
    // `resolve` is given a name without a port: one that cannot exist is unknown, as any other.
    let unknown = runtime.resolve("a\0b", 80, limit).map_err(|failure| failure.kind);
    assert_eq!(unknown, Err(FailureKind::IO));
}
