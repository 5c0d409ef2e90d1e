//! Applications by `jimu-tower`: a router of axum under every class that drives detached exchanges, and swapped for another
//! application under load.

use std::{fs, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    http::Connection,
    load::{Load, Plan},
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_router_serves).of_class().needs(Need::Deferral),
        behaviour!(a_router_streams_both_ways).of_class().needs(Need::Deferral),
        behaviour!(a_router_survives_its_handlers_and_clients).of_class().needs(Need::Deferral),
        behaviour!(a_router_that_is_not_created_ends_the_start).of_host(),
        behaviour!(a_router_is_refused_by_a_class_that_cannot_serve_it).of_host(),
        behaviour!(a_router_and_an_application_in_c_are_swapped_under_load).of_host(),
    ]
}

const SOON: Duration = Duration::from_secs(20);

fn a_router_serves(cell: &Cell) {
    let server = start(cell, "");
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.get("/none").status, 404);
    let whole = server.get("/whole?size=3000000");
    assert_eq!((whole.body.len(), whole.field("content-length")), (3_000_000, Some("3000000")));
    assert!(server.get("/client").text().starts_with("http Some(127.0.0.1:"));
    let mut client = server.connect();
    client.send("HEAD /whole?size=7 HTTP/1.1\r\nHost: test\r\nX-One: 1\r\n\r\n").unwrap();
    let head = client.answer("HEAD").unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, Some("7")));
    client.send("GET /headers HTTP/1.1\r\nHost: test\r\nX-Two: 1\r\nX-Two: zwei\r\n\r\n").unwrap();
    let seen = client.answer("GET").unwrap().text();
    assert!(seen.contains("x-two: 1\nx-two: zwei\n"), "{seen}");
    let end = "GET /trailers HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    client.send(end).unwrap();
    let rest = String::from_utf8(client.rest().unwrap()).unwrap();
    assert!(rest.ends_with("7\r\na body\n\r\n0\r\nx-parts: 1\r\n\r\n"), "{rest}");
    server.stop();
}

fn a_router_streams_both_ways(cell: &Cell) {
    let server = start(cell, "");
    assert_eq!(server.get("/stream?n=300&size=1000").body.len(), 300_000);
    let mut client = server.connect();
    let body = "x".repeat(1_000_000);
    assert_eq!(client.post("/echo", body.as_bytes()).unwrap().body, body.as_bytes());
    let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nfirst\r\n")).unwrap();
    // A class that keeps slow senders away from its threads calls the application with the whole body.
    if !cell.class.has_threads() {
        until_received(&mut client, "first");
    }
    client.send("6\r\nsecond\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.answer("POST").unwrap().body, b"firstsecond");
    // One thread serves them all, whatever the class.
    let mut sleepers: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    sleepers.iter_mut().for_each(|client| client.send_get("/sleep?ms=60000").unwrap());
    assert_eq!(server.get("/sleep?ms=20").text(), "Slept for 20 ms.\n");
    drop(sleepers);
    server.stop();
}

fn a_router_survives_its_handlers_and_clients(cell: &Cell) {
    let server = start(cell, "--request-timeout 1");
    let worker = server.serving_pid();
    assert_eq!(server.get("/panic").status, 500);
    server.log.line(&["a client asked for a panic"], SOON);
    assert!([500, 504].contains(&server.get("/sleep?ms=60000").status));
    let mut client = server.connect();
    client.send("GET /a\u{1}b HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 400);
    let mut client = server.connect();
    client.send_get("/until-gone").unwrap();
    until_received(&mut client, "waiting");
    drop(client);
    server.log.line(&["hello-axum: the client has disconnected"], SOON);
    assert_eq!(server.serving_pid(), worker);
    server.stop();
}

fn a_router_that_is_not_created_ends_the_start(cell: &Cell) {
    let setup = Setup::new(cell).class(artifacts::class("gthread")).app(library());
    let ended = setup.env("HELLO_AXUM_REFUSES", "no database").refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    let words = "the service cannot be created: no database";
    assert!(ended.log.contains(words), "{}", ended.log);
}

fn a_router_is_refused_by_a_class_that_cannot_serve_it(cell: &Cell) {
    let ended = Setup::new(cell).class(artifacts::class("sync")).app(library()).refused();
    let words = "responds after its call has returned";
    assert!(ended.log.contains(words), "{}", ended.log);
}

fn a_router_and_an_application_in_c_are_swapped_under_load(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let app = place.path().join("libswapped_app.so");
    fs::copy(library(), &app).unwrap();
    let setup = Setup::new(cell).class(artifacts::class("gevent")).app(&app);
    let server = setup.flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    for next in [artifacts::c_application(), library()].iter().cycle().take(6) {
        fs::copy(next, &app).unwrap();
        server.ctl(&["reload"]).done();
        load.flows(20, SOON);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

fn start(cell: &Cell, flags: &str) -> Server {
    Setup::new(cell).app(library()).flags(flags).start()
}

fn library() -> std::path::PathBuf {
    artifacts::library("hello_axum_app")
}

/// Reads until a text has arrived, which is part of a response that has not ended.
fn until_received(client: &mut Connection, text: &str) {
    while !String::from_utf8_lossy(client.left_over()).contains(text) {
        assert_ne!(client.fill().unwrap(), 0, "the connection was closed before {text:?}");
    }
}
