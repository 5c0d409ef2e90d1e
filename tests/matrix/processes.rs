//! What an application does to its process: forks in requests, signal handlers, children at import.

use std::{
    fs,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    http::Connection,
    process::{self, End},
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_forked_child_ends_where_it_returns).of_python(),
        behaviour!(a_forked_child_with_a_deadline_ends_where_it_returns).of_python(),
        behaviour!(a_child_sends_no_response_of_its_parent).of_python().needs(Need::KeepAlive),
        behaviour!(a_child_of_multiprocessing_leaves_the_worker_alone).of_python(),
        behaviour!(a_child_of_a_library_ends_where_it_returns).of_class(),
        behaviour!(a_child_that_lives_on_holds_nothing_open).of_python(),
        behaviour!(the_servers_handlers_can_be_read_and_replaced).of_python().only_for(
            |class| !class.has_threads(),
            "Python changes handlers in the main thread only, and requests run in others",
        ),
        behaviour!(a_handler_that_chains_stands_in_no_ones_way).of_python().within(90),
        behaviour!(no_handler_of_term_holds_an_end_up).of_python().within(90),
        behaviour!(calling_the_servers_handler_is_the_signal).of_python(),
        behaviour!(other_handlers_run_at_once).of_python().within(90),
        behaviour!(faulthandler_stays_installed).of_python(),
        behaviour!(a_file_at_its_size_limit_is_an_error).of_python(),
        behaviour!(children_can_be_waited_for_whatever_ran_at_import).of_python().within(90),
        behaviour!(every_hub_of_eventlet_drives_the_worker)
            .of_python()
            .only_for(|class| class.name == "eventlet", "about eventlet")
            .needs(Need::Loops)
            .within(90),
    ]
}

const SOON: Duration = Duration::from_secs(10);
/// Time limit for something that should happen at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

fn a_forked_child_ends_where_it_returns(cell: &Cell) {
    children_end(Setup::new(cell));
}

/// The cooperative classes serve requests with a deadline in another way.
fn a_forked_child_with_a_deadline_ends_where_it_returns(cell: &Cell) {
    children_end(Setup::new(cell).flags("--request-timeout 60"));
}

fn children_end(setup: Setup) {
    let mut server = setup.app("forking:application").start();
    let worker = server.until_ready_workers(1);
    for (then, status) in
        [("returns", 0), ("exits", 7), ("raises", 1), ("waits", 5), ("writes", 1), ("reads", 1)]
    {
        let answer = server.connect().post(&format!("/fork?then={then}"), b"body").unwrap();
        assert_eq!(answer.text(), format!("{status}\n"), "{then}");
    }
    assert_eq!(server.get("/yields").text(), "one\n0\n");
    server.log.line(&["RuntimeError: in the child"], SOON);
    // The worker still accepts, and is the only one.
    for _ in 0..5 {
        assert_eq!(server.serving_pid(), worker[0]);
    }
    assert_eq!(server.until_ready_workers(1), worker);
    let told = fs::read_to_string(server.dir().join("atexit")).unwrap();
    assert_eq!(told, "returns\nexits\nraises\nwaits\nwrites\nreads\n");
    server.signal(Signal::SIGTERM);
    let ended = server.ended(SOON);
    assert_eq!(ended.end, End::Status(0));
    assert!(!ended.log.contains("the arbiter has exited"), "{}", ended.log);
}

/// The child is forked while the response to an earlier pipelined request may still be in the process.
fn a_child_sends_no_response_of_its_parent(cell: &Cell) {
    let server = Setup::new(cell).app("forking:application").start();
    for (then, status) in [("exits", 7), ("raises", 1), ("waits", 5), ("writes", 1)] {
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let fork = format!("/fork?then={then}");
        let mut client = server.connect();
        client.send(request("/pid") + &request(&fork) + &request("/pid")).unwrap();
        let worker = client.answer("GET").unwrap().text();
        assert_eq!(client.answer("GET").unwrap().text(), format!("{status}\n"), "{then}");
        assert_eq!(client.answer("GET").unwrap().text(), worker, "{then}");
        assert_eq!(client.left_over(), b"", "{then}");
    }
}

fn a_child_of_multiprocessing_leaves_the_worker_alone(cell: &Cell) {
    let server = Setup::new(cell).app("forking:application").start();
    let worker = server.until_ready_workers(1)[0];
    for _ in 0..3 {
        assert_eq!(server.get("/process").text(), "9\n");
        assert_eq!(server.serving_pid(), worker);
    }
    server.stop();
}

fn a_child_of_a_library_ends_where_it_returns(cell: &Cell) {
    let server = Setup::new(cell).app(artifacts::library("faulty_app")).start();
    let worker = server.until_ready_workers(1);
    for _ in 0..5 {
        assert_eq!(server.get("/fault/fork").text(), "ok\n");
        assert_eq!(server.get("/").text(), "ok\n");
    }
    assert_eq!(server.until_ready_workers(1), worker);
    server.stop();
}

/// Neither the client's connection nor, after the server has stopped, its port.
fn a_child_that_lives_on_holds_nothing_open(cell: &Cell) {
    let mut server = Setup::new(cell).app("forking:application").start();
    let worker = server.until_ready_workers(1)[0];
    let mut client = server.connect();
    let close = "Host: test\r\nConnection: close\r\n\r\n";
    client.send(format!("GET /lives?s=60 HTTP/1.1\r\n{close}")).unwrap();
    let begun = Instant::now();
    let answer = String::from_utf8(client.rest().unwrap()).unwrap();
    assert!(begun.elapsed() < SOON, "the end of the connection took {:?}", begun.elapsed());
    let child = Pid::from_raw(answer.lines().last().unwrap().parse().unwrap());
    for _ in 0..5 {
        assert_eq!(server.serving_pid(), worker);
    }
    let before = process::stat(worker).unwrap().ticks;
    assert_eq!(server.get("/pid").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.leader_ended(SOON), End::Status(0));
    assert!(Connection::open(server.address()).is_err(), "the port is still open");
    let spent = process::stat(worker).map_or(0, |stat| stat.ticks.saturating_sub(before));
    assert!(spent < 50, "{spent} ticks of the processor for nothing");
    process::signal(child, Signal::SIGTERM);
    assert!(process::gone(child, SOON), "TERM ends the child");
}

fn the_servers_handlers_can_be_read_and_replaced(cell: &Cell) {
    for flags in ["", "--preload"] {
        let server = Setup::new(cell).app("handlers:application").flags(flags).start();
        let all = "SIGTERM SIGINT SIGQUIT SIGHUP SIGUSR1 SIGUSR2 SIGWINCH\n";
        assert_eq!(server.get("/swaps").text(), all, "{flags}");
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

fn handled(server: &Server) -> String {
    fs::read_to_string(server.dir().join("handled")).unwrap_or_default()
}

/// Starts with these handlers, stops the worker by `signal` while it serves a request, and waits for the
/// successor.
fn end_a_worker(cell: &Cell, handlers: &str, signal: Signal) -> (Server, Pid, Duration) {
    let server = Setup::new(cell).app("handlers:application").env("HANDLERS", handlers).start();
    let worker = server.until_ready_workers(1)[0];
    let mut client = server.connect();
    client.send_get("/sleep?s=1").unwrap();
    server.until_held("/sleep");
    let begun = Instant::now();
    process::signal(worker, signal);
    if signal == Signal::SIGTERM {
        assert_eq!(client.answer("GET").unwrap().text(), format!("{worker}\n"), "{handlers}");
    }
    drop(client);
    assert!(process::gone(worker, SOON), "{handlers}: the worker does not end");
    (server, worker, begun.elapsed())
}

fn a_handler_that_chains_stands_in_no_ones_way(cell: &Cell) {
    let (server, worker, took) = end_a_worker(cell, "chain", Signal::SIGTERM);
    assert!(took < Duration::from_secs(6), "the end took {took:?}");
    assert_eq!(handled(&server), format!("chained {worker}\n"));
    let (server, ..) = end_a_worker(cell, "chain", Signal::SIGINT);
    assert_eq!(server.until_ready_workers(1).len(), 1);
    server.stop();
}

/// Whether the handler raises `SystemExit`, does nothing, or is `SIG_IGN`: idle or with a request, which is
/// served.
fn no_handler_of_term_holds_an_end_up(cell: &Cell) {
    for (handlers, told) in [("end", "ends "), ("swallow", "swallowed "), ("ignore", "")] {
        let (server, worker, took) = end_a_worker(cell, handlers, Signal::SIGTERM);
        assert!(took < Duration::from_secs(6), "{handlers}: the end took {took:?}");
        let told = if told.is_empty() { String::new() } else { format!("{told}{worker}\n") };
        assert_eq!(handled(&server), told);
        server.until_ready_workers(1);
        let begun = Instant::now();
        server.stop();
        assert!(begun.elapsed() < Duration::from_secs(6), "{handlers}: {:?}", begun.elapsed());
    }
}

fn calling_the_servers_handler_is_the_signal(cell: &Cell) {
    let server = Setup::new(cell).app("handlers:application").start();
    let worker = server.until_ready_workers(1)[0];
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"] {
        assert_eq!(server.get(&format!("/calls?name={name}")).text(), format!("{worker}\n"));
    }
    assert_eq!(server.get("/calls?name=SIGTERM").text(), format!("{worker}\n"));
    assert!(process::gone(worker, SOON), "the worker does not end");
    assert_ne!(server.until_ready_workers(1)[0], worker);
    server.stop();
}

/// Handlers of an application for signals that the server does not use, while the worker is idle.
fn other_handlers_run_at_once(cell: &Cell) {
    for flags in ["", "--preload"] {
        let setup = Setup::new(cell).app("handlers:application").env("HANDLERS", "others");
        let server = setup.flags(flags).start();
        let worker = server.until_ready_workers(1)[0];
        assert_eq!(server.serving_pid(), worker);
        let mut expected = Vec::new();
        for (number, name) in [
            (libc::SIGALRM, "SIGALRM"),
            (libc::SIGPROF, "SIGPROF"),
            (libc::SIGRTMIN() + 5, "realtime"),
        ] {
            // SAFETY: a signal to a process that this test has started.
            unsafe { libc::kill(worker.as_raw(), number) };
            expected.push(format!("{name} {worker}"));
            wait::until(&format!("{name} {flags}"), AT_ONCE, || {
                let told = handled(&server);
                if told.lines().eq(&expected) { Ok(()) } else { Err(told) }
            });
        }
        assert_eq!(server.serving_pid(), worker, "{flags}");
        server.stop();
    }
}

/// For a signal that the application chooses, and for a fault.
fn faulthandler_stays_installed(cell: &Cell) {
    for flags in ["", "--preload"] {
        let setup = Setup::new(cell).app("handlers:application").env("HANDLERS", "faulthandler");
        let server = setup.flags(flags).start();
        let worker = server.until_ready_workers(1)[0];
        // SAFETY: a signal to a process that this test has started.
        unsafe { libc::kill(worker.as_raw(), libc::SIGRTMIN() + 6) };
        server.log.line(&["(most recent call first)"], SOON);
        assert_eq!(server.serving_pid(), worker, "{flags}");
        process::signal(worker, Signal::SIGSEGV);
        server.log.line(&["Fatal Python error: Segmentation fault"], SOON);
        server.stop();
    }
}

/// SIGXFSZ is ignored, as under CPython.
fn a_file_at_its_size_limit_is_an_error(cell: &Cell) {
    let server = Setup::new(cell).app("handlers:application").start();
    let worker = server.until_ready_workers(1)[0];
    assert_eq!(server.get("/grows").text(), "EFBIG\n");
    assert_eq!(server.serving_pid(), worker);
    server.stop();
}

/// gevent has a handler for the exit of children, which must be installed after the fork.
fn children_can_be_waited_for_whatever_ran_at_import(cell: &Cell) {
    for handlers in ["", "child"] {
        for flags in ["", "--preload"] {
            let setup = Setup::new(cell).app("handlers:application").env("HANDLERS", handlers);
            let server = setup.flags(flags).start();
            for _ in 0..2 {
                assert_eq!(server.get("/runs").text(), "a child\n", "{handlers} {flags}");
            }
            server.stop();
        }
    }
}

fn every_hub_of_eventlet_drives_the_worker(cell: &Cell) {
    let module = "import eventlet.hubs, os, time\n\
                  if 'HUB' in os.environ: eventlet.hubs.use_hub(os.environ['HUB'])\n\
                  time.sleep(0.01)\n\
                  def application(environ, start_response):\n    time.sleep(0.2)\n    \
                  start_response('200 OK', [])\n    return [type(eventlet.hubs.get_hub()).__module__.encode()]\n";
    for hub in ["epolls", "poll", "selects", "asyncio"] {
        for (variable, flags) in [("EVENTLET_HUB", ""), ("HUB", ""), ("HUB", "--preload")] {
            let setup = Setup::new(cell).file("hubs.py", module).app("hubs").env(variable, hub);
            let mut server = setup.flags(flags).start();
            let begun = Instant::now();
            let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.send_get("/").unwrap());
            for client in &mut clients {
                let body = client.answer("GET").unwrap().text();
                assert_eq!(body, format!("eventlet.hubs.{hub}"), "{variable} {flags}");
            }
            assert!(begun.elapsed() < Duration::from_millis(1900), "{hub}: one after the other");
            drop(clients);
            server.signal(Signal::SIGTERM);
            assert_eq!(server.ended(SOON).end, End::Status(0), "{hub}");
        }
    }
}
