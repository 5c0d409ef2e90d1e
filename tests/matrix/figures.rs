//! What is counted while a server serves, as its metrics show it.

use std::time::Duration;

use jimu_tests::{
    behaviour,
    cell::{Cell, Need},
    http::{Address, Connection},
    runner::Behaviour,
    server::{Setup, address},
    wait,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![behaviour!(busy_and_idle_places_are_counted)]
}

/// A class without threads or greenlets counts its workers.
fn busy_and_idle_places_are_counted(cell: &Cell) {
    let figures = address();
    let setup = Setup::new(cell).flags("--workers 1 --threads 3 --worker-connections 50");
    let server = setup.flag("--metrics-bind", figures.to_string()).start();
    server.log.line(&["Metrics at"], PATIENCE);
    let figures = Address::Tcp(figures);
    let mut client = server.connect();
    client.send_get("/sleep?ms=2500").unwrap();
    until_places(&figures, "one is busy", |busy, _| busy == 1);
    let (_, idle) = until_places(&figures, "all are idle", |busy, _| busy == 0);
    let several = cell.class.can(Need::Concurrency);
    assert!(if several { idle > 1 } else { idle == 1 }, "{idle} places");
    assert_eq!(client.answer("GET").unwrap().status, 200);
}

/// Waits until the places, busy and idle, are as wanted.
fn until_places(figures: &Address, what: &str, wanted: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    wait::until(what, PATIENCE, || {
        let answer = Connection::open(figures).unwrap().get("/metrics").unwrap();
        let text = answer.text();
        let sample = |state: &str| -> u64 {
            let series = format!("host_slots{{state=\"{state}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series}: {text}"))
        };
        let places = (sample("busy"), sample("idle"));
        if wanted(places.0, places.1) { Ok(places) } else { Err(format!("{places:?}")) }
    })
}

const PATIENCE: Duration = Duration::from_secs(15);
