//! What an application starts while it is imported, and what hooks do when a process that ran it exits.

use std::{collections::BTreeSet, fs, time::Duration};

use jimu_tests::{
    behaviour,
    cell::Cell,
    process,
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(threads_started_at_import_run_once_with_preload).of_python(),
        behaviour!(threads_started_at_import_run_in_each_worker_without_preload).of_python(),
        behaviour!(what_is_loaded_is_not_collected).of_python(),
        behaviour!(an_asgi_application_is_not_collected).of_asgi(),
        behaviour!(a_collector_that_cannot_freeze_is_reported).of_python(),
        behaviour!(threads_in_the_mold_may_fork).of_python(),
        behaviour!(a_mold_sleeps_when_idle).of_python(),
        behaviour!(child_exit_is_called_once_for_each_process).of_python().within(60),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// Each ticker appends its name and process id to the file `ticks`, until it is renamed.
const TICKING: &str = "
import os, sys, threading, time

def tick(name, sleep):
    while True:
        with open('ticks', 'a') as ticks:
            ticks.write('%s %d\\n' % (name, os.getpid()))
        sleep(0.05)

threading.Thread(target=tick, args=('thread', time.sleep), daemon=True).start()
if 'gevent' in sys.modules:
    import gevent
    gevent.spawn(tick, 'greenlet', gevent.sleep)
if 'eventlet' in sys.modules:
    import eventlet
    eventlet.spawn(tick, 'greenlet', eventlet.sleep)

def application(environ, start_response):
    start_response('200 OK', [])
    return [b'%d' % os.getpid()]
";

fn tickers(cell: &Cell) -> &'static [&'static str] {
    match &*cell.class.name {
        "gevent" | "pywsgi" | "eventlet" => &["greenlet", "thread"],
        _ => &["thread"],
    }
}

/// Waits until each ticker of each process has ticked ten times more, and returns the processes.
fn ticking(server: &Server, names: &[&str]) -> BTreeSet<Pid> {
    let path = server.dir().join("ticks");
    let _ = fs::remove_file(&path);
    let mut pids = BTreeSet::new();
    wait::until("the tickers tick", SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: BTreeSet<&str> = text.lines().collect();
        let enough = |line: &&&str| text.lines().filter(|other| other == *line).count() >= 10;
        let ticked = lines.iter().filter(enough).filter_map(|line| line.split_once(' '));
        let found: Vec<(&str, &str)> = ticked.collect();
        if names.iter().any(|name| !found.iter().any(|(of, _)| of == name)) {
            return Err(text);
        }
        pids = lines
            .iter()
            .filter_map(|line| line.split_once(' ')?.1.parse().ok().map(Pid::from_raw))
            .collect();
        Ok(())
    });
    pids
}

/// Waits until there are two ready workers, and this one is gone.
fn replaced(server: &Server, gone: Pid) -> Vec<Pid> {
    let workers = server.until_workers("a replacement", |workers| {
        workers.len() == 2 && workers.iter().all(|one| one.pid != gone && one.state == "ready")
    });
    workers.iter().map(|worker| worker.pid).collect()
}

fn threads_started_at_import_run_once_with_preload(cell: &Cell) {
    let setup = Setup::new(cell).file("ticking.py", TICKING).app("ticking");
    let server = setup.flags("--preload --workers 2").start();
    let workers = server.until_ready_workers(2);
    assert!(workers.contains(&server.serving_pid()));
    let first = ticking(&server, tickers(cell));
    assert_eq!(first.len(), 1, "{first:?} tick");
    assert!(!workers.iter().any(|worker| first.contains(worker)), "a worker ticks");
    // The mold still forks.
    process::signal(workers[0], Signal::SIGKILL);
    replaced(&server, workers[0]);
    assert_eq!(ticking(&server, tickers(cell)), first);
    let old = first;
    server.ctl(&["reload"]).done();
    wait::until("the new mold ticks alone", SOON, || {
        let now = ticking(&server, tickers(cell));
        if now.len() == 1 && now != old { Ok(()) } else { Err(format!("{now:?}")) }
    });
    server.stop();
}

fn threads_started_at_import_run_in_each_worker_without_preload(cell: &Cell) {
    let setup = Setup::new(cell).file("ticking.py", TICKING).app("ticking");
    let server = setup.flags("--workers 2").start();
    let workers = server.until_ready_workers(2).into_iter().collect();
    wait::until("both workers tick", SOON, || {
        let now = ticking(&server, tickers(cell));
        if now == workers { Ok(()) } else { Err(format!("{now:?} instead of {workers:?}")) }
    });
    server.stop();
}

/// Also without preload, unless the application objects.
fn what_is_loaded_is_not_collected(cell: &Cell) {
    let app = "import gc\n\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    \
               return [b'%d' % gc.get_freeze_count()]\n";
    let hooks = "import gc\n\ndef post_worker_init(*facts):\n    gc.unfreeze()\n";
    let frozen = |flags| {
        let setup = Setup::new(cell).file("counting.py", app).file("thawing.py", hooks);
        let server = setup.app("counting").flags(flags).start();
        let frozen = server.get("/").text().parse::<usize>().expect("the application counts");
        server.stop();
        frozen
    };
    assert!(frozen("") > 1000);
    assert!(frozen("--preload") > 1000);
    assert_eq!(frozen("--hooks thawing"), 0);
}

fn an_asgi_application_is_not_collected(cell: &Cell) {
    let app = "import gc\n\nasync def application(scope, receive, send):\n    assert scope['type'] == 'http'\n    \
               await send({'type': 'http.response.start', 'status': 200})\n    \
               await send({'type': 'http.response.body', 'body': b'%d' % gc.get_freeze_count()})\n";
    for flags in ["", "--preload"] {
        let server = Setup::new(cell).file("counting.py", app).app("counting").flags(flags).start();
        let frozen: usize = server.get("/").text().parse().expect("the application counts");
        assert!(frozen > 1000, "{frozen}, {flags}");
        server.stop();
    }
}

/// An application may replace what the server calls: its requests are served.
fn a_collector_that_cannot_freeze_is_reported(cell: &Cell) {
    let app = "import gc\n\ngc.freeze = None\n\ndef application(environ, start_response):\n    \
               start_response('200 OK', [])\n    return [b'served']\n";
    for flags in ["", "--preload"] {
        let server = Setup::new(cell).file("warm.py", app).app("warm").flags(flags).start();
        assert_eq!(server.get("/").text(), "served");
        let log = server.stop().log;
        assert_eq!(log.matches("cannot freeze what is loaded").count(), 1, "{log}");
        assert!(log.contains("'NoneType' object is not callable"), "{log}");
    }
}

/// The child takes no message that is meant for the mold, and leaves the mold's poller as it is.
fn threads_in_the_mold_may_fork(cell: &Cell) {
    let module = "
import multiprocessing, os, subprocess, threading, time

def note(*words):
    with open('noted', 'a') as noted:
        print(*words, file=noted)

def run():
    time.sleep(0.2)
    note('ran', subprocess.run(['echo', 'a child'], stdout=subprocess.PIPE).stdout)
    worked = multiprocessing.get_context('fork').Process(target=note, args=('worked',))
    worked.start()
    worked.join()
    child = os.fork()
    if not child:
        return note('forked')
    note('waited', os.waitpid(child, 0)[1])

threading.Thread(target=run, daemon=True).start()

def application(environ, start_response):
    start_response('200 OK', [])
    return [b'%d' % os.getpid()]
";
    let setup = Setup::new(cell).file("forks.py", module).app("forks");
    let server = setup.flags("--preload --workers 2").start();
    let workers = server.until_ready_workers(2);
    wait::until("the thread is done", SOON, || {
        let noted = fs::read_to_string(server.dir().join("noted")).unwrap_or_default();
        let expected = "ran b'a child\\n'\nworked\nforked\nwaited 0\n";
        if noted == expected { Ok(()) } else { Err(noted) }
    });
    process::signal(workers[0], Signal::SIGKILL);
    assert!(replaced(&server, workers[0]).contains(&server.serving_pid()));
    assert_eq!(server.molds().len(), 1);
    let log = server.stop().log;
    assert!(!log.contains("Traceback"), "{log}");
}

/// Also where a hub was made at import, which runs between messages.
fn a_mold_sleeps_when_idle(cell: &Cell) {
    let module = "import time\ntime.sleep(0.01)\ndef application(environ, start_response):\n    \
                  start_response('200 OK', [])\n    return [b'']\n";
    let setup = Setup::new(cell).file("idle.py", module).app("idle");
    let server = setup.flags("--preload --workers 2").start();
    server.until_ready_workers(2);
    let mold = server.molds()[0];
    let before = process::sleeps(mold);
    assert!(!process::gone(mold, Duration::from_secs(3)), "the mold ended");
    let woken = process::sleeps(mold) - before;
    assert!(woken <= 3, "woken {woken} times in 3 idle seconds");
}

/// However a worker ends, and though the mold dies with it. With `preload_app` also for molds, whose age is 0: what an
/// application keeps for each process, as `prometheus_client` does, would stay there for ever.
fn child_exit_is_called_once_for_each_process(cell: &Cell) {
    let hooks = "
import os

def note(*words):
    with open('noted', 'a') as noted:
        print(*words, file=noted)

def post_fork(server, worker):
    note('fork', worker.pid)

def child_exit(server, worker):
    note('exit', worker.pid, worker.age)
";
    let application = "
import os

def application(environ, start_response):
    if environ['PATH_INFO'] == '/exit':
        os._exit(5)
    start_response('200 OK', [])
    return [b'%d' % os.getpid()]
";
    for flags in ["", "--preload"] {
        let setup = Setup::new(cell).file("hooks.py", hooks).file("exits.py", application);
        let setup = setup.app("exits").flags("--hooks ./hooks.py --workers 2").flags(flags);
        let mut server = setup.start();
        let mut workers = server.until_ready_workers(2);
        let mut molds_gone = Vec::new();
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
            process::signal(workers[0], signal);
            workers = replaced(&server, workers[0]);
        }
        assert!(server.try_get("/exit").is_err());
        let log = server.log.line(&["exited with status 5"], SOON);
        let exited = workers.iter().copied().find(|pid| log.contains(&format!("(pid: {pid})")));
        workers = replaced(&server, exited.unwrap());
        molds_gone.extend(server.molds());
        server.ctl(&["reload"]).done();
        for worker in workers {
            assert!(process::gone(worker, SOON));
        }
        workers = server.until_ready_workers(2);
        let now = wait::until("one mold", SOON, || {
            let now = server.molds();
            if now.len() == 1 { Ok(now) } else { Err(format!("{now:?}")) }
        });
        for victim in [now[0], workers[0]] {
            process::signal(victim, Signal::SIGKILL);
        }
        molds_gone.extend(now);
        replaced(&server, workers[0]);
        let path = server.dir().join("noted");
        let noted = || fs::read_to_string(&path).unwrap_or_default();
        wait::until("the exits of the molds and workers", SOON, || {
            let text = noted();
            let (begun, ended) = (text.matches("fork ").count(), text.matches("exit ").count());
            let molds = if flags.is_empty() { 0 } else { molds_gone.len() };
            if begun - 2 + molds == ended { Ok(()) } else { Err(text) }
        });
        server.signal(Signal::SIGTERM);
        server.ended(SOON);
        let text = noted();
        let lines = |of: &str| -> Vec<&str> {
            let mut lines: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix(of)).collect();
            lines.sort_unstable();
            lines
        };
        let exits = lines("exit ");
        let of_workers = exits.iter().filter(|exit| !exit.ends_with(" 0"));
        let of_workers: Vec<&str> =
            of_workers.map(|exit| exit.split_once(' ').unwrap().0).collect();
        assert_eq!(of_workers, lines("fork "), "{flags}");
        let of_molds: BTreeSet<String> =
            exits.iter().filter_map(|exit| exit.strip_suffix(" 0")).map(str::to_owned).collect();
        let expected = molds_gone.iter().filter(|_| !flags.is_empty()).map(Pid::to_string);
        assert_eq!(of_molds, expected.collect(), "{flags}:\n{text}");
    }
}
