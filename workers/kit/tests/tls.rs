//! Differences between connections with and without TLS: written bytes may still be held by the session.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod driven;

use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use doubles::host_with_tls;
use doubles::http::{self, Broken};
use doubles::tls::Authority;
use jimu_kit::{Advance, Deadline};
use rustls::ClientConfig;
use worker_api::Interest;

use driven::Server;

/// A response is not complete until the socket has accepted all of it, even if the session has: its connection neither
/// counts as idle nor is closed.
#[test]
fn bytes_held_by_the_session_are_sent_before_the_connection_is_idle() {
    let mut with_unsent = 0;
    for size in (64..=128).step_by(8).map(|kib| kib << 10) {
        let authority = Authority::new();
        let mut server = server(size, &authority);
        let client = Client::start(server.client.try_clone().unwrap(), authority.trusting());
        let mut next = server.serve();
        while server.host.access_log().is_empty() {
            let connection = server.connection.as_ref().expect("nothing ends it");
            jimu_kit::poll::wait(connection.fd(), Interest::READ, Deadline::NEVER, || ()).unwrap();
            next = server.serve();
        }
        assert_ne!(next, Advance::Closed);
        if next == Advance::Wait(Interest::WRITE) {
            with_unsent += 1;
            assert!(!server.connection.as_ref().unwrap().is_idle());
        }
        client.read.send(()).unwrap();
        while next == Advance::Wait(Interest::WRITE) {
            let connection = server.connection.as_ref().expect("nothing ends it");
            jimu_kit::poll::wait(connection.fd(), Interest::WRITE, Deadline::NEVER, || ()).unwrap();
            next = server.serve();
        }
        assert_eq!(next, Advance::Wait(Interest::READ));
        let mut connection = server.connection.take().unwrap();
        assert!(connection.is_idle());
        // Until the client has read something, there is no room for the close alert.
        jimu_kit::poll::wait(connection.fd(), Interest::WRITE, Deadline::NEVER, || ()).unwrap();
        assert_eq!(connection.expire(), Advance::Closed);
        drop((connection, server.client));
        // The response is complete, and ends with the close alert.
        assert_eq!(client.thread.join().unwrap().unwrap(), size);
    }
    assert!(with_unsent > 0, "no response had a size that makes the session hold back a part");
}

fn server(size: usize, authority: &Authority) -> Server {
    let identity = authority.server();
    let host =
        host_with_tls().file("certfile", identity.chain_pem).file("keyfile", identity.key_pem);
    Server::with_settings(host, move |exchange| exchange.respond(200, &[], &vec![b'x'; size]))
}

/// A client that sends a request immediately, and reads once `read` is signaled.
struct Client {
    read: mpsc::Sender<()>,
    /// Returns the length of the body, after which the session ends.
    thread: JoinHandle<Result<usize, Broken>>,
}

impl Client {
    fn start(socket: TcpStream, config: Arc<ClientConfig>) -> Self {
        let (read, may_read) = mpsc::channel();
        let thread = thread::spawn(move || {
            let client = http::Connection::over(socket).over_tls(&config);
            let mut client = client.map_err(Broken::Io)?;
            client.send_get("/").map_err(Broken::Io)?;
            may_read.recv().unwrap();
            let answer = client.answer("GET")?;
            assert_eq!(client.rest()?, b"");
            Ok(answer.body.len())
        });
        Self { read, thread }
    }
}
