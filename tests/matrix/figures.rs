//! Counters while a server serves, as shown by its metrics.

use std::time::Duration;

use nix::sys::signal::Signal;
use tungstenite::{Error, Message, WebSocket};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    http::{Address, Connection},
    process,
    runner::Behaviour,
    server::{Server, Setup, address},
    wait,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(busy_and_idle_places_are_counted),
        behaviour!(time_spent_queued_is_counted).of_class(),
        behaviour!(upgraded_connections_are_counted).of_class(),
        behaviour!(websocket_messages_are_counted).of_asgi(),
        behaviour!(a_websocket_is_one_of_max_requests).of_asgi(),
    ]
}

/// A class without threads or greenlets counts its workers.
fn busy_and_idle_places_are_counted(cell: &Cell) {
    let (server, figures) = start(cell, "--workers 1 --threads 3 --worker-connections 50");
    let mut client = server.connect();
    client.send_get("/sleep?ms=2500").unwrap();
    until_places(&figures, "one is busy", |busy, _| busy == 1);
    let (_, idle) = until_places(&figures, "all are idle", |busy, _| busy == 0);
    let several = cell.class.can(Need::Concurrency);
    assert!(if several { idle > 1 } else { idle == 1 }, "{idle} places");
    assert_eq!(client.answer("GET").unwrap().status, 200);
}

/// Requests that no worker takes are queued, whatever the class: one in sixteen is sampled.
fn time_spent_queued_is_counted(cell: &Cell) {
    let (server, figures) = start(cell, "--workers 1");
    let worker = server.until_ready_workers(1)[0];
    process::stop(worker);
    let mut clients: Vec<Connection> = (0..16).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/").unwrap());
    let silent = "jimu_worker_heartbeat_age_seconds{worker=\"0\"}";
    let mut seconds = until(&figures, "a sample", |text| sample(text, silent));
    seconds += 0.6;
    until(&figures, "time passes", |text| sample(text, silent).filter(|now| *now > seconds));
    process::signal(worker, Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
    let below = |limit: &str| {
        let class = &cell.class.name;
        format!("jimu_request_queued_seconds_bucket{{class=\"{class}\",le=\"{limit}\"}}")
    };
    until(&figures, "one was queued for half a second", |text| {
        let all = sample(text, &below("+Inf"))?;
        (sample(text, &below("0.512000"))? < all).then_some(())
    });
}

/// Those of a library, which carry any protocol, until they end.
fn upgraded_connections_are_counted(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("check_app"));
    let (server, figures) = measured(setup.flags("--workers 1"));
    let gauges = ["jimu_upgraded_connections", "jimu_worker_upgraded_connections{worker=\"0\"}"];
    let until_both = |count| gauges.iter().for_each(|gauge| until_is(&figures, gauge, count));
    until_both(0);
    let mut client = server.connect();
    client
        .send("GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 101);
    until_both(1);
    assert_eq!(server.workers()[0].upgraded, 1);
    client.end_sending();
    assert_eq!(client.rest().unwrap(), b"");
    until_both(0);
    let with_status =
        format!("jimu_requests_total{{class=\"{}\",status=\"101\"}}", cell.class.name);
    until_is(&figures, &with_status, 1);
}

/// In the metrics, in the status, and by hostctl; those of an exited worker stay.
fn websocket_messages_are_counted(cell: &Cell) {
    let setup = Setup::new(cell).app("asgi_sockets:application").flags("--workers 1");
    let (server, figures) = measured(setup);
    let mut sockets = [open(&server), open(&server)];
    for socket in &mut sockets {
        echoes(socket, 3);
    }
    // A ping and a Close frame are no messages.
    sockets[0].send(Message::Ping("payload".into())).unwrap();
    assert_eq!(sockets[0].read().unwrap(), Message::Pong("payload".into()));
    // The application sends this one by itself.
    let mut facts = tungstenite::client("ws://test/facts", server.connect()).unwrap().0;
    assert!(facts.read().unwrap().is_text());
    let worker = &server.workers()[0];
    assert_eq!((worker.upgraded, worker.messages_received, worker.messages_sent), (3, 6, 7));
    for arguments in [&["status"][..], &["top", "-n", "1"]] {
        let shown = server.ctl(arguments).done();
        assert!(shown.contains("  upgraded 3  received 6  sent 7  "), "{shown}");
    }
    let rates = server.ctl(&["top", "-n", "2", "--interval", "0.1"]).done();
    assert_eq!(rates.matches("1 workers ready, 3 upgraded, 0 messages/s\n").count(), 2, "{rates}");
    let until_totals = |received, sent| {
        for (direction, count) in [("received", received), ("sent", sent)] {
            let series = format!("jimu_websocket_messages_{direction}_total{{class=\"asgi\"}}");
            until_is(&figures, &series, count);
        }
    };
    until_totals(6, 7);
    drop((sockets, facts));
    until_is(&figures, "jimu_upgraded_connections", 0);
    server.ctl(&["reload"]).done();
    until_totals(6, 7);
    echoes(&mut open(&server), 1);
    until_totals(7, 8);
}

/// Its messages are none: otherwise few clients that send much would be disconnected again and again.
fn a_websocket_is_one_of_max_requests(cell: &Cell) {
    let setup = Setup::new(cell).app("asgi_sockets:application");
    let server = setup.flags("--workers 1 --max-requests 3").start();
    let worker = server.until_ready_workers(1);
    let mut socket = open(&server);
    echoes(&mut socket, 20);
    drop(open(&server));
    assert_eq!(server.until_ready_workers(1), worker, "two of three");
    let mut last = open(&server);
    server.log.line(&["3 requests served: requesting a replacement (max_requests)"], PATIENCE);
    for socket in [&mut socket, &mut last] {
        let frame = socket.read().unwrap();
        let Message::Close(Some(close)) = frame else { panic!("{frame:?}") };
        assert_eq!(u16::from(close.code), 1012);
        // Also sends the reply, for which the server waits.
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
    }
    server.until_workers("the replacement alone", |workers| {
        workers.len() == 1 && workers[0].state == "ready" && workers[0].pid != worker[0]
    });
}

type Socket = WebSocket<Connection>;

fn open(server: &Server) -> Socket {
    tungstenite::client("ws://test/echo", server.connect()).unwrap().0
}

fn echoes(socket: &mut Socket, count: u32) {
    for number in 0..count {
        let message = Message::text(number.to_string());
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
}

/// Starts a server with these flags; returns it with the address of its metrics.
fn start(cell: &Cell, flags: &str) -> (Server, Address) {
    measured(Setup::new(cell).flags(flags))
}

/// Starts a server; returns it with the address of its metrics.
fn measured(setup: Setup) -> (Server, Address) {
    let figures = address();
    let server = setup.flag("--metrics-bind", figures.to_string()).start();
    server.log.line(&["Metrics at"], PATIENCE);
    (server, Address::Tcp(figures))
}

/// Waits until the numbers of busy and idle slots are as expected.
fn until_places(figures: &Address, what: &str, wanted: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    until(figures, what, |text| {
        let places = |state| sample(text, &format!("jimu_slots{{state=\"{state}\"}}"));
        let (busy, idle) = (places("busy")? as u64, places("idle")? as u64);
        wanted(busy, idle).then_some((busy, idle))
    })
}

/// Waits until a series has this value.
fn until_is(figures: &Address, series: &str, value: u64) {
    let what = format!("{series} is {value}");
    until(figures, &what, |text| sample(text, series).filter(|now| *now as u64 == value));
}

/// Waits until the figures are as expected.
fn until<T>(figures: &Address, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
    wait::until(what, PATIENCE, || {
        // Other names than the server's are refused.
        let mut client = Connection::open(figures).unwrap();
        client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let answer = client.answer("GET").unwrap();
        wanted(&answer.text()).ok_or_else(|| answer.text())
    })
}

fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

const PATIENCE: Duration = Duration::from_secs(15);
