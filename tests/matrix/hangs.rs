//! Requests that hang in the application and are ended: what their clients receive, and what is logged.

use std::time::Duration;

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    process,
    runner::Behaviour,
    server::{Server, Setup},
    tls::Authority,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_request_that_runs_over_is_answered).of_class(),
        behaviour!(a_response_comes_before_the_one_to_a_hang_behind_it)
            .of_class()
            .needs(Need::KeepAlive),
        behaviour!(a_request_of_an_aborted_worker_is_answered).of_class().only_for(
            |class| !class.has_threads(),
            "the heartbeat continues while a request spins",
        ),
        behaviour!(a_request_over_tls_is_answered).of_class(),
        behaviour!(a_hang_in_python_is_answered).of_python(),
        behaviour!(a_hang_behind_the_head_is_cut).of_python(),
        behaviour!(tracebacks_of_python_have_python_frames_alone).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// By `request_timeout`: on a thread that cannot be interrupted, or in a greenlet that can.
fn a_request_that_runs_over_is_answered(cell: &Cell) {
    let setup = Setup::new(cell).flags("--request-timeout 1 --threads 2 --timeout 30");
    let server = setup.flags("--access-logfile -").start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=3000").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 500);
    is_logged_once(&server, "/sleep?ms=3000");
    let mut head = server.connect();
    head.send("HEAD /sleep?ms=3001 HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(head.answer("HEAD").unwrap().status, 500);
    // An unread body does not prevent the response.
    let mut upload = server.connect();
    upload
        .send("POST /sleep?ms=3002 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        .unwrap();
    upload.send(vec![b'x'; 50_000]).unwrap();
    assert_eq!(upload.answer("POST").unwrap().status, 500);
}

/// Pipelined requests: the response to the first one may still be in the process.
fn a_response_comes_before_the_one_to_a_hang_behind_it(cell: &Cell) {
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let flags =
        if cell.class.has_threads() { "--request-timeout 1 --threads 2" } else { "--timeout 1" };
    let server = Setup::new(cell).app(artifacts::library("faulty_app")).flags(flags).start();
    let mut client = server.connect();
    client.send(request("/") + &request("/fault/spin")).unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 200);
    assert_eq!(client.answer("GET").unwrap().status, 500);
}

/// By `timeout`, of a worker whose only thread spins.
fn a_request_of_an_aborted_worker_is_answered(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("faulty_app"));
    let server = setup.flags("--timeout 1 --access-logfile -").start();
    let mut client = server.connect();
    client.send_get("/fault/spin").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 500);
    is_logged_once(&server, "/fault/spin");
    assert_eq!(server.get("/").status, 200);
}

/// Through the session of the thread that hangs, with a close alert: nothing was cut.
fn a_request_over_tls_is_answered(cell: &Cell) {
    let authority = Authority::new();
    let setup = Setup::new(cell).secured(&authority.server());
    let server = setup.flags("--request-timeout 1 --threads 2 --access-logfile -").start();
    let connect = |server: &Server| server.connect().over_tls(&authority.trusting()).unwrap();
    assert_eq!(connect(&server).get("/").unwrap().status, 200);
    let mut client = connect(&server);
    client.send_get("/sleep?ms=3000").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 500);
    assert!(client.ends(SOON));
    is_logged_once(&server, "/sleep?ms=3000");
    let mut upload = connect(&server);
    upload
        .send("POST /sleep?ms=3002 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        .unwrap();
    upload.send(vec![b'x'; 50_000]).unwrap();
    assert_eq!(upload.answer("POST").unwrap().status, 500);
    if cell.class.has_threads() {
        return;
    }
    let setup = Setup::new(cell).app(artifacts::library("faulty_app")).secured(&authority.server());
    let server = setup.flags("--timeout 1 --access-logfile -").start();
    let mut client = connect(&server);
    client.send_get("/fault/spin").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 500);
    assert!(client.ends(SOON));
    is_logged_once(&server, "/fault/spin");
}

/// In Python code and in C code that holds the interpreter's lock.
fn a_hang_in_python_is_answered(cell: &Cell) {
    for path in ["/spin", "/hang"] {
        let flags = if cell.class.has_threads() {
            "--request-timeout 1 --threads 4"
        } else {
            "--timeout 1"
        };
        let setup = Setup::new(cell).app("hung:application").flags(flags);
        let server = setup.flags("--access-logfile -").start();
        let mut client = server.connect();
        client.send_get(path).unwrap();
        assert_eq!(client.answer("GET").unwrap().status, 500, "{path}");
        is_logged_once(&server, path);
    }
}

fn a_hang_behind_the_head_is_cut(cell: &Cell) {
    let flags = if cell.class.has_threads() { "--request-timeout 1" } else { "--timeout 1" };
    let server = Setup::new(cell).app("hung:application").flags(flags).start();
    let mut client = server.connect();
    client.send_get("/late").unwrap();
    let received = client.rest().unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nbegun"), "{text}");
}

/// Errors wherever the server calls the application, and an abort in the middle of a request.
fn tracebacks_of_python_have_python_frames_alone(cell: &Cell) {
    let setup = Setup::new(cell).app("tracebacks:application").env("RUST_BACKTRACE", "1");
    let server = setup.flags("--timeout 2 --threads 2").start();
    for (path, word) in [
        ("/call", "in call"),
        ("/iterate", "in iterate"),
        ("/close", "in close"),
        ("/thread", "in thread"),
        ("/logged", "in logged"),
        ("/status", "/status"),
        ("/header", "/header"),
        ("/part", "/part"),
    ] {
        let _ = server.connect().get(path);
        server.log.line(&[word], SOON);
    }
    let mut upload = server.connect();
    upload.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc").unwrap();
    server.until_held("/read");
    upload.reset();
    let mut client = server.connect();
    client.send_get("/spin").unwrap();
    if cell.class.has_threads() {
        server.until_held("/spin");
        process::signal(server.workers()[0].pid, Signal::SIGABRT);
    }
    server.log.line(&["tracebacks.py", "in spin"], SOON);
    server.log.line(&[if cell.class.has_threads() { "SIGABRT" } else { "heartbeat" }], SOON);
    let log = server.log.text();
    for word in [".rs:", "panicked", "wsgi_app::", "worker_api::", "jimu_kit::", "core::", "std::"]
    {
        assert!(!log.contains(word), "{word:?} in {log}");
    }
}

fn is_logged_once(server: &Server, target: &str) {
    let line = server.out.line(&[&format!("\"GET {target} HTTP/1.1\"")], SOON);
    assert!(line.contains("\" 500 "), "{line}");
    assert_eq!(server.out.count(target), 1);
}
