//! Between the client and the application: forwarded client addresses, limits, rejections, and what an
//! application must not send.

use std::time::Duration;

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::Answer,
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_proxy_protocol_tells_the_client).of_class(),
        behaviour!(the_scheme_is_told_by_proxies_alone),
        behaviour!(each_limit_has_its_status).of_class(),
        behaviour!(failures_are_told_where_that_is_set),
        behaviour!(what_is_not_read_is_no_request),
        behaviour!(a_body_where_none_is_is_left_out_with_a_warning).of_python(),
        behaviour!(hints_come_before_the_answer).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(5);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn a_proxy_protocol_tells_the_client(cell: &Cell) {
    let flags = "--proxy-protocol=auto --access-logfile - --proxy-allow-from";
    let server = Setup::new(cell).flags(flags).flags("127.0.0.0/8").start();
    let text = format!("PROXY TCP4 192.0.2.7 198.51.100.1 1111 80\r\n{REQUEST}");
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\x04\x57\0\x50"[..],
        REQUEST.as_bytes(),
    ];
    assert_eq!(ask(&server, text.as_bytes()).status, 200);
    server.out.line(&["192.0.2.7 ", "GET / HTTP/1.1"], SOON);
    assert_eq!(ask(&server, &binary.concat()).status, 200);
    server.out.line(&["192.0.2.9 ", "GET / HTTP/1.1"], SOON);
    let wrong = format!("PROXY TCP4 192.0.2.7 198.51.100.1 1111 x\r\n{REQUEST}");
    assert_eq!(ask(&server, wrong.as_bytes()).status, 400);
    let server = Setup::new(cell).flags(flags).flags("192.0.2.1").start();
    assert!(ask(&server, text.as_bytes()).status >= 400, "a stranger says who the client is");
}

fn the_scheme_is_told_by_proxies_alone(cell: &Cell) {
    let https = "GET /tls HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n";
    let both = https.replace("\r\n\r\n", "\r\nX-Forwarded-Ssl: off\r\n\r\n");
    for (trusted, scheme, contradiction) in
        [("127.0.0.0/8", "https", 400), ("192.0.2.0/24", "http", 200)]
    {
        let server = Setup::new(cell).flags("--forwarded-allow-ips").flags(trusted).start();
        assert_eq!(ask(&server, https.as_bytes()).text().trim(), scheme, "{trusted}");
        assert_eq!(ask(&server, both.as_bytes()).status, contradiction, "{trusted}");
    }
}

fn each_limit_has_its_status(cell: &Cell) {
    let limits = "--limit-request-line 100 --limit-request-fields 5 --limit-request-field-size 100";
    let server = Setup::new(cell)
        .flags(limits)
        .flags("--limit-request-body 10 --header-timeout 1 --access-logfile -")
        .start();
    let long = "x".repeat(120);
    let many = "X: y\r\n".repeat(5);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world".into(), 413),
        ("GET / HT".into(), 408),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".into(), 417),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 421),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n".into(), 501),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
    ] {
        let mark = server.log.mark();
        let mut client = server.connect();
        // After a rejection nothing is parsed as a request; half a request has nothing after it.
        let behind = if status == 408 { "" } else { "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n" };
        client.send(format!("{request}{behind}")).unwrap();
        let answer = client.answer("GET").unwrap_or_else(|broken| panic!("{request:?}: {broken}"));
        assert_eq!(answer.status, status, "{request:?}");
        assert!(!answer.keeps() && answer.body.len() < 200, "{request:?}");
        assert_eq!(client.rest().unwrap(), b"", "{request:?}");
        server.log.line_after(mark, &["invalid request", &format!("({status})")], SOON);
    }
    // A body of unknown length is counted as it arrives, and its application gets an error.
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n";
    let mut client = server.connect();
    client.send(chunked).unwrap();
    assert!(client.answer("POST").map_or(true, |answer| answer.status == 413));
}

fn failures_are_told_where_that_is_set(cell: &Cell) {
    for (flags, told) in [("", false), ("--debug-errors", true)] {
        let server = Setup::new(cell).flags(flags).start();
        let answer = server.get("/panic");
        assert_eq!(answer.status, 500);
        assert_eq!(answer.text().contains("a client asked for a panic"), told, "{}", answer.text());
        assert_eq!(server.get("/").status, 200);
    }
}

/// An application that does not read its body: what follows the body is a request, the unread part never.
fn what_is_not_read_is_no_request(cell: &Cell) {
    let server = Setup::new(cell).start();
    let inner = "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    for request in [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
        ),
        format!("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n{inner}"),
    ] {
        let mut client = server.connect();
        client.send(format!("{request}{REQUEST}")).unwrap();
        let answers = String::from_utf8(client.rest().unwrap()).unwrap();
        let bodies = answers.split("\r\n\r\n").skip(1);
        let is_a_number =
            |body: &str| body.lines().next().is_some_and(|line| line.parse::<u32>().is_ok());
        assert!(!bodies.into_iter().any(is_a_number), "{request:?} was taken for two: {answers}");
    }
}

fn a_body_where_none_is_is_left_out_with_a_warning(cell: &Cell) {
    let server = Setup::new(cell).app("faulty:application").start();
    let mut client = server.connect();
    client
        .send("GET /bodies-where-none-is HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let answer = client.answer("GET").unwrap();
    assert_eq!((answer.status, answer.field("Content-Length")), (204, None));
    assert_eq!(client.rest().unwrap(), b"");
    server.log.line(&["status 204 cannot have a body"], SOON);
    assert_eq!(server.log.count("cannot have a body"), 1);
}

fn hints_come_before_the_answer(cell: &Cell) {
    let server = Setup::new(cell).app("faulty:application").start();
    let answer = server.get("/hints");
    let hints = &answer.informational[0];
    assert_eq!((hints.status, hints.field("Link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
    let mut old = server.connect();
    old.send("GET /hints HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.answer("GET").unwrap().informational.is_empty(), "HTTP/1.0 knows no 103");
}

fn ask(server: &Server, request: &[u8]) -> Answer {
    let mut client = server.connect();
    client.send(request).unwrap();
    client.answer("GET").unwrap()
}
