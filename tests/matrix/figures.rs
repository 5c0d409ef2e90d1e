//! Counters while a server serves, as shown by its metrics.

use std::time::Duration;

use nix::sys::signal::Signal;

use jimu_tests::{
    behaviour,
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
    process::signal(worker, Signal::SIGSTOP);
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

/// Starts a server with these flags; returns it with the address of its metrics.
fn start(cell: &Cell, flags: &str) -> (Server, Address) {
    let figures = address();
    let setup = Setup::new(cell).flags(flags).flag("--metrics-bind", figures.to_string());
    let server = setup.start();
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
