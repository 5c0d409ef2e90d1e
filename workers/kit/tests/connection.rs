//! The connection and its exchange, driven over a socket as by a worker class, with test doubles of the host and the
//! application.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod driven;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use doubles::app::{echo, take_over};
use jimu_kit::{Advance, Connection};
use worker_api::{Exchange, Failure, Header};

use driven::Server;

#[test]
fn a_request_is_answered_and_the_connection_kept() {
    let mut server = Server::new(|exchange: &mut Exchange| exchange.respond(200, &[], b"hello"));
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(server.serve(), Advance::Wait(worker_api::Interest::READ));
    let response = server.received();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("Content-Length: 5\r\n\r\nhello"), "{response}");

    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(server.serve(), Advance::Closed);
    assert!(server.received().contains("Connection: close\r\n"));
    assert_eq!(server.host.access_log(), ["GET / 200 5", "GET / 200 5"]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut server = Server::new(|exchange: &mut Exchange| {
        let path = exchange.head().path_str().to_owned();
        exchange.respond(200, &[], path.as_bytes())
    });
    server
        .client
        .write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    server.serve();
    let responses = server.received();
    let (one, two) = (responses.find("/1").unwrap(), responses.find("/2").unwrap());
    assert!(one < two, "{responses}");
}

/// Unless the machine is so busy that the thread that sends late responses comes in between.
#[test]
fn responses_to_pipelined_requests_are_sent_together() {
    let (client, seen) = (Arc::new(OnceLock::<TcpStream>::new()), Arc::new(AtomicUsize::new(0)));
    let (socket, count) = (Arc::clone(&client), Arc::clone(&seen));
    let mut server = Server::new(move |exchange: &mut Exchange| {
        let has_response = socket.get().unwrap().peek(&mut [0]).is_ok();
        count.fetch_add(has_response.into(), Ordering::Relaxed);
        exchange.respond(200, &[], b"x")
    });
    client.set(server.client.try_clone().unwrap()).unwrap();
    let is_together = |attempt| {
        seen.store(0, Ordering::Relaxed);
        server.client.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).unwrap();
        server.client.set_nonblocking(true).unwrap();
        server.serve();
        assert_eq!(server.received().matches("HTTP/1.1 200 OK").count(), 3, "attempt {attempt}");
        seen.load(Ordering::Relaxed) == 0
    };
    assert!((1..=10).any(is_together), "a response was sent before the next request was served");
}

#[test]
fn a_response_does_not_wait_for_a_slow_request() {
    let client = Arc::new(OnceLock::<TcpStream>::new());
    let socket = Arc::clone(&client);
    let mut server = Server::new(move |exchange: &mut Exchange| {
        if exchange.head().path_str() == "/slow" {
            // The response to the request before it.
            assert_eq!(socket.get().unwrap().peek(&mut [0]).unwrap(), 1);
        }
        exchange.respond(200, &[], b"x")
    });
    client.set(server.client.try_clone().unwrap()).unwrap();
    server.client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    server.client.write_all(requests.as_bytes()).unwrap();
    server.serve();
    assert_eq!(server.received().matches("HTTP/1.1 200 OK").count(), 2);
}

/// What follows has the end of a head, and is none: an empty line before a request line is skipped (RFC 9112 2.2).
#[test]
fn a_response_does_not_wait_for_an_incomplete_head() {
    let mut server = Server::new(|exchange: &mut Exchange| exchange.respond(200, &[], b"x"));
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET").unwrap();
    assert_eq!(server.serve(), Advance::Wait(worker_api::Interest::READ));
    assert!(server.received().starts_with("HTTP/1.1 200 OK"));
}

/// A response is kept in the process only as long as there is little of it.
#[test]
fn large_responses_to_pipelined_requests_arrive_whole() {
    let body = "0123456789".repeat(700);
    let length = body.len();
    let mut server =
        Server::new(move |exchange: &mut Exchange| exchange.respond(200, &[], body.as_bytes()));
    server.client.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(9)).unwrap();
    server.serve();
    let responses = server.received();
    let bodies: Vec<_> = responses.split("\r\n\r\n").skip(1).collect();
    assert_eq!(bodies.len(), 9, "{responses}");
    assert!(bodies.iter().all(|body| body.len() >= length && body.starts_with("0123456789")));
}

#[test]
fn a_body_is_read_as_it_was_framed() {
    let mut server = Server::new(echo);
    server
        .client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        .unwrap();
    server
        .client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    server.client.write_all(b"3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n").unwrap();
    server.serve();
    let responses = server.received();
    assert!(responses.contains("\r\n\r\nbody"), "{responses}");
    assert!(responses.ends_with("\r\n\r\nchunked"), "{responses}");
}

#[test]
fn the_rest_of_a_body_is_never_a_request() {
    let mut server = Server::new(|exchange: &mut Exchange| exchange.respond(200, &[], b"x"));
    let body = "GET /smuggled HTTP/1.1\r\n\r\n";
    let request =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    server.client.write_all(request.as_bytes()).unwrap();
    server.client.write_all(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    assert_eq!(server.host.access_log(), ["POST / 200 1", "GET /next 200 1"]);
}

#[test]
fn a_large_read_ends_with_the_body() {
    let mut server = Server::new(|exchange: &mut Exchange| {
        let (mut part, mut sum, mut is_intact) = (vec![0; 64 << 10], 0, true);
        loop {
            let count = exchange.read(&mut part)?;
            is_intact &= part[..count].iter().all(|byte| *byte == b'x');
            sum += count;
            if count == 0 {
                return exchange.respond(200, &[], format!("{sum} {is_intact}").as_bytes());
            }
        }
    });
    let body = "x".repeat(100_000);
    let fixed = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n"
    );
    let mut client = server.client.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        client.write_all((fixed + &chunked).as_bytes()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    });
    while server.serve() != Advance::Closed {}
    sending.join().unwrap();
    let responses = server.received();
    assert_eq!(responses.matches("100000 true").count(), 2, "{responses}");
    assert!(responses.ends_with("\r\n\r\n0 true"), "{responses}");
}

#[test]
fn a_failure_before_the_response_is_a_500_and_after_its_head_a_cut() {
    let mut server = Server::new(|_: &mut Exchange| Err(Failure::application("no")));
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    let response = server.received();
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
    assert!(response.contains("Connection: close"), "{response}");

    let mut server = Server::new(|exchange: &mut Exchange| {
        exchange.start(200, "", &[Header::new("Content-Length", "10")])?;
        exchange.write(b"12345")?;
        Err(Failure::application("no"))
    });
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    let response = server.received();
    assert!(response.ends_with("\r\n\r\n12345"), "{response}");
}

#[test]
fn a_panic_is_a_500() {
    let mut server = Server::new(|_: &mut Exchange| panic!("on purpose"));
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    assert!(server.received().starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_body_that_does_not_match_its_length_is_no_well_formed_response() {
    for (length, body) in [("3", "12345"), ("9", "12345")] {
        let mut server = Server::new(move |exchange: &mut Exchange| {
            exchange.start(200, "", &[Header::new("Content-Length", length)])?;
            exchange.write(body.as_bytes())?;
            exchange.finish()
        });
        server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_ne!(server.serve(), Advance::Request);
        let response = server.received();
        let complete = response.starts_with("HTTP/1.1 200")
            && response.ends_with(&format!("\r\n\r\n{}", &body[..3.min(body.len())]));
        assert!(!complete, "{response}");
    }
}

#[test]
fn continue_is_sent_when_the_application_reads() {
    driven::assert_continues(Server::new(echo));
}

#[test]
fn a_stream_of_unknown_length_is_sent_in_chunks() {
    let mut server = Server::new(|exchange: &mut Exchange| {
        exchange.start(200, "", &[])?;
        exchange.write(b"one")?;
        exchange.write(b"two!")?;
        exchange.finish()
    });
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    let response = server.received();
    assert!(response.ends_with("\r\n\r\n3\r\none\r\n4\r\ntwo!\r\n0\r\n\r\n"), "{response}");
}

/// Returns how often an exchange lets other work run while it writes `count` times, none of which blocks.
fn yields_of_writes(count: usize) -> usize {
    let mut server = Server::new(move |exchange: &mut Exchange| {
        exchange.start(200, "OK", &[])?;
        (0..count).try_for_each(|_| exchange.write(&[b'x'; 100]))?;
        exchange.finish()
    });
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(server.serve(), Advance::Wait(worker_api::Interest::READ));
    server.yields.load(Ordering::Relaxed)
}

#[test]
fn an_exchange_that_never_waits_yields() {
    assert_eq!(yields_of_writes(60), 0);
    assert_eq!(yields_of_writes(130), 2);
}

#[test]
fn a_malformed_request_is_rejected_once_and_nothing_after_it_is_served() {
    let mut server = Server::new(|exchange: &mut Exchange| exchange.respond(200, &[], b"x"));
    server
        .client
        .write_all(b"GET / HTTP/1.1\r\nHost : a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    server.serve();
    let response = server.received();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
}

#[test]
fn a_hijacked_connection_belongs_to_the_application() {
    let mut server = Server::new(take_over);
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbehind").unwrap();
    assert_eq!(server.serve(), Advance::Closed);
    let mut response = String::new();
    drop(server.connection.take());
    server.client.read_to_string(&mut response).unwrap();
    assert_eq!(response, "behind raw");
}

#[test]
fn an_idle_connection_is_a_small_record() {
    assert!(size_of::<Connection>() <= 512, "{}", size_of::<Connection>());
}
