//! ASGI applications as a whole: which class serves them, the event loop, and the lifespan protocol.

use std::time::{Duration, Instant};

use jimu_tests::{
    behaviour,
    cell::{Cell, has_modules, python},
    load::{Load, Plan, get},
    process::{self, End},
    runner::Behaviour,
    server::{Ended, Server, Setup},
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_interface_chooses_the_class).of_asgi(),
        behaviour!(another_interface_can_take_over_at_a_reload).of_asgi().within(90),
        behaviour!(an_application_of_the_other_interface_is_refused).of_asgi(),
        behaviour!(the_loop_is_a_setting)
            .of_asgi()
            .only_if(has_uvloop, "the Python environment has no uvloop"),
        behaviour!(a_loop_that_does_not_exist_is_refused).of_asgi(),
        behaviour!(a_failed_startup_is_refused).of_asgi(),
        behaviour!(a_failed_startup_at_a_reload_leaves_the_service).of_asgi().within(90),
        behaviour!(the_lifespan_protocol_is_optional).of_asgi(),
        behaviour!(shutdown_follows_the_last_request).of_asgi(),
        behaviour!(shutdown_follows_a_request_that_does_not_end).of_asgi(),
        behaviour!(a_shutdown_that_fails_or_hangs_is_logged).of_asgi(),
        behaviour!(a_preloaded_application_is_imported_once).of_asgi(),
        behaviour!(the_loops_watchdog_ends_before_the_loop).of_asgi(),
        behaviour!(a_watchdog_with_a_full_log_holds_up_no_end).of_asgi(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn has_uvloop() -> bool {
    has_modules(python(), &["uvloop"])
}

const WSGI: &str = "def application(environ, start_response):\n    start_response('200 OK', \
                    [])\n    return [b'over WSGI']\n";
const ASGI: &str = "async def application(scope, receive, send):\n    assert scope['type'] == \
                    'http'\n    await send({'type': 'http.response.start', 'status': 200, \
                    'headers': []})\n    await send({'type': 'http.response.body', 'body': \
                    b'over ASGI'})\n";

/// Without a worker class.
fn undecided(module: &str) -> Setup {
    Setup::bare().python(python().unwrap()).file("module.py", module).app("module")
}

/// `asgi_lifespan.py` with this kind of startup.
fn starting(cell: &Cell, startup: &str) -> Setup {
    Setup::new(cell).app("asgi_lifespan:application").file("startup", startup)
}

fn the_interface_chooses_the_class(_: &Cell) {
    for (module, body) in [(ASGI, "over ASGI"), (WSGI, "over WSGI")] {
        let server = undecided(module).start();
        assert_eq!(server.get("/").text(), body);
        server.stop();
    }
}

fn another_interface_can_take_over_at_a_reload(_: &Cell) {
    let server = undecided(WSGI).start();
    let load =
        Load::start(server.address(), Plan { clients: 4, ask: |_| get("/"), ..Plan::default() });
    for (module, body) in
        [(ASGI, "over ASGI"), (WSGI, "over WSGI"), (ASGI, "over ASGI"), (WSGI, "over WSGI")]
    {
        load.flows(20, SOON);
        server.write("module.py", module);
        server.ctl(&["reload"]).done();
        assert_eq!(server.get("/").text(), body);
    }
    load.finish().assert_nothing_lost();
    server.stop();
}

fn an_application_of_the_other_interface_is_refused(cell: &Cell) {
    is_refused_in_a_line(&undecided(ASGI).class("sync").refused(), "--worker-class asgi");
    let ended = undecided(WSGI).class(cell.class.path.clone()).refused();
    is_refused_in_a_line(&ended, "is not an ASGI application");
}

fn the_loop_is_a_setting(cell: &Cell) {
    let own =
        "import asyncio\nclass Own(asyncio.SelectorEventLoop): pass\ndef make(): return Own()\n";
    for (flags, module) in [
        ("", "uvloop"),
        ("--asgi-loop auto", "uvloop"),
        ("--asgi-loop uvloop", "uvloop"),
        ("--asgi-loop asyncio", "asyncio.unix_events"),
        ("--asgi-loop own_loop:make", "own_loop"),
    ] {
        let setup = Setup::new(cell).app("asgi_requests:application").file("own_loop.py", own);
        let server = setup.flags(flags).start();
        assert_eq!(server.get("/loop").text(), module, "{flags}");
        assert_eq!(server.connect().post("/parts", b"a body").unwrap().text(), "a body");
        server.stop();
    }
}

fn a_loop_that_does_not_exist_is_refused(cell: &Cell) {
    for name in ["nosuch", "nosuch:make", "asgi_requests:nosuch"] {
        let setup = Setup::new(cell).app("asgi_requests:application").flag("--asgi-loop", name);
        is_refused_in_a_line(&setup.refused(), &format!("asgi_loop is '{name}'"));
    }
}

fn is_refused_in_a_line(ended: &Ended, words: &str) {
    assert_ne!(ended.status(), 0);
    assert_eq!(ended.log.lines().filter(|line| line.contains(words)).count(), 1, "{}", ended.log);
    assert!(!ended.log.contains("Traceback"), "{}", ended.log);
    assert!(ended.took < SOON, "{:?}", ended.took);
}

fn a_failed_startup_is_refused(cell: &Cell) {
    is_refused_in_a_line(&starting(cell, "fails").refused(), "the database is away");
    let ended = starting(cell, "raises").flags("--asgi-lifespan on").refused();
    assert_ne!(ended.status(), 0);
    assert!(ended.log.contains("boot: the event loop failed: LookupError: the database is away"));
    assert_eq!(ended.log.matches("Traceback").count(), 1, "{}", ended.log);
}

fn a_failed_startup_at_a_reload_leaves_the_service(cell: &Cell) {
    let setup = starting(cell, "first").flags("--workers 2 --asgi-lifespan on --boot-timeout 3");
    let server = setup.start();
    let before = server.until_ready_workers(2);
    let load =
        Load::start(server.address(), Plan { clients: 4, ask: |_| get("/"), ..Plan::default() });
    for (startup, reason) in [
        ("fails", "lifespan startup failed: the database is away"),
        ("raises", "LookupError: the database is away"),
        ("unsupported", "only http is served"),
        ("hangs", "boot_timeout"),
    ] {
        server.write("startup", startup);
        let refused = server.ctl(&["reload"]).refused();
        assert!(refused.contains(reason), "{startup}: {refused}");
        load.flows(20, SOON);
        assert!(server.get("/").text().starts_with("first "), "{startup}");
    }
    assert_eq!(server.until_ready_workers(2), before);
    server.write("startup", "second");
    server.ctl(&["reload"]).done();
    assert!(server.get("/").text().starts_with("second "));
    load.finish().assert_nothing_lost();
    server.stop();
}

fn the_lifespan_protocol_is_optional(cell: &Cell) {
    let body = |server: &Server| server.get("/").text();
    let server = starting(cell, "unsupported").start();
    assert_eq!(body(&server), "unsupported None");
    assert!(!server.stop().log.contains("Traceback"));
    let server = starting(cell, "supported").flags("--asgi-lifespan off").start();
    assert_eq!(body(&server), "supported None");
    assert!(!server.stop().log.contains("lifespan.startup"));
    for flags in ["", "--asgi-lifespan on"] {
        let server = starting(cell, "supported").flags(flags).start();
        let pid = server.until_ready_workers(1)[0];
        assert_eq!(body(&server), format!("supported {{'pid': {pid}}}"));
        server.stop();
    }
}

fn shutdown_follows_the_last_request(cell: &Cell) {
    let mut server = Setup::new(cell).app("asgi_requests:application").start();
    let worker = server.until_ready_workers(1)[0];
    let mut client = server.connect();
    client.send_get("/slow").unwrap();
    server.log.line(&["slow request waits"], SOON);
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], SOON);
    assert!(!process::gone(worker, Duration::ZERO));
    server.write("released", "");
    assert_eq!(client.answer("GET").unwrap().text(), "at last");
    let log = server.ended(SOON).log;
    let at = |words| log.find(words).unwrap_or_else(|| panic!("no {words}: {log}"));
    assert!(at("slow request responded") < at("lifespan shutdown"), "{log}");
}

/// A request that outlasts `graceful_timeout` is cancelled and leaves time for the shutdown.
fn shutdown_follows_a_request_that_does_not_end(_: &Cell) {
    let module = "import asyncio, os\n\
                  async def application(scope, receive, send):\n    \
                      if scope['type'] != 'lifespan':\n        \
                          try:\n            await asyncio.sleep(30)\n        \
                          finally:\n            os.write(2, b'request cleaned up\\n')\n    \
                      await receive()\n    \
                      await send({'type': 'lifespan.startup.complete'})\n    \
                      await receive()\n    \
                      await asyncio.sleep(0.2)\n    \
                      os.write(2, b'application shut down\\n')\n    \
                      await send({'type': 'lifespan.shutdown.complete'})\n";
    let mut server = undecided(module).flags("--graceful-timeout 1").start();
    let mut client = server.connect();
    client.send_get("/endless").unwrap();
    server.until_held("/endless");
    server.signal(Signal::SIGTERM);
    let Ended { end, log, .. } = server.ended(SOON);
    assert_eq!(end, End::Status(0), "{log}");
    assert_eq!(client.answer("GET").unwrap().status, 500, "{log}");
    let at = |words| log.find(words).unwrap_or_else(|| panic!("no {words}: {log}"));
    assert!(at("request cleaned up") < at("application shut down"), "{log}");
    assert!(!log.contains("killed"), "{log}");
}

fn a_shutdown_that_fails_or_hangs_is_logged(cell: &Cell) {
    let server = starting(cell, "fails at the end").start();
    let log = server.stop().log;
    assert!(log.contains("lifespan shutdown failed: the database stays"), "{log}");
    let server = starting(cell, "never ends").flags("--graceful-timeout 1").start();
    let begun = Instant::now();
    let log = server.stop().log;
    assert!(log.contains("lifespan shutdown did not end within graceful_timeout"), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

fn a_preloaded_application_is_imported_once(cell: &Cell) {
    let server = starting(cell, "preloaded").flags("--workers 2 --preload").start();
    let workers = server.until_ready_workers(2);
    assert_eq!(server.log.count("imported in"), 1);
    for pid in &workers {
        assert_eq!(server.log.count(&format!("imported in {pid}")), 0, "in the mold");
        assert_eq!(server.log.count(&format!("lifespan.startup in {pid}")), 1, "in each worker");
    }
    let log = server.stop().log;
    assert_eq!(log.matches("lifespan.shutdown").count(), 2, "{log}");
}

/// The watchdog is about to send the loop its mark when the worker stops, and runs again only when exit functions do.
fn the_loops_watchdog_ends_before_the_loop(_: &Cell) {
    let module = "import atexit, os, threading, time\n\
                  monotonic, held, exiting = time.monotonic, [], threading.Event()\n\
                  def held_up():\n    \
                      if held and threading.current_thread().name == 'jimu-watchdog':\n        \
                          held[0].set()\n        exiting.wait(1)\n    \
                      return monotonic()\n\
                  def exit():\n    exiting.set()\n    time.sleep(0.5)\n\
                  time.monotonic = held_up\natexit.register(exit)\n\
                  async def application(scope, receive, send):\n    \
                      if scope['type'] == 'lifespan':\n        raise NotImplementedError\n    \
                      held.append(threading.Event())\n    \
                      os.write(2, b'held up\\n' if held[0].wait(10) else b'not asked\\n')\n    \
                      while not os.path.exists('stopping'): time.sleep(0.01)\n    \
                      await send({'type': 'http.response.start', 'status': 204})\n    \
                      await send({'type': 'http.response.body'})\n";
    let mut server = undecided(module).flags("--greenlet-block-warning 0.2").start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    server.log.line(&["held up"], SOON);
    server.signal(Signal::SIGTERM);
    server.log.line(&["term"], SOON);
    server.write("stopping", "");
    assert_eq!(client.answer("GET").unwrap().status, 204);
    let Ended { end, log, .. } = server.ended(SOON);
    assert_eq!(end, End::Status(0), "{log}");
    assert!(!log.contains("Traceback"), "{log}");
}

/// The application fills the pipe, and blocks the loop for so long that the watchdog logs it.
fn a_watchdog_with_a_full_log_holds_up_no_end(cell: &Cell) {
    let script = "mkfifo log; exec 3<>log; exec \"$0\" \"$@\" > log 2>&1";
    let module = "import os, threading, time\n\
                  def fill():\n    while True: os.write(2, b'x' * 4096)\n\
                  async def application(scope, receive, send):\n    \
                      if scope['type'] == 'lifespan':\n        raise NotImplementedError\n    \
                      threading.Thread(target=fill, daemon=True).start()\n    \
                      time.sleep(0.5)\n    \
                      await send({'type': 'http.response.start', 'status': 204})\n    \
                      await send({'type': 'http.response.body'})\n";
    let setup = Setup::shell(cell, script).file("filling.py", module).app("filling");
    let mut server = setup.flags("--greenlet-block-warning 0.1").start();
    assert_eq!(server.get("/").status, 204);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(SOON).status(), 0);
}
