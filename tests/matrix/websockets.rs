//! Connections that Python applications take over: by `WebSocket` libraries, and by hand for other protocols; with and
//! without TLS.

use std::{process::Command, thread, time::Duration};

use jimu_tests::{
    behaviour,
    cell::{Cell, apps, frameworks_python, has_modules},
    http::{Address, Connection},
    runner::Behaviour,
    server::{Server, Setup},
    tls::Authority,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(websocket_libraries_work).of_python().only_if(has_libraries, NO_LIBRARIES),
        behaviour!(websocket_libraries_work_over_tls)
            .of_python()
            .only_if(has_libraries, NO_LIBRARIES),
        behaviour!(a_switch_of_protocols_leaves_a_socket)
            .of_python()
            .only_if(has_libraries, NO_LIBRARIES),
        behaviour!(no_answer_is_written_into_a_protocol_of_an_application)
            .of_python()
            .only_if(has_libraries, NO_LIBRARIES),
    ]
}

const SOON: Duration = Duration::from_secs(10);
const NO_LIBRARIES: &str = "the Python environment is older than tests/requirements-frameworks.txt";

fn has_libraries() -> bool {
    has_modules(
        frameworks_python(),
        &["flask_sock", "flask_socketio", "geventwebsocket", "websocket"],
    )
}

fn websocket_libraries_work(cell: &Cell) {
    libraries_work(cell, "ws", |setup| setup);
}

fn websocket_libraries_work_over_tls(cell: &Cell) {
    let authority = Authority::new();
    libraries_work(cell, "wss", |setup| setup.secured(&authority.server()));
}

/// Runs the clients against a server, and under gevent also without gevent-websocket.
fn libraries_work(cell: &Cell, scheme: &str, with: impl Fn(Setup) -> Setup) {
    let start = |setup| with(setup).start();
    let common = ["/sock", "/simple", "/socket.io"];
    match &*cell.class.name {
        "gevent" | "pywsgi" => {
            clients_succeed(start(serving(cell)), scheme, &[&common[..], &["/gevent"]].concat());
            let without = serving(cell).env("WITHOUT_GEVENT_WEBSOCKET", "1");
            clients_succeed(start(without), scheme, &common);
        }
        "eventlet" => {
            clients_succeed(start(serving(cell)), scheme, &[&common[..], &["/eventlet"]].concat());
        }
        _ => clients_succeed(start(serving(cell)), scheme, &common),
    }
}

/// The client's script succeeds for each library, and only closed connections are left.
fn clients_succeed(server: Server, scheme: &str, paths: &[&'static str]) {
    let Address::Tcp(address) = server.address().clone() else { panic!("no TCP address") };
    let url = format!("{scheme}://{address}");
    let script = apps().join("websocket_client.py");
    let start = |&path: &&'static str| {
        let mut client = Command::new(frameworks_python().unwrap());
        client.arg(&script).args([&url, path]);
        thread::spawn(move || (path, client.output().unwrap()))
    };
    let clients: Vec<_> = paths.iter().map(start).collect();
    for client in clients {
        let (path, output) = client.join().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {err}\n{}", server.log.text());
    }
    server.until_workers("the requests are over", |workers| workers.iter().all(|w| w.busy == 0));
    let ended = server.stop();
    for word in ["Traceback", "ERROR", "StopIteration"] {
        assert!(!ended.log.contains(word), "{}", ended.log);
    }
}

fn a_switch_of_protocols_leaves_a_socket(cell: &Cell) {
    let authority = Authority::new();
    let plain = serving(cell).start();
    let tls = serving(cell).secured(&authority.server()).start();
    let over_tls = || tls.connect().over_tls(&authority.trusting()).unwrap();
    for (mut client, facts) in [
        (plain.connect(), "127.0.0.1 None True\n"),
        (over_tls(), "127.0.0.1 None True TLSv 256 None\n"),
    ] {
        client
            .send(
                "GET /switches HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: \
                 capitals\r\n\r\n",
            )
            .unwrap();
        let head = until(&mut client, "\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("Upgrade: capitals\r\n"), "{head}");
        let greeting = until(&mut client, "\n");
        assert_eq!(greeting.split_once(' ').unwrap().1, facts.split_once(' ').unwrap().1);
        client.send("one\n").unwrap();
        assert_eq!(until(&mut client, "\n"), "ONE\n");
        client.send("two\nend\n").unwrap();
        assert_eq!(String::from_utf8(client.rest().unwrap()).unwrap(), "TWO\n");
    }
    // Not by a client that has not asked.
    assert_eq!(plain.get("/switches").status, 500);
    plain.log.line(&["did not ask for an upgrade"], SOON);
}

fn no_answer_is_written_into_a_protocol_of_an_application(cell: &Cell) {
    let authority = Authority::new();
    for tls in [false, true] {
        let setup = serving(cell);
        let server = if tls { setup.secured(&authority.server()) } else { setup }.start();
        let connect = || {
            let client = server.connect();
            if tls { client.over_tls(&authority.trusting()).unwrap() } else { client }
        };
        let mut client = connect();
        client.send_get("/fails").unwrap();
        assert_eq!(String::from_utf8(client.rest().unwrap()).unwrap(), "raw bytes");
        server.log.line(&["error on a connection that the application took over"], SOON);
        server.log.line(&["RuntimeError: on purpose"], SOON);
        assert_eq!(connect().get("/stops").unwrap().status, 500, "nothing was taken over");
        for words in ["kept", "OSError", "kept"] {
            assert_eq!(connect().get("/after").unwrap().text(), words);
        }
    }
}

/// Reads byte by byte up to the end of this word.
fn until(client: &mut Connection, word: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(word) {
        match client.take_byte() {
            Some(byte) => text.push(char::from(byte)),
            None => panic!("the connection ended after {text:?}"),
        }
    }
    text
}

fn serving(cell: &Cell) -> Setup {
    Setup::new(cell)
        .with_frameworks()
        .app("wsgi_sockets:application")
        .env("CLASS", &*cell.class.name)
}
