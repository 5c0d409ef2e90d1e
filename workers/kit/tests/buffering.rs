//! Buffering for slow clients, driven as in `connection`.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod driven;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use doubles::app::{echo, take_over};
use doubles::http;
use jimu_kit::{Advance, Deadline};
use worker_api::{Exchange, Header, Interest};

use driven::Server;

/// Limits with which a body of more than a few bytes goes to a file.
const SMALL: &[(&str, i32)] =
    &[("body_buffer_memory", 64), ("body_buffer_max", 40), ("body_buffer_files", 1)];

fn small() -> Server {
    Server::buffering(SMALL, echo)
}

#[test]
fn the_application_is_called_when_the_body_is_complete() {
    let mut server = small();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n012";
    server.client.write_all(head).unwrap();
    for part in [b"3", b"4", b"5", b"6", b"7", b"8"] {
        assert_eq!(server.serve(), Advance::Wait(Interest::READ));
        assert_eq!(server.host.access_log(), [""; 0]);
        server.client.write_all(part).unwrap();
    }
    // The next request is not part of the body.
    server.client.write_all(b"9GET /next HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    assert_eq!(server.host.access_log(), ["POST / 200 10", "GET /next 200 0"]);
    let responses = server.received();
    assert!(responses.contains("\r\n\r\n0123456789HTTP/1.1 200 OK"), "{responses}");
}

/// The client may wait for the response before it sends the body.
#[test]
fn a_response_does_not_wait_for_the_body_of_the_next_request() {
    let mut server = small();
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
    server.client.write_all(requests.as_bytes()).unwrap();
    assert_eq!(server.serve(), Advance::Wait(Interest::READ));
    server.client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(server.client.peek(&mut [0]).unwrap(), 1);
    server.client.write_all(b"ok").unwrap();
    server.serve();
    let responses = server.received();
    assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), 2, "{responses}");
    assert!(responses.ends_with("\r\n\r\nok"), "{responses}");
}

#[test]
fn chunks_and_trailers_are_buffered() {
    let mut server = small();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab";
    server.client.write_all(head).unwrap();
    assert_eq!(server.serve(), Advance::Wait(Interest::READ));
    server.client.write_all(b"c\r\n4\r\ndefg\r\n0\r\nX-Sum: x\r\n").unwrap();
    assert_eq!(server.serve(), Advance::Wait(Interest::READ));
    server.client.write_all(b"\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.serve();
    assert_eq!(server.host.access_log(), ["POST / 200 7", "GET /next 200 0"]);
    assert!(server.received().contains("\r\n\r\nabcdefgHTTP"));
}

#[test]
fn beyond_the_limit_the_application_reads_from_the_client() {
    for (head, whole) in [
        ("Content-Length: 44", ["01234567", "0123456789012345678901234567890123-x"]),
        (
            "Transfer-Encoding: chunked",
            ["28\r\n01234567", "01234567890123456789012345678901\r\n3\r\n3-x\r\n0\r\n\r\n"],
        ),
    ] {
        let mut server = small();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{}", whole[0]);
        server.client.write_all(head.as_bytes()).unwrap();
        let is_chunked = head.contains("chunked");
        if is_chunked {
            assert_eq!(server.serve(), Advance::Wait(Interest::READ));
            server.client.write_all(&whole[1].as_bytes()[..34]).unwrap();
            server.on_wait = Some(&whole[1].as_bytes()[34..]);
        } else {
            server.on_wait = Some(whole[1].as_bytes());
        }
        server.serve();
        let response = server.received();
        assert!(response.ends_with("3-x"), "{response}");
    }
}

/// A client that sends what is read at once: the application is called before the body is complete, and reads the rest. It
/// is called for the client's next long body once that has begun to arrive.
#[test]
fn a_fast_body_is_buffered_no_further_than_needed() {
    let body: &'static [u8] = Box::leak((0..400_000_u32).map(|at| (at % 251) as u8).collect());
    let (called, calls) = std::sync::mpsc::sync_channel(2);
    let mut server = Server::buffering(ROOMY, move |exchange: &mut Exchange| {
        called.send(()).expect("the client waits for it");
        let received = exchange.read_to_end(body.len())?;
        exchange.start(200, "", &[Header::new("Content-Length", "2")])?;
        exchange.write(if received == body { b"ok" } else { b"no" })?;
        exchange.finish()
    });
    let mut client = server.client.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for first in [body.len() - 1000, 2000] {
            let head =
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(&body[..first]).unwrap();
            if calls.recv_timeout(Duration::from_secs(10)).is_err() {
                // Not called before the end of the body.
                break;
            }
            client.write_all(&body[first..]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
    });
    while server.host.access_log().len() < 2 {
        let fd = server.connection.as_ref().unwrap().fd();
        jimu_kit::poll::wait(fd, Interest::READ, Deadline::NEVER, || ()).unwrap();
        server.serve();
    }
    sender.join().unwrap();
    assert_eq!(server.received().matches("\r\n\r\nok").count(), 2);
}

#[test]
fn a_client_that_expects_continue_gets_it() {
    driven::assert_continues(small());
}

#[test]
fn an_invalid_body_is_rejected_without_the_application() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na";
    for (end, status) in [("is cut", 400), ("is malformed", 400), ("is late", 408)] {
        let mut server = small();
        server.client.write_all(head.as_bytes()).unwrap();
        assert_eq!(server.serve(), Advance::Wait(Interest::READ));
        match end {
            "is cut" => server.client.shutdown(Shutdown::Write).unwrap(),
            "is malformed" => server.client.write_all(b"bcde!!").unwrap(),
            _ => drop(server.connection.as_mut().unwrap().expire()),
        }
        server.serve();
        assert_eq!(server.host.access_log(), [format!("POST / {status} 0")], "{end}");
        let response = server.received();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{end}: {response}");
    }
}

#[test]
fn a_request_that_ends_with_its_connection_is_recorded() {
    let mut server = small();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n012";
    server.client.write_all(head).unwrap();
    server.serve();
    drop(server.connection.take());
    assert_eq!(server.host.access_log(), ["POST / 0 0"]);
}

#[test]
fn an_application_that_takes_over_the_connection_gets_the_body_first() {
    for (head, rest, expected) in [
        ("Content-Length: 10", "3456789behind", "0123456789behind raw"),
        ("Transfer-Encoding: chunked", "3\r\n345\r\n0\r\n\r\n", "6\r\n012345\r\n0\r\n\r\n raw"),
    ] {
        let mut server = Server::buffering(SMALL, take_over);
        let first = if head.contains("chunked") { "3\r\n012\r\n" } else { "012" };
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{first}");
        server.client.write_all(head.as_bytes()).unwrap();
        assert_eq!(server.serve(), Advance::Wait(Interest::READ));
        server.client.write_all(rest.as_bytes()).unwrap();
        assert_eq!(server.serve(), Advance::Closed);
        drop(server.connection.take());
        let mut response = String::new();
        server.client.read_to_string(&mut response).unwrap();
        assert_eq!(response, expected);
    }
}

/// More than the socket accepts, and limits that allow buffering it.
const LARGE: usize = 3 << 20;
const ROOMY: &[(&str, i32)] =
    &[("body_buffer_memory", 16 << 20), ("body_buffer_max", 8 << 20), ("body_buffer_files", 1)];

/// More than buffering takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Returns whether the application returned before the client, after `patience`, read its response, which then arrived
/// completely.
fn is_kept(numbers: &'static [(&'static str, i32)], file: bool, patience: Duration) -> bool {
    let body: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let expected = body.clone();
    let mut server = Server::buffering(numbers, move |exchange: &mut Exchange| {
        let length = body.len().to_string();
        exchange.start(200, "", &[Header::new("Content-Length", &length)])?;
        if file {
            let mut file = tempfile();
            file.write_all(&body).unwrap();
            exchange.send_file(file.as_raw_fd(), 0, body.len() as u64)?;
        } else {
            exchange.write(&body)?;
        }
        exchange.finish()
    });
    server.client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let client = server.client.try_clone().unwrap();
    let (returned, start) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        // If the response is not buffered, the application waits until this thread reads.
        let waited = start.recv_timeout(patience).is_err();
        (http::Connection::over(client).answer("GET").unwrap().body, waited)
    });
    let mut next = server.serve();
    let _ = returned.send(());
    while next == Advance::Wait(Interest::WRITE) {
        let connection = server.connection.as_ref().unwrap();
        jimu_kit::poll::wait(connection.fd(), Interest::WRITE, Deadline::NEVER, || ()).unwrap();
        next = server.serve();
    }
    assert_eq!(next, Advance::Wait(Interest::READ));
    assert_eq!(server.host.access_log(), [format!("GET / 200 {LARGE}")]);
    let (response, waited) = reader.join().unwrap();
    assert!(response == expected, "the response has {} bytes", response.len());
    !waited
}

fn tempfile() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("kit-buffering-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn the_end_of_a_response_is_sent_without_the_application() {
    assert!(is_kept(ROOMY, false, LONG), "in a temporary file");
    assert!(is_kept(ROOMY, true, LONG), "in the file of the application");
}

#[test]
fn the_application_waits_where_there_is_no_room_for_the_end() {
    assert!(!is_kept(SMALL, false, Duration::from_millis(300)), "beyond body_buffer_max");
}
