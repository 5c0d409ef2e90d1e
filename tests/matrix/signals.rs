//! Signals to the arbiter, with gunicorn's meaning.

use std::{
    fs,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::{Broken, Connection},
    load::{Load, Plan},
    process::{self, End},
    runner::Behaviour,
    server::{PATIENCE, Setup},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(term_lets_requests_finish),
        behaviour!(int_and_quit_end_at_once),
        behaviour!(hup_replaces_the_workers),
        behaviour!(ttin_and_ttou_change_the_number).of_host(),
        behaviour!(ttin_and_ttou_lose_nothing).busy(),
        behaviour!(usr2_and_term_hand_over).of_class().busy(),
        behaviour!(twenty_rounds_of_everything_lose_nothing).of_host().heavy().within(240),
        behaviour!(a_killed_arbiter_is_followed_by_its_successor).of_host(),
        behaviour!(usr2_can_be_taken_back).of_class().busy(),
        behaviour!(winch_in_the_foreground_is_ignored).of_host(),
        behaviour!(workers_told_to_end_are_replaced).busy(),
        behaviour!(a_storm_of_signals_ends_in_order).of_host(),
        behaviour!(term_during_a_reload_acts_at_once).of_host(),
        behaviour!(signals_before_it_is_ready_count).of_host(),
    ]
}

fn term_lets_requests_finish(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=1500").unwrap();
    server.until_held("/sleep");
    let ended = server.stop();
    assert_eq!(client.answer("GET").unwrap().status, 200);
    assert!(ended.log.to_lowercase().contains("term"), "{}", ended.log);
}

fn int_and_quit_end_at_once(cell: &Cell) {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = Setup::new(cell).start();
        let mut client = server.connect();
        client.send_get("/sleep?ms=20000").unwrap();
        server.until_held("/sleep");
        let begun = Instant::now();
        server.signal(signal);
        let ended = server.ended(Duration::from_secs(5));
        assert_eq!(ended.end, End::Status(0), "{signal}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{signal} took {:?}", begun.elapsed());
        let cut = client.answer("GET");
        assert!(cut.as_ref().map_or(true, |answer| answer.status >= 500), "{signal}: {cut:?}");
        assert!(Connection::open(server.address()).is_err(), "{signal}: the port is still open");
    }
}

fn hup_replaces_the_workers(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let before = server.until_ready_workers(2);
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], PATIENCE);
    assert_eq!(server.get("/").status, 200);
    assert!(before.iter().all(|pid| process::gone(*pid, Duration::from_secs(5))));
    let after = server.until_ready_workers(2);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    assert!(after.contains(&server.serving_pid()));
}

fn ttin_and_ttou_change_the_number(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 1").start();
    let first = server.until_ready_workers(1);
    server.signal(Signal::SIGTTIN);
    assert!(server.until_ready_workers(2).contains(&first[0]), "the first one stays");
    server.signal(Signal::SIGTTIN);
    server.until_ready_workers(3);
    for count in [2, 1] {
        server.signal(Signal::SIGTTOU);
        server.until_ready_workers(count);
    }
    server.signal(Signal::SIGTTOU);
    assert_eq!(server.get("/").status, 200, "the last worker stays");
    server.ctl(&["scale", "3"]).done();
    server.until_ready_workers(3);
}

fn ttin_and_ttou_lose_nothing(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    for count in [3, 4, 3, 2, 1, 2] {
        let now = server.until_workers("settled", |w| w.iter().all(|w| w.state == "ready")).len();
        server.signal(if count > now { Signal::SIGTTIN } else { Signal::SIGTTOU });
        server.until_ready_workers(count);
        load.flows(20, PATIENCE);
    }
    load.finish().assert_nothing_lost();
}

/// USR2, after which the old arbiter logs nothing.
fn a_killed_arbiter_is_followed_by_its_successor(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--pid host.pid --workers 2").start();
    server.signal(Signal::SIGUSR2);
    server.notified("READY=1");
    let new = server.successor();
    server.signal(Signal::SIGKILL);
    assert_eq!(server.leader_ended(PATIENCE), End::Signal(Signal::SIGKILL));
    server.log.line(&["upgrade complete"], PATIENCE);
    // These ask the new one: it now owns the address, the pid file and the control socket.
    server.until_ready_workers(2);
    assert_eq!(server.get("/").status, 200);
    wait::until("the pid file follows", PATIENCE, || {
        let written = fs::read_to_string(server.dir().join("host.pid")).unwrap();
        (written.trim() == new.to_string()).then_some(()).ok_or(written)
    });
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
}

/// USR2, then TERM to the old one.
fn usr2_and_term_hand_over(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--pid host.pid --workers 2").start();
    let pid_file = server.dir().join("host.pid");
    let load = Load::start(server.address(), Plan::default());
    load.flows(20, PATIENCE);
    server.signal(Signal::SIGUSR2);
    server.notified("READY=1");
    let new = server.successor();
    assert_ne!(new, server.pid());
    server.signal(Signal::SIGTERM);
    let ended = server.leader_ended(PATIENCE);
    assert_eq!(ended, End::Status(0));
    server.log.line(&["upgrade complete"], PATIENCE);
    assert!(!server.has_notified("STOPPING=1"), "the service continues");
    assert!(server.has_notified(&format!("MAINPID={new}")), "and has another main process");
    load.flows(20, PATIENCE);
    let written = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(written.trim(), new.to_string(), "the pid file follows");
    load.finish().assert_nothing_lost();
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
    assert!(server.has_notified("STOPPING=1"), "now it ends");
}

/// More and fewer workers, a canary promoted and one rolled back, logs rotated, and an upgrade: twenty times.
fn twenty_rounds_of_everything_lose_nothing(cell: &Cell) {
    let flags = "--pid host.pid --workers 2 --access-logfile access --log-file error";
    let mut server = Setup::new(cell).flags(flags).start();
    let class = cell.class.path.to_str().unwrap();
    let [pid_file, access, error] = ["host.pid", "access", "error"].map(|n| server.dir().join(n));
    let load = Load::start(server.address(), Plan { clients: 8, ..Plan::default() });
    let mut arbiter = server.pid();
    for round in 0..20 {
        process::signal(arbiter, Signal::SIGTTIN);
        server.until_ready_workers(3);
        process::signal(arbiter, Signal::SIGTTOU);
        server.until_ready_workers(2);
        for end in ["promote", "rollback"] {
            server.ctl(&["swap", "--canary", "1", class]).done();
            server.ctl(&[end]).done();
        }
        server.until_ready_workers(2);
        for log in [&access, &error] {
            fs::rename(log, log.with_extension(round.to_string())).unwrap();
        }
        server.ctl(&["reopen"]).done();
        load.flows(10, PATIENCE);
        process::signal(arbiter, Signal::SIGUSR2);
        let successor = wait::until("a successor", PATIENCE, || {
            let log = fs::read_to_string(&error).unwrap_or_default();
            last_ready(&log).ok_or(log)
        });
        process::signal(arbiter, Signal::SIGTERM);
        assert!(process::gone(arbiter, PATIENCE), "round {round}");
        let written = wait::until("the pid file", PATIENCE, || fs::read_to_string(&pid_file));
        assert_eq!(written.trim(), successor.to_string(), "the pid file follows");
        arbiter = successor;
        load.flows(10, PATIENCE);
    }
    load.finish().assert_nothing_lost();
    assert_eq!(server.leader_ended(Duration::ZERO), End::Status(0));
    process::signal(arbiter, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
}

/// Returns the arbiter that reported last in this log that it is ready.
fn last_ready(log: &str) -> Option<Pid> {
    let line = log.lines().rfind(|line| line.contains("Server is ready"))?;
    line.split(['[', ']']).nth(3)?.parse().ok().map(Pid::from_raw)
}

/// USR2, WINCH to the old one, TERM to the new one, HUP to the old one.
fn usr2_can_be_taken_back(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    let old = server.until_ready_workers(2);
    server.signal(Signal::SIGUSR2);
    server.notified("READY=1");
    let new = server.successor();
    server.signal(Signal::SIGWINCH);
    assert!(old.iter().all(|pid| process::gone(*pid, PATIENCE)), "old workers end");
    load.flows(20, PATIENCE);
    // Before the new one exits, the old one gets its workers back.
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], PATIENCE);
    process::signal(new, Signal::SIGTERM);
    assert!(process::gone(new, PATIENCE));
    load.flows(20, PATIENCE);
    load.finish().assert_nothing_lost();
    server.stop();
}

fn winch_in_the_foreground_is_ignored(cell: &Cell) {
    let server = Setup::new(cell).start();
    let before = server.until_ready_workers(1);
    server.signal(Signal::SIGWINCH);
    // A signal without effect leaves no event: the next one with an effect comes after it.
    server.signal(Signal::SIGTTIN);
    assert!(server.until_ready_workers(2).contains(&before[0]));
}

/// An operator stops workers one by one.
fn workers_told_to_end_are_replaced(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    for _ in 0..6 {
        let workers = server.until_ready_workers(2);
        process::signal(workers[0], Signal::SIGTERM);
        assert!(process::gone(workers[0], PATIENCE));
        load.flows(20, PATIENCE);
    }
    server.until_ready_workers(2);
    load.finish().assert_nothing_lost();
    server.stop();
}

fn a_storm_of_signals_ends_in_order(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    for n in 0..200 {
        let signals = [Signal::SIGTTIN, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGTTOU];
        server.signal(signals[n % 4]);
        server.signal(Signal::SIGCHLD);
    }
    assert_eq!(server.get("/").status, 200);
    let count = server.until_workers("one generation, at rest", |workers| {
        workers.iter().all(|w| w.state == "ready" && w.generation == workers[0].generation)
    });
    assert!(!count.is_empty() && count.len() <= 60, "{} workers", count.len());
    assert!(process::children(server.pid()).iter().all(|child| child.state != 'Z'), "zombies");
    let mut server = server;
    for _ in 0..20 {
        server.signal(Signal::SIGTERM);
    }
    assert_eq!(server.ended(PATIENCE).end, End::Status(0));
}

fn term_during_a_reload_acts_at_once(cell: &Cell) {
    let app = jimu_tests::artifacts::library("faulty_app");
    let server = Setup::bare()
        .class(&cell.class.path)
        .file("host.toml", format!("wsgi_app = \"{}\"\n", app.display()))
        .start();
    let hang = format!("wsgi_app = \"{}\"\n[application]\nfault = \"new=hang\"\n", app.display());
    server.write("host.toml", hang);
    server.signal(Signal::SIGHUP);
    server.log.line(&["reloading"], Duration::from_secs(10));
    server.ctl(&["status"]).done();
    assert_eq!(server.get("/").status, 200, "served as before while the new one loads");
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
}

fn signals_before_it_is_ready_count(cell: &Cell) {
    let app = jimu_tests::artifacts::library("faulty_app");
    let mut server =
        Setup::new(cell).app(app).env("FAULTY_APP", "new=hang").flags("--workers 4").launch();
    server.log.line(&["starting"], Duration::from_secs(10));
    server.signal(Signal::SIGTERM);
    let ended = server.ended(Duration::from_secs(5));
    assert_eq!(ended.end, End::Status(0), "{}", ended.log);
    assert!(matches!(server.try_get("/"), Err(Broken::Io(_))));
}
