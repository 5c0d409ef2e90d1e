//! Runs the tests of the cooperative classes, and tests the response style of pywsgi.

// A failing helper fails the test.
#![allow(clippy::unwrap_used)]

#[path = "../../green-kit/tests/double/behaviour.rs"]
mod behaviour;
#[path = "../../green-kit/tests/double/mod.rs"]
mod double;

use std::io::{Read, Write};

use double::{Closure, Running, read_answer};
use green_kit::stream_server::GeventWorker;
use pywsgi_worker::Pywsgi;
use worker_api::{Exchange, Failure};

type Class = GeventWorker<Pywsgi>;

cooperative_class!(Class);

fn response(server: &Running, request: &str) -> String {
    let mut client = server.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn responses_have_the_headers_of_gevent() {
    let hello = |exchange: &mut Exchange| exchange.respond(200, &[], b"hello");
    let server =
        Running::start::<Class>(&[("keepalive", 5.0), ("server_header", 1.0)], Closure(hello));
    let mut kept = server.connect();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let modern = read_answer(&mut kept);
    assert!(!modern.contains("Connection:") && !modern.contains("Server:"), "{modern}");
    assert!(modern.contains("\r\nDate: "), "{modern}");

    let old = response(&server, "GET / HTTP/1.0\r\n\r\n");
    assert!(
        old.starts_with("HTTP/1.1 200 OK\r\n") && old.contains("\r\nConnection: close\r\n"),
        "{old}"
    );
    kept.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    let kept = read_answer(&mut kept);
    assert!(kept.contains("\r\nConnection: keep-alive\r\n"), "{kept}");
}

#[test]
fn error_pages_are_those_of_gevent() {
    let broken = |_: &mut Exchange| Err(Failure::application("a secret"));
    let server = Running::start::<Class>(&[("keepalive", 5.0)], Closure(broken));
    let failed = response(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(failed.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{failed}");
    assert!(failed.contains("\r\nContent-Type: text/plain\r\n"), "{failed}");
    assert!(failed.contains("\r\nConnection: close\r\n"), "{failed}");
    assert!(failed.ends_with("\r\n\r\nInternal Server Error"), "{failed}");

    let malformed = response(&server, "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n");
    assert!(malformed.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{malformed}");
    assert!(malformed.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{malformed}");

    let long = response(&server, &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(10_000)));
    assert!(long.starts_with("HTTP/1.1 414 Request URI Too Long\r\n"), "{long}");
}
