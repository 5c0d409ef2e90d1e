//! The response of a Python application and what the client receives: PEP 3333 and RFC 9110.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use jimu_tests::{
    behaviour,
    cell::{Cell, Need},
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(hop_by_hop_headers_are_left_out).of_python(),
        behaviour!(a_body_ends_at_its_content_length).of_python(),
        behaviour!(a_slow_close_delays_no_response).of_python(),
        behaviour!(a_list_of_parts_has_a_length).of_python().needs(Need::KeepAlive),
        behaviour!(a_repeated_header_keeps_every_value).of_python(),
        behaviour!(compressed_files_are_read).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// As a proxy does that passes on its upstream's headers.
fn hop_by_hop_headers_are_left_out(cell: &Cell) {
    let server = responding(cell);
    for _ in 0..3 {
        let answer = server.get("/upstream");
        assert_eq!((answer.status, answer.text().as_str()), (200, "passed on"));
        for name in ["Keep-Alive", "Upgrade", "TE", "Proxy-Connection"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
        assert_eq!(answer.field("Trailer"), Some("X-Checksum"));
        assert_eq!(answer.field("Proxy-Authenticate"), Some("Basic"));
    }
    server.log.line(&["removed", "hop-by-hop"], SOON);
    assert_eq!(server.log.count("hop-by-hop"), 1, "one warning per worker");
    let mut client = server.connect();
    assert_eq!(client.get("/closes").unwrap().field("Connection"), Some("close"));
    assert!(client.closes(SOON));
}

fn a_body_ends_at_its_content_length(cell: &Cell) {
    let server = responding(cell);
    let mut client = server.connect();
    for path in ["/long-list", "/long-parts", "/long-file", "/long-file-like", "/long-write"] {
        if !cell.class.can(Need::KeepAlive) {
            client = server.connect();
        }
        let answer = client.get(path).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "01234"), "{path}");
    }
    assert_eq!(server.get("/closed").text(), "parts: closed");
    assert_eq!(server.log.count("longer than its Content-Length"), 1, "one warning per worker");
    let start = server.log.mark();
    assert!(server.try_get("/short-parts").is_err());
    server.log.line_after(start, &["/short-parts", "shorter than its Content-Length"], SOON);
    assert_eq!(server.get("/closed").status, 200);
    let log = server.log.text();
    assert_eq!(log.matches("shorter than its Content-Length").count(), 1, "{log}");
}

/// The client has all of it before the application's `close()` ends.
fn a_slow_close_delays_no_response(cell: &Cell) {
    let server = responding(cell);
    for (kind, length) in [("small", 4), ("large", 400_000), ("chunked", 4), ("empty", 0)] {
        let mut client = server.connect();
        client.send(format!("GET /close-waits?{kind} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
        assert_eq!(client.one_answer("GET").unwrap().body.len(), length, "{kind}");
        server.write(kind, "");
    }
    let closed = || {
        let text = server.get("/closed").text();
        let closed: BTreeSet<String> = text.split(',').map(String::from).collect();
        if closed.len() == 4 { Ok(closed) } else { Err(text) }
    };
    let closed = wait::until("four bodies are closed", SOON, closed);
    assert!(!closed.contains("held up"), "{closed:?}");
}

/// A client of HTTP/1.0 can then keep its connection.
fn a_list_of_parts_has_a_length(cell: &Cell) {
    let server = responding(cell);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET /list HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = client.one_answer("GET").unwrap();
        assert_eq!((answer.field("Content-Length"), &*answer.text()), (Some("7"), "one two"));
    }
}

/// Whatever a client has sent before, and for names that differ only in punctuation.
fn a_repeated_header_keeps_every_value(cell: &Cell) {
    for flags in ["", "--header-map dangerous"] {
        let setup = Setup::new(cell).app("responses:application").flags(flags);
        let server = setup.start();
        let mut seen = 0;
        for round in 0..2 {
            let second = if flags.is_empty() { "x-tWO" } else { "X_Two" };
            let fields = format!("X-Two: 1\r\n{second}: 2\r\nCookie: a=1\r\ncOOKIE: b=2\r\n");
            let mut client = server.connect();
            let head = "GET /headers HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
            client.send(format!("{head}{fields}\r\n")).unwrap();
            let text = client.answer("GET").unwrap().text();
            assert!(text.contains("HTTP_X_TWO=1,2"), "{round}: {text}");
            assert!(text.contains("HTTP_COOKIE=a=1; b=2"), "{round}: {text}");
            // Then more spellings of names than a worker remembers.
            for _ in 0..10 {
                let mut names = String::new();
                for name in seen..seen + 60 {
                    writeln!(names, "X-Name-{name}: 1\r").unwrap();
                }
                seen += 60;
                let mut client = server.connect();
                client.send(format!("{head}{names}\r\n")).unwrap();
                assert_eq!(client.answer("GET").unwrap().status, 200);
            }
            let mut client = server.connect();
            client.send(format!("{head}x-two: 0\r\nX-tWo: 1\r\nX-Two: 2\r\n\r\n")).unwrap();
            let text = client.answer("GET").unwrap().text();
            assert!(text.contains("HTTP_X_TWO=0,1,2"), "{round}: {text}");
        }
    }
}

/// Their descriptors read other bytes.
fn compressed_files_are_read(cell: &Cell) {
    let server = responding(cell);
    for kind in ["gzip", "bz2", "lzma"] {
        assert_eq!(server.get(&format!("/{kind}")).text(), "content of the file", "{kind}");
    }
}

fn responding(cell: &Cell) -> Server {
    Setup::new(cell).app("responses:application").start()
}
