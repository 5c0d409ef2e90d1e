//! Switches of protocols: an application reads and writes raw bytes through its exchange after a 101.

use std::{
    io::Read as _,
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    http::Connection,
    process::End,
    runner::Behaviour,
    server::{Server, Setup},
    tls::Authority,
};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use tungstenite::{Error, Message};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(after_a_101_every_byte_comes_back).of_class(),
        behaviour!(megabytes_pass_an_upgraded_connection).of_class().busy(),
        behaviour!(either_side_ends_an_upgraded_connection).of_class(),
        behaviour!(an_upgraded_connection_outlives_the_time_of_requests).of_class(),
        behaviour!(a_draining_worker_serves_an_upgraded_connection_to_its_end).of_class(),
        behaviour!(graceful_timeout_cuts_an_upgraded_connection).of_class(),
        behaviour!(websocket_messages_come_back).of_class(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn after_a_101_every_byte_comes_back(cell: &Cell) {
    for tls in [false, true] {
        let upgrades = Upgrades::start(serving(cell), tls);
        let mut client = upgrades.switch("/upgrade", "sent with the head");
        assert_eq!(exactly(&mut client, 18), b"sent with the head");
        for part in [&b"one"[..], b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", &[0, 255]] {
            client.send(part).unwrap();
            assert_eq!(exactly(&mut client, part.len()), part);
        }
        let server = &upgrades.server;
        server.until_held("/upgrade");
        client.end_sending();
        assert_eq!(client.rest().unwrap(), b"");
        server.out.line(&["<GET /upgrade 101 53>"], SOON);
        server.until_workers("the request is over", |workers| {
            workers.iter().all(|worker| worker.in_flight.is_empty())
        });
    }
}

fn megabytes_pass_an_upgraded_connection(cell: &Cell) {
    const LENGTH: usize = 10 << 20;
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let upgrades = Upgrades::start(serving(cell), false);
    let mut client = upgrades.switch("/upgrade", "");
    // Less than is under way, so that the application's writes must wait for the client.
    setsockopt(&client, sockopt::RcvBuf, &(128 << 10)).unwrap();
    let (mut sender, sent) = (client.twin(), bytes.clone());
    let sends = thread::spawn(move || {
        sender.send(sent).unwrap();
        sender.end_sending();
    });
    assert!(client.rest().unwrap() == bytes);
    sends.join().unwrap();

    let upgrades = Upgrades::start(serving(cell), true);
    let mut client = upgrades.switch("/upgrade", "");
    for part in bytes.chunks(64 << 10) {
        client.send(part).unwrap();
        assert!(exactly(&mut client, part.len()) == part);
    }
    client.end_sending();
    assert_eq!(client.rest().unwrap(), b"");
}

fn either_side_ends_an_upgraded_connection(cell: &Cell) {
    for tls in [false, true] {
        let upgrades = Upgrades::start(serving(cell), tls);
        let out = &upgrades.server.out;
        // The application ends it: what follows is neither echoed nor a request, and there is no reset.
        let more = "123GET / HTTP/1.1\r\nHost: test\r\n\r\n";
        let mut client = upgrades.switch("/upgrade?bytes=3", more);
        assert_eq!(client.rest().unwrap(), b"123");
        drop(client);
        out.line(&["<GET /upgrade 101 3>"], SOON);

        let mut client = upgrades.switch("/upgrade", "");
        client.send("last").unwrap();
        assert_eq!(exactly(&mut client, 4), b"last");
        client.reset();
        out.line(&["<GET /upgrade 101 4>"], SOON);

        assert_eq!(upgrades.connect().get("/").unwrap().text(), "check\n");
        out.line(&["<GET / 200 6>"], SOON);
        assert_eq!(out.text().matches("<GET").count(), 3, "{}", out.text());
    }
}

/// The limits are those of requests and responses.
fn an_upgraded_connection_outlives_the_time_of_requests(cell: &Cell) {
    let limits = "--request-timeout 0.5 --body-timeout 0.5 --write-timeout 0.5 --keep-alive 1";
    let upgrades = Upgrades::start(serving(cell).flags(limits), false);
    let mut client = upgrades.switch("/upgrade", "");
    // A limit that does not apply has no event to await.
    thread::sleep(Duration::from_millis(1500));
    client.send("still there").unwrap();
    assert_eq!(exactly(&mut client, 11), b"still there");
    let log = upgrades.server.log.text();
    assert!(!log.contains("timed out"), "{log}");
}

fn a_draining_worker_serves_an_upgraded_connection_to_its_end(cell: &Cell) {
    let mut upgrades = Upgrades::start(serving(cell).flags("--graceful-timeout 20"), false);
    let mut client = upgrades.switch("/upgrade", "");
    let server = &mut upgrades.server;
    server.until_held("/upgrade");
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], SOON);
    client.send("while it drains").unwrap();
    assert_eq!(exactly(&mut client, 15), b"while it drains");
    client.end_sending();
    assert_eq!(client.rest().unwrap(), b"");
    assert_eq!(server.ended(SOON).end, End::Status(0));
    assert!(begun.elapsed() < SOON, "ended after {:?}", begun.elapsed());
}

fn graceful_timeout_cuts_an_upgraded_connection(cell: &Cell) {
    for tls in [false, true] {
        let mut upgrades = Upgrades::start(serving(cell).flags("--graceful-timeout 1"), tls);
        let mut client = upgrades.switch("/upgrade", "");
        let server = &mut upgrades.server;
        server.until_held("/upgrade");
        let begun = Instant::now();
        server.signal(Signal::SIGTERM);
        server.ended(Duration::from_secs(8));
        assert!(begun.elapsed() > Duration::from_millis(900), "cut after {:?}", begun.elapsed());
        assert!(client.ends(SOON), "the client sees the end");
    }
}

/// The example of an upgrade, with an independent client.
fn websocket_messages_come_back(cell: &Cell) {
    for tls in [false, true] {
        let setup = Setup::new(cell).app(artifacts::library("websocket_echo_app"));
        let upgrades = Upgrades::start(setup, tls);
        let (mut client, response) = tungstenite::client("ws://test/", upgrades.connect()).unwrap();
        assert_eq!(response.status(), 101);
        for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            client.send(Message::text("x".repeat(length))).unwrap();
            assert_eq!(client.read().unwrap().into_text().unwrap().len(), length);
            client.send(Message::binary(vec![255; length])).unwrap();
            assert!(client.read().unwrap().into_data() == vec![255; length]);
        }
        client.send(Message::Ping(vec![1, 2].into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(vec![1, 2].into()));
        client.close(None).unwrap();
        assert!(client.read().unwrap().is_close());
        assert!(matches!(client.read(), Err(Error::ConnectionClosed)));

        let refused = upgrades.connect().get("/").unwrap();
        assert_eq!((refused.status, refused.field("upgrade")), (426, Some("websocket")));
        let worker = &upgrades.server.workers()[0];
        assert_eq!((worker.upgraded, worker.messages_received, worker.messages_sent), (0, 14, 14));
    }
}

/// A server whose application switches protocols.
struct Upgrades {
    server: Server,
    /// What clients trust, if the server uses TLS.
    authority: Option<Authority>,
}

impl Upgrades {
    fn start(setup: Setup, tls: bool) -> Self {
        let authority = tls.then(Authority::new);
        let setup = match &authority {
            Some(authority) => setup.secured(&authority.server()),
            None => setup,
        };
        Self { server: setup.start(), authority }
    }

    fn connect(&self) -> Connection {
        let client = self.server.connect();
        match &self.authority {
            Some(authority) => client.over_tls(&authority.trusting()).unwrap(),
            None => client,
        }
    }

    /// Switches protocols on a new connection, with `more` sent together with the request.
    fn switch(&self, target: &str, more: &str) -> Connection {
        let mut client = self.connect();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        );
        client.send(head + more).unwrap();
        let answer = client.answer("GET").unwrap();
        assert_eq!((answer.status, answer.field("upgrade")), (101, Some("echo")));
        client
    }
}

fn serving(cell: &Cell) -> Setup {
    Setup::new(cell)
        .app(artifacts::library("check_app"))
        .flags("--access-logfile -")
        .flag("--access-logformat", "<%(m)s %(U)s %(s)s %(B)s>")
}

fn exactly(client: &mut Connection, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    bytes
}
