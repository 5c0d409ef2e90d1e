//! Differences between connections with and without TLS: written bytes may still be held by the session.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod double;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use kit::Advance;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use worker_api::{Exchange, Interest};

use double::Server;

/// A response is not complete until the socket has accepted all of it, even if the session has: its connection neither
/// counts as idle nor is closed.
#[test]
fn bytes_held_by_the_session_are_sent_before_the_connection_is_idle() {
    let mut with_unsent = 0;
    for size in (64..=128).step_by(8).map(|kib| kib << 10) {
        let (mut server, certificate) = server(size);
        let client = Client::start(server.client.try_clone().unwrap(), certificate);
        let mut next = server.serve();
        while server.host.log().is_empty() {
            let connection = server.connection.as_ref().expect("nothing ends it");
            kit::poll::wait(connection.fd(), Interest::READ, 0, || ()).unwrap();
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
            kit::poll::wait(connection.fd(), Interest::WRITE, 0, || ()).unwrap();
            next = server.serve();
        }
        assert_eq!(next, Advance::Wait(Interest::READ));
        let mut connection = server.connection.take().unwrap();
        assert!(connection.is_idle());
        // Until the client has read something, there is no room for the close alert.
        kit::poll::wait(connection.fd(), Interest::WRITE, 0, || ()).unwrap();
        assert_eq!(connection.expire(), Advance::Closed);
        drop((connection, server.client));
        // The response is complete, and ends with the close alert.
        assert_eq!(client.thread.join().unwrap().unwrap(), size);
    }
    assert!(with_unsent > 0, "no response had a size that makes the session hold back a part");
}

fn server(size: usize) -> (Server, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = vec![("certfile", certificate.pem()), ("keyfile", key.serialize_pem())];
    let app = move |exchange: &mut Exchange| exchange.respond(200, &[], &vec![b'x'; size]);
    (Server::with_files(files, app), certificate.der().clone())
}

/// A client that sends a request immediately, and reads once `read` is signaled.
struct Client {
    read: mpsc::Sender<()>,
    /// Returns the length of the body.
    thread: JoinHandle<std::io::Result<usize>>,
}

impl Client {
    fn start(socket: TcpStream, certificate: CertificateDer<'static>) -> Self {
        let (read, may_read) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("a.test").unwrap();
            let session = ClientConnection::new(Arc::new(config), name).unwrap();
            let mut stream = StreamOwned::new(session, socket);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            may_read.recv().unwrap();
            let mut response = Vec::new();
            stream.read_to_end(&mut response)?;
            Ok(response.len() - response.windows(4).position(|end| end == b"\r\n\r\n").unwrap() - 4)
        });
        Self { read, thread }
    }
}
