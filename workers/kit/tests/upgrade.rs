//! Exchanges after a switch of protocols: their bytes, their limits, and their end; with and without TLS.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod driven;

use std::io::Read as _;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use doubles::host_with_tls;
use doubles::http::Connection as Client;
use doubles::tls::Authority;
use jimu_kit::{Advance, Connection, ConnectionDriver, Deadline, poll};
use worker_api::testing::TestHost;
use worker_api::{Exchange, FailureKind, Header, Interest, Result, Step, Waker};

use driven::Server;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn bytes_come_back_from_the_first_one_after_the_head() {
    for tls in [false, true] {
        let log = serve(tls, echo, |mut client| {
            client.send([UPGRADE, "early"].concat()).unwrap();
            let head = head(&mut client);
            assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
            assert!(head.contains("\r\nConnection: upgrade\r\n"), "{head}");
            assert_eq!(exactly(&mut client, 5), b"early");
            client.send("late").unwrap();
            assert_eq!(exactly(&mut client, 4), b"late");
            client.send("last").unwrap();
            client.end_sending();
            assert_eq!(client.rest().unwrap(), b"last", "and then the end, with a close alert");
        });
        assert_eq!(log, ["GET / 101 13"]);
    }
}

#[test]
fn a_tunnel_begins_after_the_head_of_a_2xx() {
    let app = |exchange: &mut Exchange| {
        exchange.start(200, "", &[])?;
        copy(exchange)
    };
    let log = serve(false, app, |mut client| {
        client.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap();
        assert!(head(&mut client).starts_with("HTTP/1.1 200 OK\r\n"), "before the first byte");
        client.send("through").unwrap();
        assert_eq!(exactly(&mut client, 7), b"through");
        client.end_sending();
        assert_eq!(client.rest().unwrap(), b"");
    });
    assert_eq!(log, ["CONNECT a:1 200 7"]);
}

#[test]
fn more_than_the_buffers_hold_passes_in_both_directions() {
    const LENGTH: usize = 1 << 20;
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let expected = bytes.clone();
    serve(false, echo, move |mut client| {
        client.send(UPGRADE).unwrap();
        head(&mut client);
        let mut sender = client.twin();
        let sends = thread::spawn(move || {
            sender.send(&bytes).unwrap();
            sender.end_sending();
        });
        assert!(client.rest().unwrap() == expected);
        sends.join().unwrap();
    });
    let part: Vec<u8> = (0..32 << 10).map(|at| (at % 251) as u8).collect();
    serve(true, echo, move |mut client| {
        client.send(UPGRADE).unwrap();
        head(&mut client);
        for _ in 0..LENGTH / part.len() {
            client.send(&part).unwrap();
            assert!(exactly(&mut client, part.len()) == part);
        }
        client.end_sending();
        assert_eq!(client.rest().unwrap(), b"");
    });
}

/// The application may wait for a reply to what it has written, so all of that must reach the client.
#[test]
fn accepted_bytes_need_no_further_write() {
    for tls in [false, true] {
        let (counted, count) = mpsc::channel();
        let app = move |exchange: &mut Exchange| {
            switch(exchange)?;
            let part = vec![b'x'; 100_000];
            let mut accepted = 0;
            while let Step::Ready(more) = exchange.poll_write(&part, None) {
                accepted += more;
            }
            counted.send(accepted).unwrap();
            assert_eq!(exchange.read(&mut [0])?, 1);
            exchange.finish()
        };
        let log = serve(tls, app, move |mut client| {
            client.send(UPGRADE).unwrap();
            head(&mut client);
            let count = count.recv().unwrap();
            assert!(exactly(&mut client, count).iter().all(|byte| *byte == b'x'));
            client.send("!").unwrap();
            assert_eq!(client.rest().unwrap(), b"");
            client.end_sending();
        });
        assert_eq!(log.len(), 1);
    }
}

#[test]
fn a_reset_is_a_client_that_has_gone() {
    for tls in [false, true] {
        let (told, kind) = mpsc::channel();
        let app = move |exchange: &mut Exchange| {
            switch(exchange)?;
            let failure = exchange.read(&mut [0; 10]).unwrap_err();
            told.send(failure.kind).unwrap();
            assert_eq!(exchange.write(b"x").unwrap_err().kind, FailureKind::GONE);
            Err(failure)
        };
        let log = serve(tls, app, |mut client| {
            client.send(UPGRADE).unwrap();
            head(&mut client);
            client.reset();
        });
        assert_eq!(kind.recv().unwrap(), FailureKind::GONE);
        assert_eq!(log, ["GET / 101 0"]);
    }
}

#[test]
fn the_application_may_end_it_and_nothing_after_it_is_a_request() {
    for tls in [false, true] {
        let app = |exchange: &mut Exchange| {
            switch(exchange)?;
            exchange.write(b"bye")?;
            exchange.finish()
        };
        let log = serve(tls, app, |mut client| {
            client.send([UPGRADE, UPGRADE].concat()).unwrap();
            head(&mut client);
            assert_eq!(client.rest().unwrap(), b"bye", "and the end of the connection");
            // A connection that is closed with unread bytes is reset: these are read.
            client.send(UPGRADE).unwrap();
            client.end_sending();
        });
        assert_eq!(log, ["GET / 101 3"]);
    }
}

#[test]
fn a_body_is_read_before_the_switch() {
    let request =
        UPGRADE.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\n");
    let request = request + "bodyraw";
    let sent = request.clone();
    let log = serve(false, echo, move |mut client| {
        client.send(sent).unwrap();
        assert!(head(&mut client).starts_with("HTTP/1.1 500 "));
        client.rest().unwrap();
        client.end_sending();
    });
    assert!(log[0].starts_with("POST / 500 "), "{log:?}");

    let reads_first = |exchange: &mut Exchange| {
        assert_eq!(exchange.read_to_end(100)?, b"body");
        echo(exchange)
    };
    let log = serve(false, reads_first, move |mut client| {
        client.send(request).unwrap();
        assert!(head(&mut client).starts_with("HTTP/1.1 101 "));
        client.end_sending();
        assert_eq!(client.rest().unwrap(), b"raw");
    });
    assert_eq!(log, ["POST / 101 3"]);
}

#[test]
fn only_a_client_that_does_not_read_has_a_deadline() {
    let names = ["request_timeout", "body_timeout", "write_timeout", "min_rate"];
    let host = names.iter().fold(TestHost::default(), |host, name| host.set(name, 1000));
    let mut server = Server::with_settings(host, |_| Ok(()));
    Client::over(server.client.try_clone().unwrap()).send(UPGRADE).unwrap();
    let mut connection = server.connection.take().unwrap();
    while connection.advance() != Advance::Request {
        assert!(poll::wait(connection.fd(), Interest::READ, connection.deadline(), || ()).unwrap());
    }
    let driver = Arc::new(Recorder::default());
    let mut exchange = Exchange::from_raw(connection.into_exchange(driver.clone()));
    assert!(exchange.deadline_ns().is_some());
    switch(&mut exchange).unwrap();
    assert_eq!(exchange.deadline_ns(), None);
    assert_eq!(*driver.extended.lock().unwrap(), [Deadline::NEVER]);

    assert_eq!(exchange.poll_read(&mut [0], Some(waker())), Step::Pending);
    assert_eq!(driver.last_wait(), (Interest::READ, Deadline::NEVER));
    while let Step::Ready(_) = exchange.poll_write(&[0; 10_000], Some(waker())) {}
    let (interest, deadline) = driver.last_wait();
    assert_eq!(interest, Interest::WRITE);
    assert!(!deadline.is_never() && !deadline.is_past());
    exchange.finish().unwrap();
    drop(driver.released.lock().unwrap().take());
}

/// Serves one connection to its end with `app`, while `client` runs on another thread. Returns the access log.
fn serve(
    tls: bool,
    app: impl Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static,
    client: impl FnOnce(Client) + Send + 'static,
) -> Vec<String> {
    let authority = Authority::new();
    let identity = authority.server();
    let mut host = host_with_tls();
    if tls {
        host = host.file("certfile", identity.chain_pem).file("keyfile", identity.key_pem);
    }
    let mut server = Server::with_settings(host, app);
    // The client's thread has the only descriptor of its side.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    let socket = mem::replace(&mut server.client, other);
    let runs = thread::spawn(move || {
        let connection = Client::over(socket);
        client(if tls { connection.over_tls(&authority.trusting()).unwrap() } else { connection });
    });
    while let Advance::Wait(interest) = server.serve() {
        let connection = server.connection.as_ref().unwrap();
        let ready = poll::wait(connection.fd(), interest, connection.deadline(), || ()).unwrap();
        assert!(ready, "the client closes its side in time");
    }
    runs.join().unwrap();
    server.host.access_log()
}

fn switch(exchange: &mut Exchange) -> Result<()> {
    exchange.start(101, "", &[Header::new("Upgrade", "echo")])
}

fn echo(exchange: &mut Exchange) -> Result<()> {
    switch(exchange)?;
    copy(exchange)
}

/// Sends back what arrives, until the client ends its side.
fn copy(exchange: &mut Exchange) -> Result<()> {
    let mut part = [0; 16 << 10];
    loop {
        match exchange.read(&mut part)? {
            0 => return exchange.finish(),
            count => exchange.write(&part[..count])?,
        }
    }
}

fn head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.take_byte().unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn exactly(client: &mut Client, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

fn waker() -> Waker {
    Waker::new(|| ())
}

/// Records what an exchange waits for.
#[derive(Default)]
struct Recorder {
    waits: Mutex<Vec<(Interest, Deadline)>>,
    extended: Mutex<Vec<Deadline>>,
    released: Mutex<Option<Box<Connection>>>,
}

impl Recorder {
    fn last_wait(&self) -> (Interest, Deadline) {
        *self.waits.lock().unwrap().last().unwrap()
    }
}

impl ConnectionDriver for Recorder {
    fn wait(&self, _: RawFd, _: Interest, _: Deadline) -> Result<()> {
        unreachable!("the test does not block")
    }

    fn register_waker(
        &self,
        _: BorrowedFd<'_>,
        interest: Interest,
        deadline: Deadline,
        _: Waker,
    ) -> Result<()> {
        self.waits.lock().unwrap().push((interest, deadline));
        Ok(())
    }

    fn deadline_extended(&self, _: RawFd, deadline: Deadline) {
        self.extended.lock().unwrap().push(deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        *self.released.lock().unwrap() = Some(connection);
    }
}
