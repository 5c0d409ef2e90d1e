//! Heartbeats, and pauses that are not a worker's fault.

use std::{
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    load::{Load, Plan},
    process,
    runner::Behaviour,
    server::Setup,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_stopped_worker_is_replaced).of_class(),
        behaviour!(a_class_without_heartbeat_is_replaced).of_host(),
        behaviour!(an_application_that_spins_is_replaced).of_class(),
        behaviour!(a_long_sleep_is_no_death_where_others_run).of_class(),
        behaviour!(an_idle_worker_keeps_its_heartbeat),
        behaviour!(a_paused_arbiter_kills_no_worker).of_class(),
        behaviour!(a_request_that_runs_over_is_named).of_class(),
    ]
}

fn a_stopped_worker_is_replaced(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2 --timeout 1").start();
    let victim = server.until_ready_workers(2)[0];
    process::stop(victim);
    assert!(process::gone(victim, Duration::from_secs(8)), "a stopped worker is left alone");
    server.until_ready_workers(2);
    server.log.line(&[&victim.to_string(), "heartbeat"], Duration::from_secs(5));
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

fn a_class_without_heartbeat_is_replaced(cell: &Cell) {
    let class = artifacts::library("faulty_worker");
    for fault in ["connection=spin", "connection=hang"] {
        let setup = Setup::new(cell).class(&class).env("FAULTY_CLASS", fault);
        let server = setup.flags("--timeout 1").start();
        let victim = server.until_ready_workers(1)[0];
        let _client = server.connect();
        assert!(process::gone(victim, Duration::from_secs(8)), "{fault}: left alone");
        assert_ne!(server.until_ready_workers(1)[0], victim);
    }
}

/// A worker whose other threads run (gthread) has a heartbeat, and must not be killed for one request.
fn an_application_that_spins_is_replaced(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let server = Setup::new(cell).app(app).flags("--timeout 1 --workers 2").start();
    let before = server.until_ready_workers(2);
    let mut client = server.connect();
    client.send_get("/fault/spin").unwrap();
    let spinning = server.until_workers("a worker that spins", |workers| {
        workers.iter().any(|worker| worker.busy > 0)
            || workers.iter().any(|w| !before.contains(&w.pid))
    });
    let victim = spinning.iter().find(|worker| worker.busy > 0).map(|worker| worker.pid);
    if victim.is_none_or(|pid| process::gone(pid, Duration::from_secs(6))) {
        let line = server.log.line(&["no heartbeat for"], Duration::from_secs(5));
        assert!(line.contains("/fault/spin"), "the request is named: {line}");
        assert!(client.answer("GET").map_or(true, |answer| answer.status >= 500));
    } else {
        assert!(cell.class.has_threads(), "{} left a spinning worker alone", cell.class.name);
    }
    server.until_ready_workers(2);
    assert_eq!(server.get("/").status, 200);
}

/// A request that only waits blocks a sync worker, and no other.
fn a_long_sleep_is_no_death_where_others_run(cell: &Cell) {
    let server = Setup::new(cell).flags("--timeout 1 --threads 2 --workers 2").start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=4000").unwrap();
    let answer = client.answer("GET");
    if cell.class.can(jimu_tests::cell::Need::Concurrency) {
        assert_eq!(answer.unwrap().status, 200);
    } else {
        assert!(answer.as_ref().map_or(true, |answer| answer.status >= 500), "{answer:?}");
        server.log.line(&["/sleep"], Duration::from_secs(5));
    }
    assert_eq!(server.get("/").status, 200);
}

fn an_idle_worker_keeps_its_heartbeat(cell: &Cell) {
    let server = Setup::new(cell).flags("--timeout 1").start();
    let worker = server.serving_pid();
    assert!(!process::gone(worker, Duration::from_millis(3500)), "an idle worker was killed");
    assert_eq!(server.serving_pid(), worker);
}

/// A pause of the arbiter, or of the whole machine, is not the workers' fault.
fn a_paused_arbiter_kills_no_worker(cell: &Cell) {
    let server = Setup::new(cell).flags("--timeout 1 --workers 2").start();
    let before = server.until_ready_workers(2);
    let load = Load::start(server.address(), Plan { clients: 4, ..Plan::default() });
    server.signal(Signal::SIGSTOP);
    let pause = Duration::from_secs(2);
    assert!(!process::gone(before[0], pause), "a worker ended during the pause");
    load.flows(20, Duration::from_secs(10));
    server.signal(Signal::SIGCONT);
    load.flows(20, Duration::from_secs(10));
    load.finish().assert_nothing_lost();
    // All processes, including the workers: as when a laptop sleeps.
    let everybody = server.processes();
    everybody.iter().for_each(|pid| process::stop(*pid));
    assert!(!process::gone(before[0], pause), "a worker ended while it was stopped");
    everybody.iter().rev().for_each(|pid| process::signal(*pid, Signal::SIGCONT));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(server.get("/").status, 200);
        // A pace at which one good client is no load.
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.until_ready_workers(2), before, "workers were killed for a pause");
}

fn a_request_that_runs_over_is_named(cell: &Cell) {
    let setup = Setup::new(cell).flags("--request-timeout 1 --timeout 30 --workers 2");
    let server = setup.flags("--access-logfile -").start();
    let mut client = server.connect();
    // If the language cannot interrupt it, the request runs to its end; only then is it logged.
    client.send_get("/sleep?ms=6000&name=slow").unwrap();
    let begun = Instant::now();
    let answer = client.answer("GET");
    assert_eq!(answer.unwrap().status, 500);
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    server.log.line(&["GET", "/sleep", "request_timeout"], Duration::from_secs(5));
    server.out.line(&["\"GET /sleep?ms=6000&name=slow HTTP/1.1\""], Duration::from_secs(10));
    assert_eq!(server.get("/").status, 200);
}
