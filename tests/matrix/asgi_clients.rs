//! ASGI applications driven by the clients that users have: httpx, websockets, python-socketio and the client of MCP.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::{Cell, apps, asgi_python, has_modules},
    http::Address,
    launch::Launched,
    process::End,
    runner::Behaviour,
    server::{Server, Setup},
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    let all = [
        behaviour!(httpx_and_websockets_find_what_starlette_and_asgiref_promise),
        behaviour!(socket_io_speaks_over_both_transports),
        behaviour!(an_mcp_server_speaks_with_its_client),
    ];
    all.into_iter().map(|one| one.of_asgi().only_if(has_clients, NO_CLIENTS)).collect()
}

const SOON: Duration = Duration::from_secs(30);
const NO_CLIENTS: &str = "no Python environment with the packages of tests/requirements-asgi.txt";

fn has_clients() -> bool {
    has_modules(asgi_python(), &["httpx", "mcp", "requests", "socketio", "starlette", "websockets"])
}

fn serving(cell: &Cell, app: &str) -> Setup {
    let setup = Setup::new(cell).app(app).python(asgi_python().unwrap());
    setup.flags("--graceful-timeout 30")
}

/// Runs a client's script against a server.
fn start_client(server: &Server, script: &str) -> Launched {
    let Address::Tcp(address) = server.address() else { panic!("no TCP address") };
    let mut client = Command::new(asgi_python().unwrap());
    client.arg(apps().join(script)).arg(format!("http://{address}"));
    Launched::start(client)
}

fn succeeds(mut client: Launched) {
    let end = client.wait(SOON);
    assert!(client.log.ended(SOON), "its output is open");
    assert_eq!(end, Some(End::Status(0)), "{}", client.log.text());
}

/// Reloads when the client is ready for it, and waits until the old worker has ended: what is open at the client does not
/// delay it.
fn reloads_with(server: &Server, client: &Launched) {
    let asked = client.out.until(SOON, |text| text.contains("reload\n").then_some(()));
    assert!(asked.is_some(), "{}", client.log.text());
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    server.until_workers("a successor alone", |workers| {
        workers.len() == 1 && workers[0].generation == 2 && workers[0].state == "ready"
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

fn httpx_and_websockets_find_what_starlette_and_asgiref_promise(cell: &Cell) {
    let setup = serving(cell, "asgi_suite:app").file("large.txt", "x".repeat(100_000));
    let server = setup.start();
    succeeds(start_client(&server, "asgi_suite_client.py"));
    for words in [
        "background task done",
        "client left within the body",
        "waits for a disconnect",
        "after the close: WebSocketDisconnect",
    ] {
        server.log.line(&[words], SOON);
    }
    let log = server.stop().log;
    // Each exception once: in the background, within a response, and two of one for the WebSocket.
    for words in [
        "\nRuntimeError: in the background",
        "\nRuntimeError: within the response",
        "\nRuntimeError: Malformed JSON data received.",
    ] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
    assert_eq!(log.matches("Traceback").count(), 4, "{log}");
    assert_eq!(log.matches("chat ended").count(), 51, "{log}");
    assert!(!log.contains("was destroyed"), "{log}");
}

fn socket_io_speaks_over_both_transports(cell: &Cell) {
    let server = serving(cell, "socketio_app:app").start();
    assert_eq!(server.get("/").text(), "of the other application");
    let client = start_client(&server, "socketio_client.py");
    reloads_with(&server, &client);
    succeeds(client);
    let log = server.stop().log;
    assert_eq!(log.matches("socket.io client ended: server disconnect").count(), 4, "{log}");
    for words in ["socket.io started", "socket.io ended"] {
        assert_eq!(log.matches(words).count(), 2, "{words}: {log}");
    }
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}

fn an_mcp_server_speaks_with_its_client(cell: &Cell) {
    let server = serving(cell, "mcp_app:app").start();
    let client = start_client(&server, "mcp_client.py");
    reloads_with(&server, &client);
    succeeds(client);
    let log = server.stop().log;
    assert_eq!(log.matches("lifespan ended").count(), 2, "{log}");
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}
