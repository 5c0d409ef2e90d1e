//! Hot swap: a new generation takes over without losing a request.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Class},
    load::{Load, Plan, get},
    process,
    runner::Behaviour,
    seccomp,
    server::Setup,
    wait,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(hostctl_reload_answers_when_it_is_done),
        behaviour!(reloads_under_load_lose_nothing).busy().within(120),
        behaviour!(clients_that_always_wait_do_not_hold_up_a_reload).busy().within(120),
        behaviour!(fifty_reloads_between_two_builds).of_class().heavy().within(240),
        behaviour!(swaps_between_classes_lose_nothing).of_host().heavy().within(240),
        behaviour!(the_library_may_be_overwritten).of_class().busy(),
        behaviour!(without_memfds_the_library_may_be_overwritten).of_host().busy(),
        behaviour!(a_slow_start_stalls_no_one).of_class().busy(),
        behaviour!(reloads_asked_for_together_are_merged).of_host(),
        behaviour!(new_settings_take_effect).of_host(),
        behaviour!(shared_ports_lose_nothing).of_class().busy(),
        behaviour!(nothing_depends_on_files_it_has_made).of_host(),
    ]
}

/// Time limit of one reload on a busy machine.
const RELOAD: Duration = Duration::from_secs(20);

fn hostctl_reload_answers_when_it_is_done(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let before = server.until_ready_workers(2);
    server.ctl(&["reload"]).done();
    assert!(before.iter().all(|pid| process::gone(*pid, Duration::ZERO)), "answered too early");
    let after = server.workers();
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|worker| worker.state == "ready" && worker.generation == 2));
}

fn reloads_under_load_lose_nothing(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let keeping = Load::start(server.address(), Plan::default());
    let closing =
        Load::start(server.address(), Plan { clients: 4, keep: false, ..Plan::default() });
    for generation in 2..8 {
        server.signal(Signal::SIGHUP);
        server.log.line(&[&format!("generation {generation} serves")], RELOAD);
        keeping.flows(20, RELOAD);
        closing.flows(5, RELOAD);
    }
    keeping.finish().assert_nothing_lost();
    closing.finish().assert_nothing_lost();
    server.stop();
}

/// More clients than the workers serve at a time: the listener's queue is never empty, and the old workers still
/// exit once they have finished what they have accepted.
fn clients_that_always_wait_do_not_hold_up_a_reload(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2 --threads 2 --graceful-timeout 60").start();
    let ask = |_| get("/sleep?ms=100");
    let load = Load::start(
        server.address(),
        Plan { clients: 16, keep: false, think: Duration::ZERO, ask },
    );
    load.flows(16, RELOAD);
    for _ in 0..3 {
        let begun = Instant::now();
        server.ctl(&["reload"]).done();
        assert!(begun.elapsed() < RELOAD, "a reload took {:?}", begun.elapsed());
        load.flows(4, RELOAD);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

fn fifty_reloads_between_two_builds(cell: &Cell) {
    let builds = [cell.class.path.clone(), other_build(cell)];
    let server = Setup::new(cell).flags("--workers 2").start();
    let think = Duration::from_millis(10);
    let plan = Plan { clients: 32, think, ..Plan::default() };
    let load = Load::start(server.address(), plan);
    let arbiter = server.pid();
    let mut half_way = (0, 0);
    for round in 0..50 {
        let build = builds[(round + 1) % 2].to_str().unwrap();
        server.ctl(&["reload", "--worker-class", build]).done();
        load.flows(10, RELOAD);
        if round == 24 {
            half_way = (process::anonymous_kib(arbiter), process::descriptors(arbiter));
        }
    }
    let grown = process::anonymous_kib(arbiter).saturating_sub(half_way.0);
    load.finish().assert_nothing_lost();
    // The last generation's mold may still be exiting.
    wait::until("as few descriptors of the arbiter's", RELOAD, || {
        let now = process::descriptors(arbiter);
        if now <= half_way.1 { Ok(()) } else { Err(format!("{now} after {}", half_way.1)) }
    });
    assert!(grown <= 128, "the arbiter grew by {grown} KiB in 25 reloads");
    server.stop();
    fs::remove_file(&builds[1]).unwrap();
}

fn swaps_between_classes_lose_nothing(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2 --threads 4").start();
    let load = Load::start(server.address(), Plan::default());
    for (from, to) in pairs(&Class::all()) {
        for class in [from, to] {
            server.ctl(&["reload", "--worker-class", class.path.to_str().unwrap()]).done();
            load.flows(20, RELOAD);
        }
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

/// The file is only read while a generation is created: later changes to it have no effect.
fn the_library_may_be_overwritten(cell: &Cell) {
    overwrite_libraries_of(cell, Setup::bare());
}

/// Private copies are then files.
fn without_memfds_the_library_may_be_overwritten(cell: &Cell) {
    let calls = &[libc::SYS_memfd_create];
    let refuse = |command: &mut Command| seccomp::refuse(command, calls, libc::EPERM);
    overwrite_libraries_of(cell, Setup::bare().with(refuse));
}

fn overwrite_libraries_of(cell: &Cell, setup: Setup) {
    let place = tempfile::tempdir().unwrap();
    let (class, app) =
        (place.path().join("libcopy_worker.so"), place.path().join("libcopy_app.so"));
    let original = artifacts::library("hello_app");
    fs::copy(&cell.class.path, &class).unwrap();
    fs::copy(&original, &app).unwrap();
    let server = setup.class(&class).app(&app).flags("--workers 2").start();
    let load = Load::start(server.address(), Plan::default());
    for (file, from) in [(&class, &cell.class.path), (&app, &original)] {
        overwrite(file, &vec![0xff; 1 << 20]);
        load.flows(100, RELOAD);
        overwrite(file, b"");
        load.flows(100, RELOAD);
        // A new worker comes from the mold, which has a private copy.
        let victim = server.until_ready_workers(2)[0];
        process::signal(victim, Signal::SIGTERM);
        assert!(process::gone(victim, RELOAD));
        server.until_ready_workers(2);
        server.ctl(&["reload"]).refused();
        load.flows(100, RELOAD);
        fs::copy(from, file).unwrap();
    }
    server.ctl(&["reload"]).done();
    load.finish().assert_nothing_lost();
    server.stop();
}

fn a_slow_start_stalls_no_one(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let setup = Setup::new(cell).app(&app).env("FAULTY_APP", "new=sleep2000,load=sleep1");
    let server = setup.start();
    let load = Load::start(server.address(), Plan { ask: |_| get("/"), ..Plan::default() });
    server.signal(Signal::SIGHUP);
    server.log.line(&["reloading"], RELOAD);
    let begun = Instant::now();
    let ready = || server.log.count("generation 2 serves") > 0;
    while !ready() {
        let asked = Instant::now();
        assert_eq!(server.get("/").status, 200);
        assert!(asked.elapsed() < Duration::from_millis(900), "stalled for {:?}", asked.elapsed());
        assert!(begun.elapsed() < RELOAD, "no new generation");
    }
    assert!(begun.elapsed() > Duration::from_millis(1500), "the slow start was not slow");
    load.finish().assert_nothing_lost();
}

/// However many are asked for while one is in progress, one more follows.
fn reloads_asked_for_together_are_merged(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let setup = Setup::new(cell).app(&app).env("FAULTY_APP", "new=sleep2000");
    let server = setup.start();
    server.signal(Signal::SIGHUP);
    server.log.line(&["reloading"], RELOAD);
    for _ in 0..50 {
        server.signal(Signal::SIGHUP);
    }
    server.ctl(&["reload"]).done();
    server.until_ready_workers(1);
    assert_eq!(server.workers()[0].generation, 3, "one reload in progress and one for all others");
    assert_eq!(server.get("/").status, 200);
}

fn new_settings_take_effect(cell: &Cell) {
    let server = Setup::new(cell).file("host.toml", "workers = 1\n").start();
    server.until_ready_workers(1);
    server.write("host.toml", "workers = 3\nserver_header = false\n");
    server.ctl(&["reload"]).done();
    server.until_ready_workers(3);
    assert!(server.get("/").field("Server").is_none());
}

/// With `SO_REUSEPORT` each process could have a separate socket, whose backlog would be lost with it.
fn shared_ports_lose_nothing(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2 --reuse-port").start();
    let load = Load::start(server.address(), Plan { keep: false, ..Plan::default() });
    for generation in 2..6 {
        server.signal(Signal::SIGHUP);
        server.log.line(&[&format!("generation {generation} serves")], RELOAD);
        load.flows(50, RELOAD);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

/// Requests continue when the pid file and the control socket disappear, and the server still stops.
fn nothing_depends_on_files_it_has_made(cell: &Cell) {
    let server = Setup::new(cell).flags("--pid host.pid").start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=700").unwrap();
    server.until_held("/sleep");
    fs::remove_file(server.dir().join("host.pid")).unwrap();
    fs::remove_file(server.control_socket()).unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 200);
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], RELOAD);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// The same class in another file with different content: a byte after the end of an ELF file is ignored by the
/// loader, but makes it a library that no process has loaded yet.
fn other_build(cell: &Cell) -> PathBuf {
    let name = format!("jimu-{}-{}-b.so", std::process::id(), cell.class.name);
    let path = std::env::temp_dir().join(name);
    let mut bytes = fs::read(&cell.class.path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    path
}

/// Writes into the file itself, like `cp`: the name keeps its inode.
fn overwrite(path: &Path, content: &[u8]) {
    fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    fs::write(path, content).unwrap();
}

/// Every class after every other, and after itself.
fn pairs(classes: &[Class]) -> Vec<(&Class, &Class)> {
    let all = classes.iter().flat_map(|from| classes.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.name <= to.name).collect()
}
