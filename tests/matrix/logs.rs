//! The error log, the access log, and what happens to them while the server runs.

use std::{
    fs,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::Address,
    load::{Ask, Load, Plan, get},
    output::Output,
    runner::Behaviour,
    server::Setup,
};
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_log_has_gunicorns_lines).of_host(),
        behaviour!(levels_are_honoured).of_host(),
        behaviour!(log_lines_can_be_json).of_host(),
        behaviour!(access_lines_have_the_asked_form),
        behaviour!(every_request_has_one_access_line).busy(),
        behaviour!(rotation_loses_no_line).busy(),
        behaviour!(access_lines_survive_a_killed_worker),
        behaviour!(a_full_disk_stops_no_one).of_class(),
        behaviour!(a_closed_log_pipe_stops_no_one).of_class(),
        behaviour!(a_reader_that_does_not_read_stops_nothing).of_class(),
        behaviour!(a_fifo_without_a_reader_holds_up_nothing).of_host(),
        behaviour!(a_log_at_its_size_limit_ends_no_process).of_host(),
        behaviour!(a_log_in_a_missing_directory_is_named).of_host(),
        behaviour!(access_lines_are_written_within_a_tenth_of_a_second).of_class(),
        behaviour!(no_line_is_torn_in_a_pipe_of_four_workers).of_host().busy(),
    ]
}

fn the_log_has_gunicorns_lines(cell: &Cell) {
    let server = Setup::new(cell).start();
    let Address::Tcp(at) = server.address().clone() else { unreachable!("bound to TCP") };
    let line = server.log.line(&["listening at", &format!("http://{at}")], Duration::from_secs(5));
    let pid = format!("[{}]", server.pid());
    assert!(line.starts_with('[') && line.contains(&pid) && line.contains("[INFO]"), "{line}");
    server.log.line(&["booted worker with pid", &server.serving_pid().to_string()], Duration::ZERO);
    let ended = server.stop();
    assert!(ended.log.contains("Shutting down"), "{}", ended.log);
}

fn levels_are_honoured(cell: &Cell) {
    let quiet = Setup::new(cell).flags("--log-level error").start();
    assert_eq!(quiet.stop().log, "");
    let chatty = Setup::new(cell).flags("--log-level debug").start();
    assert!(chatty.stop().log.contains("[DEBUG]"));
}

fn log_lines_can_be_json(cell: &Cell) {
    let server = Setup::new(cell).flags("--log-format json --access-logfile access.log").start();
    server.get("/headers?x=1");
    let access = server.dir().join("access.log");
    let log = server.log.clone();
    let dir = server.dir().to_owned();
    let kept = fs::canonicalize(&access).unwrap();
    assert!(kept.starts_with(&dir));
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.ended(Duration::from_secs(20));
    for line in log.text().lines().chain(fs::read_to_string(access).unwrap().lines()) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value.is_object(), "{line}");
    }
}

fn access_lines_have_the_asked_form(cell: &Cell) {
    let server = Setup::new(cell)
        .flags("--access-logfile -")
        .flag("--access-logformat", "<%(m)s %(U)s %(q)s %(H)s %(s)s %(B)s %({x-colour}i)s %(p)s>")
        .start();
    let mut client = server.connect();
    let head =
        "POST /echo?a=b HTTP/1.1\r\nHost: test\r\nX-Colour: blue\r\nContent-Length: 5\r\n\r\n";
    client.send(format!("{head}hello")).unwrap();
    assert_eq!(client.answer("POST").unwrap().status, 200);
    let line = server.out.line(&["/echo"], Duration::from_secs(10));
    let start = "<POST /echo a=b HTTP/1.1 200 5 blue ";
    assert!(line.starts_with(start) && line.ends_with('>'), "{line}");
    let pid = &line[start.len()..line.len() - 1];
    assert_eq!(pid.trim_matches(['<', '>']), server.serving_pid().to_string());
}

/// Also proves that no request runs twice: each has a unique number.
fn every_request_has_one_access_line(cell: &Cell) {
    let mut server = numbered(cell);
    let load = Load::start(server.address(), Plan { ask: number, ..Plan::default() });
    load.flows(300, Duration::from_secs(30));
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], Duration::from_secs(20));
    load.flows(300, Duration::from_secs(30));
    let tally = load.finish();
    tally.assert_nothing_lost();
    let access = server.dir().join("access.log");
    server.signal(Signal::SIGTERM);
    server.ended(Duration::from_secs(20));
    assert_lines(&fs::read_to_string(access).unwrap(), tally.answered);
}

fn rotation_loses_no_line(cell: &Cell) {
    let mut server = numbered(cell);
    let workers = server.until_ready_workers(2);
    let access = server.dir().join("access.log");
    let load = Load::start(server.address(), Plan { ask: number, ..Plan::default() });
    for n in 0..5 {
        load.flows(100, Duration::from_secs(20));
        fs::rename(&access, server.dir().join(format!("access.{n}"))).unwrap();
        let mark = server.log.mark();
        server.signal(Signal::SIGUSR1);
        server.log.line_after(mark, &["open"], Duration::from_secs(10));
    }
    load.flows(100, Duration::from_secs(20));
    let tally = load.finish();
    tally.assert_nothing_lost();
    assert_eq!(server.until_ready_workers(2), workers, "rotation changes no process");
    let dir = server.dir().to_owned();
    server.signal(Signal::SIGTERM);
    server.ended(Duration::from_secs(20));
    let mut text = fs::read_to_string(&access).unwrap();
    assert!(!text.is_empty(), "nothing is written to the new file");
    for n in 0..5 {
        text.push_str(&fs::read_to_string(dir.join(format!("access.{n}"))).unwrap());
    }
    assert_lines(&text, tally.answered);
}

/// Lines that a worker has written are not lost with it.
fn access_lines_survive_a_killed_worker(cell: &Cell) {
    let server = numbered(cell);
    for n in 0..20 {
        assert_eq!(server.get(&format!("/?n={n}")).status, 200);
    }
    let pids: Vec<_> = server.until_ready_workers(2);
    for pid in pids {
        jimu_tests::process::signal(pid, Signal::SIGKILL);
    }
    let access = server.dir().join("access.log");
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.ended(Duration::from_secs(20));
    assert_lines(&fs::read_to_string(access).unwrap(), 20);
}

/// `/dev/full` accepts no data.
fn a_full_disk_stops_no_one(cell: &Cell) {
    let server =
        Setup::new(cell).flags("--access-logfile /dev/full --error-logfile /dev/full").start();
    let load = Load::start(server.address(), Plan { clients: 4, ..Plan::default() });
    load.flows(200, Duration::from_secs(20));
    server.ctl(&["reload"]).done();
    load.flows(100, Duration::from_secs(20));
    load.finish().assert_nothing_lost();
    server.stop();
}

fn a_closed_log_pipe_stops_no_one(cell: &Cell) {
    // The reader of both streams exits after the first line.
    let setup = Setup::shell(
        cell,
        "exec 3>pipe.pid; mkfifo log; head -n 1 log > first & exec \"$0\" \"$@\" > log 2>&1",
    );
    let server = setup.flags("--access-logfile -").start();
    for _ in 0..50 {
        assert_eq!(server.get("/").status, 200);
    }
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// The pipe of both streams has a reader, the server itself, that never reads.
fn a_reader_that_does_not_read_stops_nothing(cell: &Cell) {
    let script = "mkfifo log; exec 3<>log; exec \"$0\" \"$@\" > log 2>&1";
    let mut server = Setup::shell(cell, script).flags("--access-logfile -").start();
    let target = format!("/?{}", "x".repeat(1000));
    // More than the pipe and the worker's log buffer hold.
    for _ in 0..300 {
        assert_eq!(server.get(&target).status, 200);
    }
    let worker = server.serving_pid();
    jimu_tests::process::signal(worker, Signal::SIGKILL);
    assert!(jimu_tests::process::gone(worker, Duration::from_secs(10)));
    server.until_ready_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGUSR1);
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(20)).status(), 0);
}

fn a_fifo_without_a_reader_holds_up_nothing(cell: &Cell) {
    let script = "mkfifo errors access; exec \"$0\" \"$@\"";
    let flags = "--error-logfile errors --access-logfile access";
    let mut server = Setup::shell(cell, script).flags(flags).start();
    assert_eq!(server.get("/?early").status, 200);
    server.signal(Signal::SIGUSR1);
    server.ctl(&["reload"]).done();
    let read = |name: &str| Output::of(fs::File::open(server.dir().join(name)).unwrap());
    let (errors, access) = (read("errors"), read("access"));
    errors.line(&["Server is ready"], Duration::from_secs(10));
    access.line(&["/?early"], Duration::from_secs(10));
    assert_eq!(server.get("/?late").status, 200);
    access.line(&["/?late"], Duration::from_secs(10));
    server.signal(Signal::SIGTERM);
    errors.line(&["Shutting down"], Duration::from_secs(10));
    assert_eq!(server.ended(Duration::from_secs(20)).status(), 0);
}

/// The logs have reached the file size limit (`ulimit -f`, `LimitFSIZE`).
fn a_log_at_its_size_limit_ends_no_process(cell: &Cell) {
    // In blocks of 512 bytes: 256 MiB.
    let script = "truncate -s 268435400 access.log; ulimit -f 524288; exec \"$0\" \"$@\"";
    let server = Setup::shell(cell, script).flags("--access-logfile access.log").start();
    let worker = server.serving_pid();
    server.log.line(&["access.log: File too large"], Duration::from_secs(10));
    jimu_tests::process::signal(worker, Signal::SIGKILL);
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

fn a_log_in_a_missing_directory_is_named(cell: &Cell) {
    for flag in ["--access-logfile", "--error-logfile"] {
        let ended = Setup::new(cell).flag(flag, "no/where.log").refused();
        let path = "no/where.log: directory ";
        assert!(ended.log.contains(path), "{flag}: {}", ended.log);
        assert_eq!(ended.log.trim_end().lines().count(), ended.log.lines().count());
    }
}

fn access_lines_are_written_within_a_tenth_of_a_second(cell: &Cell) {
    let server = numbered(cell);
    let access = server.dir().join("access.log");
    let delay = (0..10).map(|round| {
        for n in 0..3 {
            assert_eq!(server.get(&format!("/?n={round}.{n}")).status, 200);
        }
        let answered = Instant::now();
        let last = format!("n={round}.2 200\n");
        while !fs::read_to_string(&access).unwrap().contains(&last) {
            assert!(answered.elapsed() < Duration::from_secs(10), "{last} is not written");
            // The pause of `wait::until` is too long here: it would be part of the delay.
            std::thread::sleep(Duration::from_millis(1));
        }
        answered.elapsed()
    });
    // The machine may be busy once or twice.
    let delay = delay.min().unwrap();
    assert!(delay < Duration::from_millis(100), "{delay:?}");
}

fn no_line_is_torn_in_a_pipe_of_four_workers(cell: &Cell) {
    let setup = Setup::new(cell).flags("--workers 4 --access-logfile -");
    let server = setup.flag("--access-logformat", "%(q)s %(s)s").start();
    let load = Load::start(server.address(), Plan { ask: number, clients: 16, ..Plan::default() });
    load.flows(2000, Duration::from_secs(60));
    let tally = load.finish();
    tally.assert_nothing_lost();
    let out = server.out.clone();
    server.stop();
    let is_whole = |text: &str| text.lines().count() as u64 >= tally.answered;
    let text = out.until(Duration::from_secs(10), |t| is_whole(t).then(|| t.to_owned()));
    assert_lines(&text.unwrap_or_else(|| out.text()), tally.answered);
}

fn numbered(cell: &Cell) -> jimu_tests::server::Server {
    let setup = Setup::new(cell).flags("--workers 2 --access-logfile access.log");
    setup.flag("--access-logformat", "%(q)s %(s)s").start()
}

fn number(number: u64) -> Ask {
    get(&format!("/?n={number}"))
}

/// Each line is complete, none occurs twice, and their number is right.
fn assert_lines(text: &str, count: u64) {
    assert!(text.ends_with('\n'), "the last line is torn");
    let mut lines: Vec<&str> = text.lines().collect();
    let torn = lines.iter().find(|line| !(line.starts_with("n=") && line.ends_with(" 200")));
    assert_eq!(torn, None, "a torn line");
    let total = lines.len() as u64;
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len() as u64, total, "a request has two lines");
    assert_eq!(total, count, "lines and answers");
}
