//! A ready worker can serve: descriptors that run out and system calls that are refused, at boot, at a reload and
//! later.

use std::{
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour, cell::Cell, http::Connection, process, runner::Behaviour, seccomp, server::Setup,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_worker_that_may_not_accept_is_not_ready).of_class(),
        behaviour!(a_worker_without_its_poller_is_not_ready)
            .of_class()
            .only_for(|class| EPOLL_CLASSES.contains(&&*class.name), "it may wait in another way"),
        behaviour!(a_worker_without_its_threads_is_not_ready)
            .of_class()
            .only_for(|class| class.name == "gthread", "it starts no threads"),
        behaviour!(a_release_without_descriptors_is_refused).of_python().busy().within(120),
        behaviour!(a_release_that_cannot_be_forked_is_refused_soon).of_python(),
        behaviour!(an_arbiter_without_descriptors_refuses_and_recovers).of_host().within(90),
        behaviour!(without_a_free_descriptor_one_client_at_a_time_is_served).of_class(),
        behaviour!(accept_errors_neither_spin_nor_keep_a_worker).of_python(),
    ]
}

fn a_worker_that_may_not_accept_is_not_ready(cell: &Cell) {
    is_refused(cell, &[libc::SYS_accept4], "does not let the worker accept connections");
}

fn a_worker_without_its_poller_is_not_ready(cell: &Cell) {
    is_refused(cell, &[libc::SYS_epoll_create1], "Operation not permitted");
}

fn a_worker_without_its_threads_is_not_ready(cell: &Cell) {
    is_refused(cell, &[libc::SYS_clone3], "cannot start the threads of the gthread worker");
}

/// If these calls are refused, no worker becomes ready, and the log says why.
fn is_refused(cell: &Cell, calls: &[libc::c_long], reason: &str) {
    let setup = Setup::new(cell).flags("--boot-failures-max 2");
    let ended = setup.with(|command| seccomp::refuse(command, calls, libc::EPERM)).refused();
    assert_ne!(ended.status(), 0, "{}", ended.log);
    assert!(ended.log.contains(reason), "{}", ended.log);
    assert!(!ended.log.contains("Server is ready"), "{}", ended.log);
}

/// A new release that may open few more files: either it is refused and the old one keeps serving, or it serves.
fn a_release_without_descriptors_is_refused(cell: &Cell) {
    let setup = Setup::new(cell).app("release:application");
    let server = setup.file("release.py", release(100)).start();
    for free in [0, 1, 2, 3, 5, 6, 12, 100] {
        server.write("release.py", release(free));
        let reload = server.ctl(&["reload"]);
        for _ in 0..3 {
            let answer = server.get("/").text();
            let expected = if reload.status == 0 { free.to_string() } else { "100".to_owned() };
            assert_eq!(answer, expected, "{free} free: {}{}", reload.out, reload.err);
        }
        if free == 100 {
            reload.done();
        } else if reload.status != 0 {
            let reason = reload.refused();
            assert!(reason.contains("free descriptors") || reason.contains("Too many"), "{reason}");
        }
    }
}

/// An application that leaves its process this number of free descriptors when it is loaded.
fn release(free: u32) -> String {
    let length = free.to_string().len();
    format!(
        "import itertools, os, resource\n\
         def is_free(number):\n    \
             return not os.path.exists('/proc/self/fd/%d' % number)\n\
         limit = next(itertools.islice(filter(is_free, itertools.count()), {free}, None))\n\
         hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))\n\
         def application(environ, start_response):\n    \
             start_response('200 OK', [('Content-Length', '{length}')])\n    \
             return [b'{free}']\n"
    )
}

/// If forks keep failing, a reload is refused long before `boot_timeout`, with the limit's name, and the old
/// release keeps serving. A release that can be forked is accepted again.
fn a_release_that_cannot_be_forked_is_refused_soon(cell: &Cell) {
    let healthy = "def application(environ, start_response):\n    \
                      start_response('200 OK', [('Content-Length', '2')])\n    \
                      return [b'ok']\n";
    let forkless = "import errno, filtered\n\
                    filtered.refuse(filtered.CLONE, errno.EAGAIN)\n\
                    filtered.refuse(filtered.CLONE3, errno.EAGAIN)\n";
    let setup = Setup::new(cell).app("release:application").flags("--workers 2 --preload");
    let server = setup.file("release.py", healthy).start();
    let before = server.until_ready_workers(2);
    server.write("release.py", format!("{forkless}{healthy}"));
    let asked = Instant::now();
    let reason = server.ctl(&["reload"]).refused();
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    assert!(reason.contains("cannot fork a worker: ") && reason.contains("ulimit -u"), "{reason}");
    server.log.line(&["reload refused", "cannot fork a worker"], SOON);
    assert_eq!(server.log.count("cannot fork a worker"), 2, "the first failure and the refusal");
    assert_eq!(server.get("/").text(), "ok");
    assert_eq!(server.until_ready_workers(2), before);
    server.write("release.py", healthy);
    server.ctl(&["reload"]).done();
    server.stop();
}

/// With any number of free descriptors a reload ends, and if it is refused the reason is given; the next one,
/// with enough of them, succeeds.
fn an_arbiter_without_descriptors_refuses_and_recovers(cell: &Cell) {
    let server = Setup::new(cell).start();
    for free in 0..8 {
        let limit = lowest_free(server.pid()) + free;
        let before = process::limit_descriptors(server.pid(), limit);
        let asked = Instant::now();
        let reload = server.ctl(&["reload"]);
        assert!(asked.elapsed() < SOON, "{free} free: hostctl took {:?}", asked.elapsed());
        if reload.status != 0 {
            let reason = reload.refused();
            assert!(reason.contains("refused: "), "{free} free: {reason}");
        }
        assert_eq!(server.get("/").status, 200, "{free} free");
        process::limit_descriptors(server.pid(), before);
        // The socket may be paused for a moment.
        let until = Instant::now() + SOON;
        while server.ctl(&["status"]).status != 0 && Instant::now() < until {
            thread::yield_now();
        }
        server.ctl(&["reload"]).done();
    }
    let log = server.stop().log;
    assert!(!log.contains("belongs to another server"), "{log}");
}

/// The limit with which a process has no free descriptor except below its highest one.
fn lowest_free(pid: Pid) -> u64 {
    let directory = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers =
        directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.collect();
    (0..=numbers.len() as u64).find(|number| !numbers.contains(number)).unwrap()
}

/// The spare descriptor: clients are served one after the other if the application has used up all others.
fn without_a_free_descriptor_one_client_at_a_time_is_served(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    server.until_workers("no connection", |workers| workers.iter().all(|w| w.busy == 0));
    process::limit_descriptors(worker, lowest_free(worker));
    for _ in 0..3 {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(client.answer("GET").unwrap().status, 200);
        assert!(client.ends(SOON), "the connection stays open");
    }
}

/// The system starts to refuse accepting, for whatever reason: one line in the log, no busy loop, and TERM is
/// obeyed.
fn accept_errors_neither_spin_nor_keep_a_worker(cell: &Cell) {
    let mut server = Setup::new(cell).app("filtered:application").start();
    let worker = server.workers()[0].pid;
    assert_eq!(server.get("/refuse").text(), "ok");
    let crowd: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    server.log.line(&["cannot accept connections: Operation not permitted"], SOON);
    let ticks = || process::stat(worker).expect("the worker lives").ticks;
    let before = ticks();
    assert!(!process::gone(worker, Duration::from_secs(1)), "the worker ended");
    let spent = ticks() - before;
    assert!(spent < 20, "{spent} ticks in a second in which nothing can be accepted");
    assert_eq!(server.log.count("cannot accept connections"), 1);
    drop(crowd);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(SOON).status(), 0);
}

/// Classes that need epoll.
const EPOLL_CLASSES: [&str; 5] = ["sync", "gthread", "eventlet", "gevent", "pywsgi"];
const SOON: Duration = Duration::from_secs(10);
