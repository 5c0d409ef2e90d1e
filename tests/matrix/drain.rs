//! Draining: which clients still get a response, what is closed, and when.

use std::{
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    http::Connection,
    process::{self, End},
    runner::Behaviour,
    server::Setup,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_backlog_is_answered),
        behaviour!(then_connections_are_refused),
        behaviour!(a_kept_connection_is_answered_and_closed).needs(Need::KeepAlive),
        behaviour!(idle_connections_are_closed_at_once).needs(Need::KeepAlive),
        behaviour!(a_stream_runs_to_its_end),
        behaviour!(graceful_timeout_cuts_what_is_left),
        behaviour!(exit_functions_run_although_a_request_does_not_end)
            .of_python()
            .needs(Need::Concurrency),
        behaviour!(a_task_is_waited_for_and_told).of_class(),
        behaviour!(drain_delay_keeps_accepting).of_host(),
        behaviour!(without_the_arbiter_workers_finish_and_end),
        behaviour!(a_worker_that_hangs_ends_soon_after_the_arbiter).of_class(),
        behaviour!(a_worker_that_boots_ends_with_the_arbiter).of_host(),
        behaviour!(a_second_term_changes_nothing).of_host(),
        behaviour!(quit_after_term_is_quick).of_host(),
    ]
}

/// Connections that the kernel has accepted must be served.
fn the_backlog_is_answered(cell: &Cell) {
    let server = Setup::new(cell).flags("--threads 1").start();
    let mut busy = server.connect();
    busy.send_get("/sleep?ms=700").unwrap();
    server.until_held("/sleep");
    let mut waiting: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send_get("/").unwrap());
    let answers = thread::spawn(move || {
        waiting.iter_mut().map(|client| client.answer("GET").map(|a| a.status)).collect::<Vec<_>>()
    });
    server.stop();
    assert_eq!(busy.answer("GET").unwrap().status, 200);
    for answer in answers.join().unwrap() {
        assert_eq!(answer.unwrap(), 200);
    }
}

fn then_connections_are_refused(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--threads 4").start();
    let mut busy = server.connect();
    busy.send_get("/sleep?ms=3000").unwrap();
    server.until_held("/sleep");
    server.signal(Signal::SIGTERM);
    let begun = Instant::now();
    // Those that arrive before the listener is closed are still served.
    while let Ok(mut client) = Connection::open(server.address()) {
        assert!(begun.elapsed() < Duration::from_secs(2), "still accepts");
        match client.get("/") {
            Ok(answer) => assert_eq!(answer.status, 200),
            Err(broken) if cell.class.can(Need::Concurrency) => panic!("{broken}"),
            Err(_) => {}
        }
    }
    assert_eq!(busy.answer("GET").unwrap().status, 200);
    assert_eq!(server.ended(Duration::from_secs(10)).end, End::Status(0));
}

fn a_kept_connection_is_answered_and_closed(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--threads 4 --keep-alive 20").start();
    let mut busy = server.connect();
    busy.send_get("/sleep?ms=2000").unwrap();
    server.until_held("/sleep");
    let mut kept = server.connect();
    assert!(kept.get("/").unwrap().keeps());
    // The next request is in transit when the server is stopped: it must get a response, not a reset.
    kept.send("GET / HTTP/1.1\r\nHo").unwrap();
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], Duration::from_secs(5));
    kept.send("st: test\r\n\r\n").unwrap();
    let mut answer = kept.answer("GET").unwrap();
    // The worker receives the signal shortly after the arbiter has logged it: until then it may keep the
    // connection.
    let begun = Instant::now();
    while answer.keeps() {
        assert!(begun.elapsed() < Duration::from_secs(1), "a draining worker announces the end");
        answer = kept.get("/").unwrap();
    }
    assert_eq!(answer.status, 200);
    assert!(kept.closes(Duration::from_secs(5)));
    assert_eq!(busy.answer("GET").unwrap().status, 200);
    server.ended(Duration::from_secs(10));
}

fn idle_connections_are_closed_at_once(cell: &Cell) {
    let server = Setup::new(cell).flags("--keep-alive 60 --graceful-timeout 30").start();
    let mut idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| assert!(client.get("/").unwrap().keeps()));
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    assert!(idle.iter_mut().all(|client| client.closes(Duration::ZERO)));
}

fn a_stream_runs_to_its_end(cell: &Cell) {
    let mut server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send_get("/stream?n=400&size=16384").unwrap();
    client.fill().unwrap();
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], Duration::from_secs(5));
    assert_eq!(client.answer("GET").unwrap().body.len(), 400 * 16384);
    assert_eq!(server.ended(Duration::from_secs(10)).end, End::Status(0));
}

/// The client receives a 500, whether the class ends the request or the arbiter aborts the worker.
fn graceful_timeout_cuts_what_is_left(cell: &Cell) {
    let setup = Setup::new(cell).flags("--graceful-timeout 1 --access-logfile -");
    let mut server = setup.start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=30000").unwrap();
    server.until_held("/sleep");
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let ended = server.ended(Duration::from_secs(10));
    assert!(begun.elapsed() > Duration::from_millis(900), "cut after {:?}", begun.elapsed());
    let cut = client.answer("GET");
    if !cell.class.is_ours() {
        // A class may also end the connection.
        assert!(cut.as_ref().map_or(true, |answer| answer.status >= 500), "{cut:?}");
        return;
    }
    assert_eq!(cut.unwrap().status, 500, "{}", ended.log);
    let line = server.out.line(&["\"GET /sleep?ms=30000 HTTP/1.1\" 500 "], Duration::from_secs(5));
    assert_eq!(server.out.count("/sleep"), 1, "{line}");
    assert!(ended.log.contains("graceful_timeout"), "{}", ended.log);
    assert!(ended.log.contains("GET /sleep"), "the request is not named: {}", ended.log);
}

/// A class that serves several requests at a time does not wait for them longer than this, and ends as usual.
fn exit_functions_run_although_a_request_does_not_end(cell: &Cell) {
    let module = "import atexit, os, time\n\
                  atexit.register(lambda: os.write(2, b'exit functions run\\n'))\n\
                  def application(environ, start_response):\n    \
                      try:\n        time.sleep(30)\n    \
                      finally:\n        os.write(2, b'request cleaned up\\n')\n";
    let setup = Setup::new(cell).file("endless.py", module).app("endless:application");
    let mut server = setup.flags("--graceful-timeout 1").start();
    let mut client = server.connect();
    client.send_get("/endless").unwrap();
    server.until_held("/endless");
    server.signal(Signal::SIGTERM);
    let ended = server.ended(Duration::from_secs(10));
    assert_eq!(ended.end, End::Status(0));
    assert_eq!(client.answer("GET").unwrap().status, 500, "{}", ended.log);
    for words in ["exit functions run", "GET /endless for", "in application"] {
        assert!(ended.log.contains(words), "{words}: {}", ended.log);
    }
    // As under gunicorn: gevent kills the greenlets; eventlet and threads have nothing to do that.
    let is_killed = ["gevent", "pywsgi"].contains(&&*cell.class.name);
    assert_eq!(ended.log.contains("request cleaned up"), is_killed, "{}", ended.log);
    assert!(!ended.log.contains("killed"), "{}", ended.log);
}

/// A worker that drains waits for tasks that its application has spawned, and notifies the application.
fn a_task_is_waited_for_and_told(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::library("faulty_app")).start();
    assert_eq!(server.get("/task").status, 200);
    let asked = Instant::now();
    let ended = server.stop();
    assert!(ended.log.contains("the task has ended"), "{}", ended.log);
    // Not the whole graceful_timeout: the task has ended.
    assert!(asked.elapsed() < Duration::from_secs(10), "after {:?}", asked.elapsed());
}

fn drain_delay_keeps_accepting(cell: &Cell) {
    let server = Setup::new(cell).flags("--drain-delay 1.5").start();
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], Duration::from_secs(5));
    assert_eq!(server.get("/").status, 200);
    let mut server = server;
    assert_eq!(server.ended(Duration::from_secs(10)).end, End::Status(0));
    assert!(begun.elapsed() > Duration::from_millis(1400), "ended after {:?}", begun.elapsed());
}

fn without_the_arbiter_workers_finish_and_end(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--workers 2").start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=1500").unwrap();
    server.until_held("/sleep");
    server.signal(Signal::SIGKILL);
    assert_eq!(server.leader_ended(Duration::from_secs(5)), End::Signal(Signal::SIGKILL));
    assert_eq!(client.answer("GET").unwrap().status, 200, "what was begun is finished");
    assert!(server.all_gone(Duration::from_secs(10)), "orphans: {:?}", server.processes());
    assert!(Connection::open(server.address()).is_err(), "the port is still open");
}

/// No process remains that could observe it.
fn a_worker_that_hangs_ends_soon_after_the_arbiter(cell: &Cell) {
    let app = artifacts::library("faulty_app");
    let mut server = Setup::new(cell).app(app).flags("--graceful-timeout 1").start();
    let mut client = server.connect();
    client.send_get("/fault/hang").unwrap();
    server.until_held("/fault/hang");
    server.signal(Signal::SIGKILL);
    assert_eq!(server.leader_ended(Duration::from_secs(5)), End::Signal(Signal::SIGKILL));
    assert!(server.all_gone(Duration::from_secs(10)), "orphans: {:?}", server.processes());
}

fn a_worker_that_boots_ends_with_the_arbiter(cell: &Cell) {
    let class = artifacts::library("faulty_worker");
    let setup = Setup::new(cell).class(&class).env("FAULTY_CLASS", "init_process=hang");
    let mut server = setup.flags("--boot-timeout 60").launch();
    server.log.line(&["Using worker class"], Duration::from_secs(10));
    server.until_workers("a worker that boots", |workers| workers.len() == 1);
    server.signal(Signal::SIGKILL);
    assert_eq!(server.leader_ended(Duration::from_secs(5)), End::Signal(Signal::SIGKILL));
    assert!(server.all_gone(Duration::from_secs(10)), "orphans: {:?}", server.processes());
}

fn a_second_term_changes_nothing(cell: &Cell) {
    let mut server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=1000").unwrap();
    server.until_held("/sleep");
    for _ in 0..3 {
        server.signal(Signal::SIGTERM);
    }
    assert_eq!(client.answer("GET").unwrap().status, 200);
    assert_eq!(server.ended(Duration::from_secs(10)).end, End::Status(0));
}

fn quit_after_term_is_quick(cell: &Cell) {
    let mut server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=30000").unwrap();
    server.until_held("/sleep");
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], Duration::from_secs(5));
    let begun = Instant::now();
    process::signal(server.pid(), Signal::SIGQUIT);
    server.ended(Duration::from_secs(5));
    assert!(begun.elapsed() < Duration::from_secs(4), "took {:?}", begun.elapsed());
}
