//! Connections that the application opens with the runtime of its class: by address, by name and by path, and what it gets
//! if that fails.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    runner::Behaviour,
    server::{Server, Setup},
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(an_application_connects).of_class(),
        behaviour!(a_connection_that_fails_has_a_reason).of_class(),
        behaviour!(others_are_served_while_one_connects).of_class().needs(Need::Concurrency),
    ]
}

fn an_application_connects(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::library("check_app")).start();
    connects(&server);
    let found = server.get("/resolve?host=localhost&port=81").text();
    assert!(found.contains("127.0.0.1:81\n") || found.contains("[::1]:81\n"), "{found}");
    assert_eq!(server.get("/resolve?host=::1&port=81").text(), "[::1]:81\n");
}

/// Has the application of `server` connect in each way; its path `/connect` sends a line and returns the response.
pub(crate) fn connects(server: &Server) {
    let (port, replied) = on_tcp();
    let target = format!("/connect?to=127.0.0.1:{port}&ms=10000");
    assert_eq!(server.get(&target).text(), "pong to ping\n");
    replied.join().unwrap();
    // Under `localhost` there may be `::1` first, where nothing listens.
    let (port, replied) = on_tcp();
    let target = format!("/connect?to=localhost:{port}&ms=10000");
    assert_eq!(server.get(&target).text(), "pong to ping\n");
    replied.join().unwrap();
    let path = server.dir().join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let replied = peer(move || listener.accept().unwrap().0);
    let target = format!("/connect?to=unix:{}&ms=10000", path.display());
    assert_eq!(server.get(&target).text(), "pong to ping\n");
    replied.join().unwrap();
}

fn a_connection_that_fails_has_a_reason(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::library("check_app")).start();
    let fails = |to: &str, reason: &str| {
        let answer = server.get(&format!("/connect?to={to}&ms=300"));
        assert_eq!(answer.status, 502, "{to}");
        assert!(answer.text().contains(reason), "{to}: {}", answer.text());
    };
    fails(&refusing().to_string(), "input/output: cannot connect to 127.0.0.1:");
    fails(&refusing().to_string(), "Connection refused");
    fails("unix:/nowhere/peer.sock", "No such file or directory");
    fails(&format!("{UNKNOWN}:80"), "input/output: cannot resolve");
    fails("127.0.0.1", "application: cannot connect to `127.0.0.1`: write HOST:PORT");
    let (full, _queue) = full_backlog();
    fails(&full.to_string(), "timeout: cannot connect to 127.0.0.1:");
    let path = server.dir().join("full.sock");
    let _queue = full_backlog_at(&path);
    fails(&format!("unix:{}", path.display()), "timeout: cannot connect to unix:/");
    assert_eq!(server.get("/").text(), "check\n");
}

fn others_are_served_while_one_connects(cell: &Cell) {
    let app = artifacts::library("check_app");
    let server = Setup::new(cell).app(app).flags("--threads 2").start();
    let (full, queue) = full_backlog();
    let mut client = server.connect();
    client.send_get(&format!("/connect?to={full}&ms=30000")).unwrap();
    server.until_held("/connect");
    assert_eq!(server.get("/").text(), "check\n");
    // Without its listener the connection is refused at its next attempt.
    drop(queue);
    let answer = client.answer("GET").unwrap();
    assert!(answer.text().contains("Connection refused"), "{}", answer.text());
}

/// An address where nothing listens.
pub(crate) fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn on_tcp() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, peer(move || listener.accept().unwrap().0))
}

/// Accepts one connection, and responds to the line that it receives.
fn peer<S: Read + Write>(accept: impl FnOnce() -> S + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(accept());
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        write!(stream.get_mut(), "pong to {line}").unwrap();
    })
}

/// A listener whose backlog is full, with the connections in it: further ones wait.
fn full_backlog() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(stream) => waiting.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return (address, (listener, waiting));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The same at a path.
fn full_backlog_at(path: &Path) -> Vec<OwnedFd> {
    let listener = UnixListener::bind(path).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut waiting = vec![OwnedFd::from(listener)];
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        match connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()) {
            Ok(()) => waiting.push(fd),
            Err(Errno::EAGAIN) => return waiting,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// A label may have 63 characters: the resolver refuses this one without a server.
const UNKNOWN: &str =
    "no-host-has-a-name-with-this-label-which-is-longer-than-the-limit-of-the-dns.invalid";
