//! What a response says about its connection, and how a connection ends.

use std::{
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::{Broken, Connection},
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(what_a_response_says_about_its_connection_holds).heavy().within(150),
        behaviour!(a_closing_connection_does_not_cut_off_a_sender).within(90),
    ]
}

/// A request: what is sent before the response is read, and the part of the body that the client sends
/// afterwards.
struct Shape {
    name: &'static str,
    line: &'static str,
    fields: &'static str,
    body: Vec<u8>,
    owed: Vec<u8>,
}

impl Shape {
    fn new(name: &'static str, line: &'static str, fields: &'static str) -> Self {
        Self { name, line, fields, body: Vec::new(), owed: Vec::new() }
    }

    fn sends(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn owes(mut self, owed: impl Into<Vec<u8>>) -> Self {
        self.owed = owed.into();
        self
    }

    fn first(&self) -> Vec<u8> {
        let head = format!("{}\r\nHost: test\r\n{}\r\n", self.line, self.fields);
        [head.as_bytes(), &self.body].concat()
    }

    fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }
}

/// Time limit of a response: that to a panic is slow on a busy machine, because a debug build resolves many
/// symbols.
const PATIENCE: Duration = Duration::from_secs(45);
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const WITHIN_BOUND: &str = "Content-Length: 100000\r\n";
const BEYOND_BOUND: &str = "Content-Length: 400000\r\n";

/// Returns whether the application reads the body: `/echo` does, the others do not.
#[rustfmt::skip]
fn shapes() -> Vec<Shape> {
    let bytes = |count: usize| vec![b'x'; count];
    let chunks = |count: usize| [b"3e8\r\n".as_slice(), &bytes(1000), b"\r\n"].concat().repeat(count);
    let last = |chunks: Vec<u8>| [chunks.as_slice(), b"0\r\n\r\n"].concat();
    let post = Shape::new;
    vec![
        Shape::new("plain", "GET / HTTP/1.1", ""),
        Shape::new("close", "GET / HTTP/1.1", "Connection: close\r\n"),
        Shape::new("1.0", "GET / HTTP/1.0", ""),
        Shape::new("1.0 keep-alive", "GET / HTTP/1.0", "Connection: keep-alive\r\n"),
        Shape::new("1.0 keep-alive, unknown length", "GET /stream HTTP/1.0", "Connection: keep-alive\r\n"),
        Shape::new("1.0 HEAD keep-alive", "HEAD / HTTP/1.0", "Connection: keep-alive\r\n"),
        Shape::new("1.0 keep-alive, unread body", "POST / HTTP/1.0", "Connection: keep-alive\r\nContent-Length: 400000\r\n")
            .sends(bytes(10)).owes(bytes(399_990)),
        Shape::new("stream", "GET /stream HTTP/1.1", ""),
        Shape::new("HEAD", "HEAD / HTTP/1.1", ""),
        Shape::new("HEAD of a stream", "HEAD /stream HTTP/1.1", ""),
        Shape::new("HEAD with an unread body", "HEAD / HTTP/1.1", BEYOND_BOUND).owes(bytes(400_000)),
        Shape::new("404", "GET /no HTTP/1.1", ""),
        Shape::new("404 with an unread body", "POST /no HTTP/1.1", WITHIN_BOUND).owes(bytes(100_000)),
        Shape::new("500 with an unread body", "POST /panic HTTP/1.1", WITHIN_BOUND).owes(bytes(100_000)),
        Shape::new("400", "GET / HTTP/1.1", "Content-Length: x\r\n"),
        Shape::new("upgrade refused", "GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
        post("read body", "POST /echo HTTP/1.1", BEYOND_BOUND).sends(bytes(400_000)),
        post("read chunks", "POST /echo HTTP/1.1", CHUNKED).sends(last(chunks(400))),
        post("unread body", "POST / HTTP/1.1", WITHIN_BOUND).sends(bytes(100_000)),
        post("unread body, late", "POST / HTTP/1.1", WITHIN_BOUND).owes(bytes(100_000)),
        post("big unread body", "POST / HTTP/1.1", BEYOND_BOUND).sends(bytes(400_000)),
        post("big unread body, late", "POST / HTTP/1.1", BEYOND_BOUND).owes(bytes(400_000)),
        post("unread chunks", "POST / HTTP/1.1", CHUNKED).sends(last(chunks(3))),
        post("unread chunks, late", "POST / HTTP/1.1", CHUNKED).sends(chunks(3)).owes(last(chunks(3))),
        post("many unread chunks, late", "POST / HTTP/1.1", CHUNKED).sends(chunks(3)).owes(last(chunks(400))),
        post("wrong unread chunks", "POST / HTTP/1.1", CHUNKED).sends(chunks(1)).owes("no size\r\n"),
        post("expects, is not let", "POST / HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 10\r\n"),
        post("expects, sends late", "POST / HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 10\r\n").owes(bytes(10)),
        post("expects, sends at once", "POST / HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 10\r\n").sends(bytes(10)),
        post("expects, is read", "POST /echo HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 10\r\n").sends(bytes(10)),
        post("expects, chunks", "POST / HTTP/1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"),
        post("expects, 404", "POST /no HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 10\r\n"),
    ]
}

/// If a response keeps the connection, explicitly or by its version, the next request on it is served; otherwise
/// the connection ends without a reset.
fn what_a_response_says_about_its_connection_holds(cell: &Cell) {
    // With buffered bodies, a response comes when the whole body has been sent.
    for (flags, sends_at_once) in [
        ("--keep-alive 10 --body-buffer-max 0", false),
        ("--keep-alive 0 --body-buffer-max 0", false),
        ("--keep-alive 10", true),
    ] {
        let server = Setup::new(cell).flags(flags).start();
        for mut shape in shapes() {
            if sends_at_once {
                shape.body.append(&mut shape.owed);
            }
            if let Err(fault) = holds(&server, &shape) {
                panic!("{flags}, {}: {fault}", shape.name);
            }
        }
    }
}

fn holds(server: &Server, shape: &Shape) -> Result<(), String> {
    let mut client = server.connect();
    client.patience(PATIENCE);
    client.send(shape.first()).map_err(|error| format!("sending: {error}"))?;
    let answer = client.answer(shape.method()).map_err(|broken| format!("response: {broken}"))?;
    let owed = client.send(&shape.owed);
    if answer.keeps() {
        owed.map_err(|error| format!("kept, and then: {error}"))?;
        return match client.get("/") {
            Ok(next) if next.status == 200 => Ok(()),
            next => Err(format!("kept, and then: {next:?}")),
        };
    }
    owed.map_err(|error| format!("closing, and reset: {error}"))?;
    client.end_sending();
    match client.rest() {
        Ok(rest) if rest.is_empty() => Ok(()),
        end => Err(format!("closed, and then: {end:?}")),
    }
}

/// The client keeps sending for longer than the server takes to respond and close, and reads only then.
fn a_closing_connection_does_not_cut_off_a_sender(cell: &Cell) {
    let server = Setup::new(cell).flags("--keep-alive 10 --body-buffer-max 0").start();
    let unread = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n";
    let endless = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1e8480\r\n";
    let old = "POST / HTTP/1.0\r\nContent-Length: 2000000\r\n\r\n";
    let refused = "POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n";
    let failing = "POST /panic HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n";
    let expecting =
        "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n";
    let heads = [
        (unread, 200),
        (endless, 200),
        (old, 200),
        (refused, 400),
        (failing, 500),
        (expecting, 200),
    ];
    let senders: Vec<_> = heads
        .into_iter()
        .map(|(head, status)| {
            let client = server.connect();
            thread::spawn(move || (head, sends_slowly(client, head, status)))
        })
        .collect();
    for sender in senders {
        let (head, outcome) = sender.join().unwrap();
        assert!(outcome.is_ok(), "{head:?}: {outcome:?}");
    }
}

/// Sends 2 MB in parts, which takes a second more than a server waits for a silent client.
fn sends_slowly(mut client: Connection, head: &str, status: u16) -> Result<(), Broken> {
    client.patience(PATIENCE);
    client.send(head).map_err(Broken::Io)?;
    let part = vec![b'x'; 50_000];
    for _ in 0..40 {
        let next = Instant::now() + Duration::from_millis(75);
        client.send(&part).map_err(Broken::Io)?;
        // The client is slow: that is what is tested.
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let answer = client.answer("POST")?;
    assert_eq!(answer.status, status, "{head:?}");
    client.end_sending();
    let rest = client.rest()?;
    assert!(rest.is_empty(), "{head:?}: {rest:?}");
    Ok(())
}
