//! Runs the tests of the cooperative classes, and tests the response style of pywsgi.

// A failing helper fails the test.
#![allow(clippy::unwrap_used)]

use doubles::http::{Answer, Framing};
use doubles::{Clients as _, app::hello};
use jimu_green_kit::stream_server::GeventWorker;
use pywsgi_worker::Pywsgi;
use worker_api::testing::{AppFn, RunningWorker, TestHost};
use worker_api::{Exchange, Failure};

type Class = GeventWorker<Pywsgi>;

doubles::cooperative_class!(Class);

fn answer(server: &RunningWorker, request: &str) -> Answer {
    let mut client = server.connect();
    client.send(request).unwrap();
    client.answer("GET").unwrap()
}

#[test]
fn responses_have_the_headers_of_gevent() {
    let host = TestHost::default().set("keepalive", 5).set("server_header", true);
    let server = RunningWorker::start::<Class>(host, AppFn(hello));
    let mut kept = server.connect();
    let modern = kept.get("/").unwrap();
    assert_eq!((modern.field("Connection"), modern.field("Server")), (None, None), "{modern:?}");
    assert!(modern.field("Date").is_some(), "{modern:?}");

    let old = answer(&server, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.minor, old.status, old.reason.as_str()), (1, 200, "OK"));
    assert_eq!(old.field("Connection"), Some("close"));
    kept.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    let kept = kept.answer("GET").unwrap();
    assert_eq!(kept.field("Connection"), Some("keep-alive"));
}

#[test]
fn error_pages_are_those_of_gevent() {
    let broken = |_: &mut Exchange| Err(Failure::application("a secret"));
    let host = TestHost::default().set("keepalive", 5);
    let server = RunningWorker::start::<Class>(host, AppFn(broken));
    let failed = answer(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((failed.status, failed.reason.as_str()), (500, "Internal Server Error"));
    assert_eq!(failed.field("Content-Type"), Some("text/plain"));
    assert_eq!(failed.field("Connection"), Some("close"));
    assert_eq!(failed.text(), "Internal Server Error");

    let malformed = answer(&server, "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n");
    assert_eq!((malformed.status, malformed.reason.as_str()), (400, "Bad Request"));
    assert_eq!(malformed.framing, Framing::Length(0));

    let long = answer(&server, &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(10_000)));
    assert_eq!((long.status, long.reason.as_str()), (414, "Request URI Too Long"));
}
