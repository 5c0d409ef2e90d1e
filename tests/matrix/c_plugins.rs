//! Plugins by `jimu.h`: the example applications in C and C++ under every class, the example class in C, and swaps between them and
//! plugins by `worker-api`.

use std::{fs, process::Command, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Class},
    load::{Load, Plan},
    runner::Behaviour,
    server::{Server, Setup},
    tools::has,
};

use crate::outgoing;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(an_application_in_c_serves).of_class().only_if(has_cc, NO_CC),
        behaviour!(an_application_in_cpp_serves)
            .of_class()
            .only_if(|| has("c++"), "no C++ compiler on PATH"),
        behaviour!(an_application_in_c_keeps_serving_when_it_fails)
            .of_class()
            .only_if(has_cc, NO_CC),
        behaviour!(applications_in_c_and_rust_are_swapped_under_load)
            .of_class()
            .only_if(has_cc, NO_CC),
        behaviour!(a_class_in_c_serves_applications_of_both_kinds).of_host(),
        behaviour!(classes_in_c_and_rust_are_swapped_under_load).of_host(),
        behaviour!(the_class_in_c_passes_the_check).of_host().within(180),
    ]
}

pub(crate) const NO_CC: &str = "no C compiler on PATH";

pub(crate) fn has_cc() -> bool {
    has("cc")
}

const RELOAD: Duration = Duration::from_secs(20);

fn an_application_in_c_serves(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::c_application()).start();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.get("/none").status, 404);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(client.answer("POST").unwrap().body, b"hello");
    let mut client = server.connect();
    let chunks = "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
    let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{chunks}")).unwrap();
    assert_eq!(client.answer("POST").unwrap().body, b"hello, world");
    assert_eq!(server.get("/stream?n=300&size=1000").body.len(), 300_000);
    assert_eq!(server.get("/whole?size=3000000").body.len(), 3_000_000);
    assert_eq!(server.get("/sleep?ms=20").text(), "Slept for 20 ms.\n");
    fs::write(server.dir().join("a file"), "in a file").unwrap();
    assert_eq!(server.get("/file?path=a%20file").text(), "in a file");
    assert_eq!(server.get("/file?path=../x").status, 404);
    let mut client = server.connect();
    client.send("GET /headers HTTP/1.1\r\nHost: test\r\nX-One: 1\r\nX-Two: zwei\r\n\r\n").unwrap();
    let seen = client.answer("GET").unwrap().text();
    assert!(seen.contains("X-One: 1\nX-Two: zwei\n"), "{seen}");
    outgoing::connects(&server);
    is_refused(&server);
    server.stop();
}

fn an_application_in_cpp_serves(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::cpp_application()).start();
    let worker = server.serving_pid();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.get("/sleep?ms=20").text(), "Slept for 20 ms.\n");
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(client.answer("POST").unwrap().body, b"hello");
    assert!(server.get("/headers").text().starts_with("Host: "));
    outgoing::connects(&server);
    is_refused(&server);
    // An exception is a failure.
    assert_eq!(server.get("/panic").status, 500);
    server.log.line(&["a client asked for a panic"], RELOAD);
    assert_eq!(server.serving_pid(), worker);
    server.stop();
}

/// A connection to where nothing listens is a failure with its reason.
fn is_refused(server: &Server) {
    assert_eq!(server.get(&format!("/connect?to={}", outgoing::refusing())).status, 500);
    server.log.line(&["cannot connect to 127.0.0.1:", "Connection refused"], RELOAD);
}

fn an_application_in_c_keeps_serving_when_it_fails(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::c_application()).start();
    let worker = server.serving_pid();
    assert_eq!(server.get("/panic").status, 500);
    server.log.line(&["a client asked for a panic"], RELOAD);
    assert_eq!(server.serving_pid(), worker);
    let mut client = server.connect();
    client.send_get("/abort").unwrap();
    assert!(client.answer("GET").is_err(), "the worker is gone");
    server.until_ready_workers(1);
    assert_eq!(server.get("/").status, 200);
}

fn applications_in_c_and_rust_are_swapped_under_load(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let app = place.path().join("libswapped_app.so");
    fs::copy(artifacts::c_application(), &app).unwrap();
    let server = Setup::new(cell).app(&app).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    let builds = [artifacts::library("hello_app"), artifacts::c_application()];
    for next in builds.iter().cycle().take(6) {
        fs::copy(next, &app).unwrap();
        server.ctl(&["reload"]).done();
        load.flows(20, RELOAD);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

fn a_class_in_c_serves_applications_of_both_kinds(cell: &Cell) {
    for app in [artifacts::library("hello_app"), artifacts::c_application()] {
        let server = Setup::new(&in_c(cell)).app(app).start();
        assert_eq!(server.get("/").text(), "Hello, world!\n");
        assert_eq!(server.get("/whole?size=3000000").body.len(), 3_000_000);
        server.stop();
    }
    let server = Setup::new(&in_c(cell)).app(artifacts::library("check_app")).start();
    outgoing::connects(&server);
    let found = server.get("/resolve?host=localhost&port=81").text();
    assert!(found.contains("127.0.0.1:81\n") || found.contains("[::1]:81\n"), "{found}");
    let refused = server.get(&format!("/connect?to={}&ms=300", outgoing::refusing()));
    assert!(refused.text().contains("Connection refused"), "{}", refused.text());
}

fn classes_in_c_and_rust_are_swapped_under_load(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    let classes = [artifacts::c_class(), artifacts::class("gevent")];
    for class in classes.iter().cycle().take(6) {
        server.ctl(&["reload", "--worker-class", class.to_str().unwrap()]).done();
        load.flows(20, RELOAD);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

fn the_class_in_c_passes_the_check(_: &Cell) {
    let mut check = Command::new(artifacts::executable("host"));
    let output = check.arg("--check-worker").arg(artifacts::c_class()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && words.contains(" 0 failed"), "{words}");
}

fn in_c(cell: &Cell) -> Cell {
    let class = Class { name: "threaded_c".to_owned(), path: artifacts::c_class() };
    Cell { class, ..cell.clone() }
}
