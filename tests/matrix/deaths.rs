//! Workers that die: only their own requests are lost, another takes over, and the cause is logged once.

use std::time::{Duration, Instant};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    load::{Load, Plan, get},
    process,
    runner::Behaviour,
    server::{Server, Setup, pid_of},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_killed_worker_is_replaced_and_named_once),
        behaviour!(a_worker_told_to_quit_is_replaced),
        behaviour!(an_application_that_ends_its_process_costs_one_worker).of_class().within(90),
        behaviour!(kills_under_load_cost_only_their_own_requests).busy(),
        behaviour!(max_requests_brings_the_successor_first).busy(),
        behaviour!(max_requests_waits_for_a_slow_successor).of_class().busy(),
        behaviour!(workers_that_die_at_once_do_not_make_a_storm).of_host(),
        behaviour!(a_worker_that_grows_is_named_and_replaced).of_host(),
        behaviour!(the_mold_may_die).of_class(),
        behaviour!(no_zombie_is_left).of_class(),
    ]
}

/// Time limit for the successor of a dead worker to serve.
const SOON: Duration = Duration::from_secs(5);

fn a_killed_worker_is_replaced_and_named_once(cell: &Cell) {
    let server = Setup::new(cell).start();
    let victim = server.serving_pid();
    process::signal(victim, Signal::SIGKILL);
    assert!(process::gone(victim, SOON));
    assert_ne!(until_served(&server), victim);
    let line = server.log.line(&[&victim.to_string(), "sigkill"], SOON);
    assert!(line.to_lowercase().contains("worker"), "{line}");
    assert_told_once(&server, victim);
}

fn a_worker_told_to_quit_is_replaced(cell: &Cell) {
    let server = Setup::new(cell).start();
    let victim = server.serving_pid();
    process::signal(victim, Signal::SIGQUIT);
    assert!(process::gone(victim, SOON));
    assert_ne!(until_served(&server), victim);
    assert_told_once(&server, victim);
}

/// Whatever the status, including 3 and 4, the server stays up.
fn an_application_that_ends_its_process_costs_one_worker(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    for (fault, word) in [
        ("abort", "SIGABRT"),
        ("segfault", "SIGSEGV"),
        ("exit0", "status 0"),
        ("exit1", "status 1"),
        ("exit3", "status 3"),
        ("exit4", "status 4"),
    ] {
        let server = Setup::new(cell).app(&app).flags("--workers 2").start();
        let before = server.until_ready_workers(2);
        let lost = server.try_get(&format!("/fault/{fault}"));
        assert!(lost.is_err(), "{fault}: {lost:?}");
        let line = server.log.line(&[word], SOON);
        assert_eq!(server.log.count(word), 1, "{fault} is logged once: {line}");
        let after = server.until_workers("a successor", |workers| {
            workers.len() == 2
                && workers.iter().all(|w| w.state == "ready")
                && workers.iter().any(|w| !before.contains(&w.pid))
        });
        let kept = after.iter().filter(|worker| before.contains(&worker.pid)).count();
        assert_eq!(kept, 1, "{fault}: the other worker is unharmed");
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

fn kills_under_load_cost_only_their_own_requests(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let clients = 8;
    let load = Load::start(server.address(), Plan { clients, ..Plan::default() });
    let kills = 4;
    for _ in 0..kills {
        let victim = server.until_ready_workers(2)[0];
        process::signal(victim, Signal::SIGKILL);
        server.until_workers("a successor", |workers| {
            workers.len() == 2 && workers.iter().all(|w| w.state == "ready" && w.pid != victim)
        });
        load.flows(50, Duration::from_secs(20));
    }
    let tally = load.finish();
    let lost = tally.failures.len() + tally.races.len();
    assert!(lost <= kills * clients, "{lost} lost by {kills} kills: {:#?}", tally.failures);
    assert!(tally.failures.iter().all(|failure| !failure.contains("status")), "{tally:?}");
    server.stop();
}

fn max_requests_brings_the_successor_first(cell: &Cell) {
    let server = Setup::new(cell).flags("--max-requests 100 --max-requests-jitter 20").start();
    let first = server.serving_pid();
    let load = Load::start(server.address(), Plan::default());
    load.flows(1000, Duration::from_secs(40));
    load.finish().assert_nothing_lost();
    assert!(process::gone(first, SOON), "the first worker still serves after 1000 requests");
    server.until_ready_workers(1);
    let retired = server.log.count("max_requests");
    assert!(retired >= 2, "retired {retired} times in 1000 requests");
    server.stop();
}

fn max_requests_waits_for_a_slow_successor(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let setup = Setup::new(cell).app(&app).env("FAULTY_APP", "init_worker=sleep1500");
    let server = setup.flags("--max-requests 50").start();
    let plan = Plan { clients: 4, ask: |_| get("/"), ..Plan::default() };
    let load = Load::start(server.address(), plan);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        let asked = Instant::now();
        assert_eq!(server.get("/").status, 200);
        assert!(asked.elapsed() < Duration::from_millis(900), "stalled for {:?}", asked.elapsed());
    }
    load.finish().assert_nothing_lost();
    assert!(server.log.count("Booted worker") >= 2, "no worker was replaced");
    server.stop();
}

/// Memory is measured every two seconds if there is a limit.
fn a_worker_that_grows_is_named_and_replaced(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("faulty_app"));
    let server = setup.flags("--workers 2 --max-worker-memory 150m").start();
    let before = server.until_ready_workers(2);
    let load = Load::start(server.address(), Plan { ask: |_| get("/"), ..Plan::default() });
    // By then each has been measured, at an age of two to four seconds.
    wait::until("an age", Duration::from_secs(20), || {
        let age = server.age();
        (age > Duration::from_secs(7)).then_some(()).ok_or(format!("{age:?}"))
    });
    assert_eq!(server.log.count("has grown"), 0);
    server.get("/fault/grow180");
    let grown = server.log.line(&["worker", "has grown from"], Duration::from_secs(10));
    let replaced = server.log.line(&["replacing worker", "max_worker_memory"], SOON);
    let pid = |line: &str| line.split("(pid: ").nth(1)?.split(')').next()?.parse().ok();
    let grown: Option<i32> = pid(&grown);
    assert!(grown.is_some() && grown == pid(&replaced), "{grown:?}: {replaced}");
    let grown = Pid::from_raw(grown.unwrap());
    assert!(before.contains(&grown) && process::gone(grown, Duration::from_secs(20)));
    assert_eq!(server.until_ready_workers(2).iter().filter(|pid| before.contains(pid)).count(), 1);
    load.flows(20, Duration::from_secs(20));
    load.finish().assert_nothing_lost();
    assert_eq!(server.log.count("has grown"), 1, "the other has not");
}

/// After the start, a generation whose workers die as soon as they are ready is retried at growing intervals.
fn workers_that_die_at_once_do_not_make_a_storm(cell: &Cell) {
    let class = artifacts::library("faulty_worker");
    let server = Setup::new(cell).class(&class).env("FAULTY_CLASS", "serving=exit1").start();
    // On a busy machine some have died before one was seen ready.
    let (begun, before) = (Instant::now(), server.log.count("Booted worker"));
    server.log.until(Duration::from_secs(5), |text| {
        (text.matches("Booted worker").count() - before >= 12).then_some(())
    });
    let boots = server.log.count("Booted worker") - before;
    assert!(boots < 12, "{boots} boots in {:?}", begun.elapsed());
    server.stop();
}

/// The mold is only needed to fork workers; when it has exited, another is started.
fn the_mold_may_die(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let workers = server.until_ready_workers(2);
    let mold = server.molds()[0];
    process::signal(mold, Signal::SIGKILL);
    server.log.line(&["mold", &mold.to_string()], SOON);
    assert_eq!(server.until_ready_workers(2), workers, "workers live on");
    process::signal(workers[0], Signal::SIGKILL);
    server.until_workers("a successor", |now| {
        now.len() == 2 && now.iter().all(|w| w.state == "ready" && w.pid != workers[0])
    });
    server.stop();
}

fn no_zombie_is_left(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    for _ in 0..5 {
        let victim = server.until_ready_workers(2)[0];
        process::signal(victim, Signal::SIGKILL);
        server.until_workers("a successor", |workers| {
            workers.len() == 2 && workers.iter().all(|w| w.state == "ready" && w.pid != victim)
        });
        server.ctl(&["reload"]).done();
    }
    let children = process::children(server.pid());
    assert!(children.iter().all(|child| child.state != 'Z'), "{children:?}");
    assert_eq!(children.len(), 3, "two workers and a mold: {children:?}");
}

/// Returns the worker that responds, as soon as one does.
fn until_served(server: &Server) -> Pid {
    let answer = wait::until("an answer", SOON, || server.try_get("/pid"));
    pid_of(&answer)
}

/// One line of the log reports this worker's death, not two.
fn assert_told_once(server: &Server, pid: Pid) {
    let told = |text: &str| {
        text.lines()
            .filter(|line| line.contains(&format!("pid: {pid})")) && !line.contains("Booted"))
            .count()
    };
    assert_eq!(told(&server.log.text()), 1, "{}", server.log.text());
}
