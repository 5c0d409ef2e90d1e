//! Python applications: PEP 3333 by its validator, and applications that violate its rules or misuse their
//! process.

use std::{
    fs,
    io::Read as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need, python},
    http::{Answer, Broken, Connection},
    load::{Load, Plan, get},
    process::{self, End},
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_validator_finds_nothing).of_python(),
        behaviour!(applications_have_gunicorns_names).of_python(),
        behaviour!(what_cannot_be_imported_is_refused).of_python().within(90),
        behaviour!(a_broken_file_at_reload_leaves_the_service).of_python().busy().within(120),
        behaviour!(no_lie_is_well_formed).of_python(),
        behaviour!(nothing_is_smuggled_into_the_head).of_python(),
        behaviour!(a_failure_under_way_cuts_the_answer).of_python(),
        behaviour!(what_ends_its_process_costs_one_worker).of_python().within(90),
        behaviour!(odd_applications_are_served).of_python(),
        behaviour!(locals_are_a_connections_own).of_python().needs(Need::Loops),
        behaviour!(an_idle_connection_has_no_greenlet).of_python().needs(Need::Loops),
        behaviour!(a_read_that_is_given_up_loses_nothing).of_python().needs(Need::Loops),
        behaviour!(a_write_that_is_given_up_cuts_its_response).of_python().needs(Need::Loops),
        behaviour!(a_body_is_closed_once_when_its_reader_leaves).of_python(),
        behaviour!(exit_functions_run_once).of_python(),
        behaviour!(threads_of_an_application_finish).of_python(),
        behaviour!(any_loop_can_drive_the_engine).of_python().needs(Need::Loops),
        behaviour!(hooks_in_python_are_called).of_python(),
        behaviour!(a_spinning_application_is_replaced).of_python(),
        behaviour!(a_connection_that_was_taken_over_outlives_term).of_python(),
        behaviour!(a_hang_with_the_interpreters_lock_is_replaced_soon).of_python().only_for(
            |class| class.name == "gthread",
            "a class with one thread hangs with its heartbeat, which `timeout` limits",
        ),
        behaviour!(deep_recursion_has_the_stack_of_the_main_thread).of_python(),
        behaviour!(a_fault_leaves_a_traceback).of_python(),
        behaviour!(the_hook_worker_abort_runs_before_the_end).of_python(),
        behaviour!(an_exception_is_one_record).of_python(),
        behaviour!(a_changed_file_is_reloaded).of_python().busy().within(90),
        behaviour!(uploads_and_downloads_pass_through).of_python().busy().within(120),
        behaviour!(large_requests_reuse_memory).of_python(),
        behaviour!(a_body_beyond_the_memory_is_an_exception).of_python().within(90),
    ]
}

const SOON: Duration = Duration::from_secs(10);
/// Time limit of one reload on a busy machine.
const RELOAD: Duration = Duration::from_secs(20);

fn the_validator_finds_nothing(cell: &Cell) {
    let server = Setup::new(cell).app("validated:application").start();
    for (target, status, body) in [
        ("/", 200, "plain"),
        ("/parts", 200, "some parts"),
        ("/writes", 201, "written first, then returned"),
        ("/replaced", 503, "replaced"),
        ("/complains", 200, "plain"),
        ("/nothing", 204, ""),
        ("/%C3%A9t%C3%A9/?a=%20b", 200, "plain"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{target}");
        assert!(answer.field("X-First").is_none(), "the first start_response is replaced");
    }
    let answer = server.connect().post("/reads", b"012line\nlong line\nx\ny\nz and more").unwrap();
    assert_eq!(answer.text(), "012|line\n|long|| line\n|x\n|y\n|z and more|");
    server.log.line(&["and two more"], SOON);
    let ended = server.stop();
    assert!(!ended.log.contains("AssertionError"), "{}", ended.log);
}

fn applications_have_gunicorns_names(cell: &Cell) {
    let module = "def make(word='none'):\n    def app(environ, start_response):\n        \
                  start_response('200 OK', [])\n        return [word.encode()]\n    return app\n\
                  class box: inner = staticmethod(make('inner'))\napplication = make('plain')\n";
    for (name, body) in [
        ("naming", "plain"),
        ("naming:application", "plain"),
        ("naming:make('made')", "made"),
        ("naming:make(word='named')", "named"),
        ("naming:box.inner", "inner"),
    ] {
        let setup = Setup::new(cell).file("naming.py", module).app(name);
        let server = setup.start();
        assert_eq!(server.get("/").text(), body, "{name}");
    }
}

fn what_cannot_be_imported_is_refused(cell: &Cell) {
    for (file, app, words) in [
        ("", "nosuch:application", &["nosuch"][..]),
        ("", "broken:application", &["broken", "application"]),
        ("application = 3\n", "broken:application", &["callable"]),
        ("def application(:\n", "broken:application", &["SyntaxError", "broken.py"]),
        ("import nosuchmodule\n", "broken:application", &["nosuchmodule", "Traceback"]),
        ("raise RuntimeError('on import')\n", "broken:application", &["on import", "Traceback"]),
        ("import os\nos._exit(3)\n", "broken:application", &["status 3"]),
    ] {
        let ended = Setup::new(cell).file("broken.py", file).app(app).refused();
        assert!([3, 4, 78].contains(&ended.status()), "{file:?}: {} {}", ended.status(), ended.log);
        assert!(ended.took < Duration::from_secs(10), "{file:?} took {:?}", ended.took);
        for word in words {
            assert!(ended.log.contains(word), "no {word:?} for {file:?}: {}", ended.log);
        }
    }
    let ended = Setup::new(cell).python("/nowhere/python").app("x:y").refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    assert!(ended.log.contains("/nowhere/python"), "{}", ended.log);
}

fn a_broken_file_at_reload_leaves_the_service(cell: &Cell) {
    let setup = Setup::new(cell).file("changing.py", saying("first")).app("changing");
    let server = setup.flags("--workers 2 --boot-timeout 3").start();
    let before = server.until_ready_workers(2);
    let load =
        Load::start(server.address(), Plan { clients: 4, ask: |_| get("/"), ..Plan::default() });
    for (file, word) in [
        ("def application(:\n", "SyntaxError"),
        ("import nosuchmodule\n", "nosuchmodule"),
        ("raise SystemExit(3)\n", ""),
        ("import os\nos._exit(4)\n", "status 4"),
        ("import os\nos.abort()\n", "SIGABRT"),
        ("import time\ntime.sleep(100)\n", "boot_timeout"),
    ] {
        server.write("changing.py", file);
        let reason = server.ctl(&["reload"]).refused();
        assert!(reason.contains(word), "no {word:?} in {reason:?} for {file:?}");
        load.flows(20, SOON);
        assert_eq!(server.get("/").text(), "first");
    }
    assert_eq!(server.until_ready_workers(2), before);
    server.write("changing.py", saying("second"));
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").text(), "second");
    load.finish().assert_nothing_lost();
    server.stop();
}

/// What gunicorn also accepts: the client sees an error, or that the response is truncated.
fn no_lie_is_well_formed(cell: &Cell) {
    let server = faulty(cell);
    let worker = server.until_ready_workers(1);
    for fault in
        ["never-starts", "text-body", "two-lengths", "negative-length", "too-short", "recursion"]
    {
        let answer = server.try_get(&format!("/{fault}"));
        assert_bad(fault, &answer);
        server.log.line(&["error"], SOON);
    }
    assert_eq!(server.get("/").text(), "ok\n");
    assert_eq!(server.until_ready_workers(1), worker, "the worker serves on");
}

fn nothing_is_smuggled_into_the_head(cell: &Cell) {
    let server = faulty(cell);
    for fault in ["splits", "splits-status"] {
        let mut client = server.connect();
        client
            .send(format!("GET /{fault} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
            .unwrap();
        let bytes = client.rest().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        assert!(!text.contains("\nset-cookie"), "{fault}: {text}");
        assert!(text.starts_with("http/1.1 500 ") || text.is_empty(), "{fault}: {text}");
    }
}

fn a_failure_under_way_cuts_the_answer(cell: &Cell) {
    let server = faulty(cell);
    let answer = server.try_get("/fails-under-way");
    assert!(matches!(answer, Err(Broken::Cut(_))), "{answer:?}");
    server.log.line(&["RuntimeError: under way"], SOON);
    assert_eq!(server.get("/").text(), "ok\n");
}

fn what_ends_its_process_costs_one_worker(cell: &Cell) {
    let server = Setup::new(cell).app("faulty:application").flags("--workers 2").start();
    for fault in ["exit0", "exit1", "exit3", "exit4"] {
        let before = server.until_ready_workers(2);
        let answer = server.try_get(&format!("/{fault}"));
        assert!(answer.is_err(), "{fault}: {answer:?}");
        let status = fault.replace("exit", "status ");
        server.log.line(&[&status], SOON);
        let after = server.until_workers("a successor", |workers| {
            workers.iter().filter(|w| w.state == "ready" && !before.contains(&w.pid)).count() == 1
        });
        assert!(
            after.iter().any(|worker| before.contains(&worker.pid)),
            "{fault}: one is unharmed"
        );
        assert_eq!(server.get("/").text(), "ok\n", "{fault}");
    }
    // sys.exit in a request does not exit the process; it is an error of that request.
    let answer = server.try_get("/ends");
    assert_bad("ends", &answer);
    assert_eq!(server.get("/").text(), "ok\n");
}

fn odd_applications_are_served(cell: &Cell) {
    let server = faulty(cell);
    let worker = server.until_ready_workers(1);
    for _ in 0..3 {
        assert_eq!(server.get("/forks").text(), "forked\n");
        assert_eq!(server.get("/leaves-a-thread").text(), "left\n");
    }
    assert_eq!(server.until_ready_workers(1), worker);
    server.stop();
}

/// As if each connection had its own greenlet: a connection's requests find what its earlier ones left, others do
/// not, and nothing of it outlives the connection. With threads, locals belong to the thread.
fn locals_are_a_connections_own(cell: &Cell) {
    let server = Setup::new(cell).app("local:application").start();
    let mut first = server.connect();
    assert_eq!(first.get("/context").unwrap().text(), "1 0");
    assert_eq!(first.get("/context").unwrap().text(), "2 0");
    let mut second = server.connect();
    for round in 1..=3 {
        // Others in between, on connections that come and go.
        assert_eq!(server.get("/count").text(), "1 1");
        assert_eq!(server.get("/context").text(), "1 0");
        assert_eq!(first.get("/count").unwrap().text(), format!("{} {round}", round + 2));
        assert_eq!(second.get("/count").unwrap().text(), format!("{round} {round}"));
    }
    drop((first, second));
    wait::until("no locals but living connections'", SOON, || {
        let alive = server.get("/alive").text();
        // eventlet's local holds the value it returned last.
        if ["0", "1"].contains(&alive.as_str()) { Ok(()) } else { Err(alive) }
    });
}

/// What the server itself does in a greenlet must not create locals: the greenlet would belong to one connection.
fn an_idle_connection_has_no_greenlet(cell: &Cell) {
    let server = Setup::new(cell).app("local:application").start();
    let greenlets = || server.get("/greenlets").text().parse::<usize>().unwrap();
    let before = greenlets();
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/none").unwrap().text(), "0 0");
    }
    let grown = greenlets().saturating_sub(before);
    assert!(grown <= 2, "{grown} more greenlets for 20 connections");
}

/// What was read before a greenlet's time-out is returned by later calls, whatever they ask for.
fn a_read_that_is_given_up_loses_nothing(cell: &Cell) {
    let server = Setup::new(cell).app("impatient:application").start();
    let body: Vec<u8> =
        (0..60_000_u32).map(|n| if n % 997 == 0 { b'\n' } else { n as u8 }).collect();
    let (first, rest) = body.split_at(9000);
    let mut client = server.connect();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()))
        .unwrap();
    client.send(first).unwrap();
    server.log.line(&["given up"], SOON);
    client.send(rest).unwrap();
    let answer = client.answer("POST").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == body, "{} bytes of {}", answer.body.len(), body.len());
}

/// Neither the rest of the body nor the request that follows on the connection hides from the client that bytes are
/// missing.
fn a_write_that_is_given_up_cuts_its_response(cell: &Cell) {
    let server = Setup::new(cell).app("impatient:application").start();
    for path in ["/write-length", "/write-chunks", "/write-rest"] {
        let start = server.log.mark();
        let mut client = Connection::open_narrow(server.address()).unwrap();
        client.send_get(path).unwrap();
        client.send_get("/").unwrap();
        server.log.line_after(start, &["given up"], SOON);
        server.log.line_after(start, &[path, "gave up write()"], SOON);
        client.one_answer("GET").unwrap_err();
        assert_eq!(server.log.count(path), 1);
    }
}

/// `close()` is called once, also if the client has disconnected.
fn a_body_is_closed_once_when_its_reader_leaves(cell: &Cell) {
    let server = faulty(cell);
    for _ in 0..3 {
        let mut client = server.connect();
        client.send_get("/endless").unwrap();
        client.fill().unwrap();
        client.reset();
        server.until_workers("given up", |workers| workers.iter().all(|w| w.busy == 0));
    }
    let closed = fs::read_to_string(server.dir().join("closed")).unwrap();
    assert_eq!(closed, "closed\n".repeat(3));
}

/// `atexit` runs in each process that exits gracefully, and once in each.
fn exit_functions_run_once(cell: &Cell) {
    let server = Setup::new(cell).app("faulty:application").flags("--workers 2").start();
    let mut workers: Vec<String> =
        server.until_ready_workers(2).iter().map(ToString::to_string).collect();
    assert_eq!(server.get("/").text(), "ok\n");
    let path = server.dir().join("atexit");
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.ended(SOON);
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut told: Vec<String> = text.lines().map(str::to_owned).collect();
    told.retain(|pid| workers.contains(pid));
    told.sort();
    workers.sort();
    assert_eq!(told, workers);
}

/// Non-daemon threads, whichever thread has started them. With patched Python they are greenlets, which end with
/// their loop.
fn threads_of_an_application_finish(cell: &Cell) {
    let mut server = faulty(cell);
    let worker = server.until_ready_workers(1)[0];
    assert_eq!(server.get("/finishes-later").text(), "begun\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(SOON).end, End::Status(0));
    if cell.class.can(Need::Loops) {
        return;
    }
    let finished = fs::read_to_string(server.dir().join("finished")).unwrap_or_default();
    assert_eq!(finished, format!("{worker}\n"));
}

/// Hooks of gunicorn's master run in the mold, also if the application is not preloaded.
fn hooks_in_python_are_called(cell: &Cell) {
    let module = "import os\n\ndef tells(name):\n    def hook(*facts):\n        with open('told', 'a') as file:\n            \
                  file.write(f'{name} {os.getpid()}\\n')\n    return hook\n\n\
                  for name in 'on_starting when_ready pre_fork post_fork post_worker_init worker_int worker_exit \
                  child_exit on_exit'.split():\n    globals()[name] = tells(name)\n";
    let setup = Setup::new(cell).file("telling.py", module);
    let mut server = setup.flags("--hooks telling").start();
    let told = server.dir().join("told");
    let until_told = |line: &str| {
        wait::until(line, SOON, || {
            let text = fs::read_to_string(&told).unwrap_or_default();
            if text.lines().any(|told| told.starts_with(line)) { Ok(text) } else { Err(text) }
        })
    };
    until_told("when_ready");
    let worker = server.until_ready_workers(1)[0];
    process::signal(worker, Signal::SIGINT);
    let text = until_told("child_exit");
    let pids = |event: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(event)?.strip_prefix(' ')).collect()
    };
    let (worker, mold) = (worker.to_string(), pids("on_starting"));
    for event in ["post_fork", "post_worker_init", "worker_int", "worker_exit"] {
        assert_eq!(pids(event)[0], worker, "{event} in:\n{text}");
    }
    for event in ["when_ready", "pre_fork", "child_exit"] {
        assert_eq!(pids(event)[..1], mold, "{event} in:\n{text}");
    }
    assert_ne!(mold, [worker.as_str()]);
    server.signal(Signal::SIGTERM);
    server.ended(SOON);
    let text = fs::read_to_string(&told).unwrap();
    let (begun, ended) = (text.matches("post_fork").count(), text.matches("child_exit").count());
    assert_eq!(begun, ended, "the master gets the last worker's exit too:\n{text}");
    assert_eq!(text.lines().last(), Some(&*format!("on_exit {}", mold[0])), "{text}");
}

/// The engine is not limited to gevent and eventlet: a bare asyncio loop on it serves many requests at once,
/// waits for bodies and for slow readers, and finishes what it has started.
fn any_loop_can_drive_the_engine(cell: &Cell) {
    let facts = "import sys, sysconfig as s; print(sys.base_prefix); \
                 print(s.get_config_var('LIBDIR') + '/' + s.get_config_var('INSTSONAME'))";
    let asked = Command::new(python().unwrap()).args(["-c", facts]).output().unwrap();
    let asked = String::from_utf8(asked.stdout).unwrap();
    let (prefix, library) = asked.trim_end().split_once('\n').unwrap();
    let setup = Setup::new(cell).app(artifacts::library("asyncio_app"));
    let setup = setup.env("PYTHONHOME", prefix).env("ASYNCIO_LIBPYTHON", library);
    let mut server = setup.start();
    let body = vec![b'x'; 3 << 20];
    assert_eq!(server.connect().post("/", &body).unwrap().body, body);
    let begun = Instant::now();
    let mut clients: Vec<Connection> = (0..30).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/?ms=400").unwrap());
    for client in &mut clients {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "one after the other: {:?}", begun.elapsed());
    clients[0].send_get("/?ms=800").unwrap();
    server.until_held("/");
    server.signal(Signal::SIGTERM);
    assert_eq!(clients[0].answer("GET").unwrap().status, 200);
    drop(clients);
    assert_eq!(server.ended(SOON).end, End::Status(0));
}

/// A worker that drains waits for a connection that its application has taken over, and notifies the application.
fn a_connection_that_was_taken_over_outlives_term(cell: &Cell) {
    let mut server = Setup::new(cell).app("taken:application").start();
    let mut client = server.connect();
    client.send_get("/take").unwrap();
    while !client.left_over().ends_with(b"begun\n") {
        assert!(client.fill().unwrap() > 0, "closed before it began");
    }
    server.signal(Signal::SIGTERM);
    let rest = client.rest().unwrap();
    assert!(rest.ends_with(b"draining\n"), "{}", String::from_utf8_lossy(&rest));
    // Not the whole graceful_timeout: the connection is closed.
    assert_eq!(server.ended(SOON).status(), 0);
}

/// C code that hangs holding the interpreter's lock: no thread of its worker can serve. After the request's
/// time-out, a successor serves within a second.
fn a_hang_with_the_interpreters_lock_is_replaced_soon(cell: &Cell) {
    let setup = Setup::new(cell).app("hung:application");
    let server = setup.flags("--request-timeout 1 --threads 4").start();
    let worker = server.serving_pid();
    let mut hung = server.connect();
    hung.send_get("/hang").unwrap();
    server.log.line(&["GET /hang timed out after"], SOON);
    let ran_over = Instant::now();
    // What the hung worker has already accepted is lost with it.
    server.log.line(&["the application does not respond"], SOON);
    let successor = server.serving_pid();
    assert!(ran_over.elapsed() < Duration::from_secs(1), "after {:?}", ran_over.elapsed());
    assert_ne!(successor, worker);
    server.log.line(&["hung.py\", line", "in application"], SOON);
    server.until_ready_workers(1);
}

/// A recursion through C that takes 3 MiB: more than a Rust thread has by default, and less than a process has.
/// If the application asks for more with `threading.stack_size()`, one of 10 MiB works, too.
fn deep_recursion_has_the_stack_of_the_main_thread(cell: &Cell) {
    let server = Setup::new(cell).app("deep:application").start();
    assert_eq!(server.get("/?depth=6000").text(), "6000");
    assert_eq!(server.get("/pid").text(), server.workers()[0].pid.to_string(), "a worker has died");
    drop(server);
    // Other classes call the application on the main thread, whose stack size an application cannot choose.
    if cell.class.name == "gthread" {
        let server = Setup::new(cell).app("deep:application").env("STACK_MIB", "32").start();
        assert_eq!(server.get("/?depth=20000").text(), "20000");
    }
}

fn a_spinning_application_is_replaced(cell: &Cell) {
    let setup = Setup::new(cell).app("faulty:application");
    let server = setup.flags("--workers 2 --timeout 2").start();
    let mut client = server.connect();
    client.send_get("/spins").unwrap();
    let workers = server.until_workers("one spins", |w| w.iter().any(|worker| worker.busy > 0));
    let victim = workers.iter().find(|worker| worker.busy > 0).expect("one is busy").pid;
    if !process::gone(victim, Duration::from_secs(7)) {
        assert!(cell.class.has_threads(), "a worker that spins is left alone");
        return assert_eq!(server.get("/").text(), "ok\n");
    }
    let at = server.log.line(&["faulty.py", "in spins"], SOON);
    assert!(at.contains("line "), "{at}");
    server.log.line(&["heartbeat", "/spins"], SOON);
    assert_eq!(server.log.count("heartbeat"), 1, "it is logged once");
    server.until_ready_workers(2);
    assert_eq!(server.get("/").text(), "ok\n");
}

fn a_fault_leaves_a_traceback(cell: &Cell) {
    let server = faulty(cell);
    server.try_get("/segfaults").unwrap_err();
    server.log.line(&["Fatal Python error: Segmentation fault"], SOON);
    server.log.line(&["faulty.py", "in segfaults"], SOON);
    server.log.line(&["Worker", "SIGSEGV"], SOON);
    assert_eq!(server.log.count("SIGSEGV"), 1, "it is logged once");
    server.until_ready_workers(1);
    assert_eq!(server.get("/").text(), "ok\n");
}

/// Of an idle worker, and of one whose main thread is in Python when it is aborted.
fn the_hook_worker_abort_runs_before_the_end(cell: &Cell) {
    let hooks = "def worker_abort(worker):\n    \
                 open('aborted', 'a').write('%d %d\\n' % (worker.pid, worker.age))\n";
    let setup = Setup::new(cell).app("faulty:application").file("hooks.py", hooks);
    let server = setup.flags("--hooks ./hooks.py --timeout 2").start();
    let told = |pid: nix::unistd::Pid, age: u32| {
        let text = fs::read_to_string(server.dir().join("aborted")).unwrap_or_default();
        text.lines().last() == Some(&format!("{pid} {age}"))
    };
    let first = server.until_ready_workers(1)[0];
    process::signal(first, Signal::SIGABRT);
    server.log.line(&["Worker", &first.to_string(), "SIGABRT"], SOON);
    assert!(told(first, 1), "the idle one");
    let second = server.until_workers("a successor", |workers| {
        workers.iter().any(|worker| worker.pid != first && worker.state == "ready")
    })[0]
        .pid;
    let mut client = server.connect();
    client.send_get("/spins").unwrap();
    if !process::gone(second, Duration::from_secs(7)) {
        return assert!(cell.class.has_threads(), "a worker that spins is left alone");
    }
    server.log.line(&["faulty.py", "in spins"], SOON);
    assert!(told(second, 2), "the one that was given up");
}

fn an_exception_is_one_record(cell: &Cell) {
    let server = faulty(cell);
    let start = server.log.mark();
    assert_eq!(server.get("/raises").status, 500);
    server.log.line_after(start, &["RuntimeError: on purpose"], SOON);
    // Later records follow everything logged for the request before.
    assert_eq!(server.get("/text-body").status, 500);
    server.log.line_after(start, &["GET /text-body"], SOON);
    let log = server.log.text();
    assert_eq!(log.matches("GET /raises: RuntimeError: on purpose\nTraceback").count(), 1, "{log}");
    assert_eq!(log.matches("RuntimeError: on purpose").count(), 2, "line and traceback: {log}");
}

/// With `--reload` no request is needed.
fn a_changed_file_is_reloaded(cell: &Cell) {
    let setup = Setup::new(cell).file("changing.py", saying("first")).app("changing");
    let server = setup.flags("--reload").start();
    server.until_ready_workers(1);
    assert_eq!(server.get("/").text(), "first");
    let until_it_serves = |generation: u64| {
        server.log.line(&[&format!("generation {generation} serves")], RELOAD);
        server.until_workers("the old ones are gone", |workers| {
            workers.iter().all(|worker| worker.generation == generation)
        });
    };
    server.write("changing.py", saying("the second"));
    server.log.line(&["file changed: ", "changing.py"], SOON);
    until_it_serves(2);
    assert_eq!(server.get("/").text(), "the second");
    server.write("changing.py", "import beside\n".to_owned() + &saying("is broken"));
    server.log.line(&["reload refused", "generation 2 continues"], RELOAD);
    assert_eq!(server.get("/").text(), "the second");
    // The module that was missing: no generation has ever loaded it.
    server.write("beside.py", "");
    server.log.line(&["file changed: ", "beside.py"], SOON);
    until_it_serves(4);
    assert_eq!(server.get("/").text(), "is broken");
    server.stop();
}

/// In both directions, by an amount that would show if it were kept.
fn uploads_and_downloads_pass_through(cell: &Cell) {
    let server = Setup::new(cell).flags("--timeout 60").start();
    let worker = server.serving_pid();
    let before = process::rss_kib(worker);
    let close = "Host: test\r\nConnection: close\r\n";
    let mut client = server.connect();
    client.send(format!("GET /stream?n=3000&size=100000 HTTP/1.1\r\n{close}\r\n")).unwrap();
    let down = count(&mut client);
    assert!(down > BIG, "{down} bytes came");
    let mut client = server.connect();
    client.send(format!("POST /echo HTTP/1.1\r\n{close}Content-Length: {BIG}\r\n\r\n")).unwrap();
    let mut sender = client.twin();
    let sending = thread::spawn(move || {
        let part = vec![b'x'; 1_000_000];
        (0..BIG / 1_000_000).for_each(|_| sender.send(&part).unwrap());
    });
    let back = count(&mut client);
    sending.join().unwrap();
    assert!(back > BIG, "{back} bytes came back");
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    assert_eq!(server.serving_pid(), worker);
}

fn large_requests_reuse_memory(cell: &Cell) {
    let module = "import resource, zlib\ndef faults():\n    \
                  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n\
                  def whole(environ):\n    return zlib.crc32(environ['wsgi.input'].read())\n\
                  def rows(environ):\n    return len([{'row': str(n)} for n in range(15000)])\n\
                  def application(environ, start_response):\n    before = faults()\n    \
                  seen = (whole if environ['PATH_INFO'] == '/whole' else rows)(environ)\n    \
                  body = b'%d %d' % (seen, faults() - before)\n    \
                  start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n";
    let server = Setup::new(cell).file("large.py", module).app("large").start();
    let body: Vec<u8> = (0..2_000_000_u32).map(|n| (n >> 5) as u8).collect();
    // The body has 489 pages, the rows have about a thousand.
    for (path, body, expected) in [("/whole", &body[..], SUM_OF_BODY), ("/rows", b"", "15000")] {
        let request = |_| -> u64 {
            let answer = server.connect().post(path, body).unwrap().text();
            let (seen, faults) = answer.split_once(' ').expect("two words");
            assert_eq!(seen, expected);
            faults.parse().unwrap()
        };
        // The first requests may need new pages, also to find out where they fit.
        let faults: Vec<u64> = (0..8).map(request).collect();
        assert!(faults.iter().min().is_some_and(|least| *least < 64), "{faults:?} page faults");
    }
}

fn a_body_beyond_the_memory_is_an_exception(cell: &Cell) {
    let module = "from resource import *\ndef application(environ, start_response):\n    \
                  soft, hard = getrlimit(RLIMIT_AS)\n    \
                  used = int(open('/proc/self/statm').read().split()[0]) * getpagesize()\n    \
                  setrlimit(RLIMIT_AS, (used + (100 << 20), hard))\n    \
                  try:\n        body = b'%d' % len(environ['wsgi.input'].read())\n    \
                  finally:\n        setrlimit(RLIMIT_AS, (soft, hard))\n    \
                  start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n";
    let server = Setup::new(cell).file("limited.py", module).app("limited").start();
    let worker = server.until_ready_workers(1);
    let mut client = server.connect();
    let mut sender = client.twin();
    // The server may close the connection before it has received everything.
    let sending = thread::spawn(move || {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000000\r\n\r\n";
        let part = vec![b'x'; 1_000_000];
        let _ = sender.send(head).and_then(|()| (0..300).try_for_each(|_| sender.send(&part)));
    });
    assert_eq!(client.answer("POST").unwrap().status, 500);
    drop(client);
    sending.join().unwrap();
    server.log.line(&["MemoryError"], SOON);
    assert_eq!(server.connect().post("/", b"abc").unwrap().text(), "3");
    assert_eq!(server.until_ready_workers(1), worker);
}

/// CRC-32 of the body.
const SUM_OF_BODY: &str = "3107036646";

/// Size of a body that would show if it were kept.
const BIG: u64 = 300_000_000;

/// Reads to the end, and keeps nothing.
fn count(client: &mut Connection) -> u64 {
    let mut part = vec![0; 1 << 18];
    let mut sum = 0;
    loop {
        match client.read(&mut part).unwrap() {
            0 => return sum,
            n => sum += n as u64,
        }
    }
}

/// Returns the text of a module whose application responds with this word.
pub(crate) fn saying(word: &str) -> String {
    format!(
        "def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Length', '{}')])\n    return [b'{word}']\n",
        word.len()
    )
}

fn faulty(cell: &Cell) -> Server {
    Setup::new(cell).app("faulty:application").start()
}

/// An error, or something that a client does not accept as a complete response.
fn assert_bad(fault: &str, answer: &Result<Answer, Broken>) {
    match answer {
        Ok(answer) => assert_eq!(answer.status, 500, "{fault}: {}", answer.text()),
        Err(Broken::Cut(_) | Broken::Closed) => {}
        Err(broken) => panic!("{fault}: {broken}"),
    }
}
