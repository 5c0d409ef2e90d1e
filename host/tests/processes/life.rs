//! Start, signals, shutdown.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host::control::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::process::{self, End};

use crate::Test;
use crate::server::{Server, answer, ends, lives};

pub(crate) const TESTS: &[Test] = &tests![
    a_server_starts_responds_and_stops,
    quick_signals_end_at_once_with_status_0,
    connections_in_the_backlog_are_served_at_shutdown,
    a_worker_that_does_not_finish_in_time_is_killed_and_logged,
    a_delayed_stop_keeps_serving_for_a_while,
    a_storm_of_signals_ends_in_the_right_number_of_workers,
    more_and_fewer_workers_by_signal_and_by_request,
    killing_the_arbiter_leaves_no_process,
    workers_survive_a_pause_of_the_arbiter,
    an_idle_arbiter_sleeps,
    a_stale_unix_socket_is_replaced_and_a_live_one_is_not,
    a_second_server_with_the_same_pid_file_refuses,
];

fn a_server_starts_responds_and_stops() {
    let server = Server::start("hello", &["-w", "2"]);
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let workers = server.workers();
    let log = server.stop();
    assert!(workers.iter().all(|&pid| !lives(pid)), "{log}");
    assert!(!log.contains("[ERROR]"), "{log}");
}

fn quick_signals_end_at_once_with_status_0() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = Server::start("hello", &[]);
        let stream = server.say("hang");
        server.wait_until("busy", |server| server.serving().workers[0].busy == 1);
        server.signal(signal);
        assert_eq!(server.wait(), End::Status(0));
        assert_eq!(answer(stream), "");
        assert!(!server.log().contains("killed by the arbiter"), "{}", server.log());
    }
}

fn connections_in_the_backlog_are_served_at_shutdown() {
    let server = Server::start("hello", &[]);
    let streams: Vec<_> = (0..8).map(|_| server.say("sleep")).collect();
    server.wait_until("busy", |server| server.serving().workers[0].busy == 1);
    server.stop();
    for stream in streams {
        assert!(answer(stream).ends_with(" hello\n"));
    }
}

fn a_worker_that_does_not_finish_in_time_is_killed_and_logged() {
    let mut server = Server::start("hello", &["--graceful-timeout", "0.3"]);
    let stream = server.say("hang");
    server.wait_until("busy", |server| server.serving().workers[0].busy == 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), End::Status(0));
    assert_eq!(answer(stream), "");
    let line = server.wait_for("killed by the arbiter");
    assert!(line.contains("graceful_timeout) and 2.0 s more, busy with hang for 2."), "{line}");
}

fn a_delayed_stop_keeps_serving_for_a_while() {
    let mut server = Server::start("hello", &["--drain-delay", "0.5"]);
    server.signal(Signal::SIGTERM);
    server.wait_for("stopping in 0.5 s");
    assert!(server.talk("hi").ends_with(" hello\n"));
    assert_eq!(server.wait(), End::Status(0));
}

fn a_storm_of_signals_ends_in_the_right_number_of_workers() {
    let server = Server::start("hello", &["-w", "3"]);
    for round in 0..200 {
        let signal = match round % 5 {
            0 | 1 => Signal::SIGTTIN,
            2 | 3 => Signal::SIGTTOU,
            _ => Signal::SIGUSR1,
        };
        server.signal(signal);
        // A pace: without it, the kernel would merge most of them.
        std::thread::sleep(Duration::from_millis(2));
    }
    // The kernel itself merges equal signals that a busy machine delivers late: each signal that arrived must
    // have had its effect.
    server.wait_until("settled", |server| {
        let heard = |name: &str| format!("Handling signal: {name}");
        let expected = server.log().lines().fold(3, |count: usize, line| {
            let more = usize::from(line.contains(&heard("ttin")));
            let fewer = usize::from(line.contains(&heard("ttou")));
            (count + more - fewer).max(1)
        });
        let serving = server.serving();
        serving.target == expected
            && serving.workers.len() == expected
            && server.workers().len() == expected
    });
    for _ in 0..200 {
        server.signal(Signal::SIGHUP);
    }
    server.wait_for("generation 2 serves");
    server.wait_until("one generation", |server| {
        server.status().generations.len() == 1 && server.workers().len() == 3
    });
    server.stop();
}

fn more_and_fewer_workers_by_signal_and_by_request() {
    let server = Server::start("hello", &[]);
    server.signal(Signal::SIGTTIN);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    assert!(server.ask(&Request::Scale { workers: 4 }).ok);
    server.wait_until("four workers", |server| server.workers().len() == 4);
    let youngest = *server.workers().last().unwrap();
    assert!(server.ask(&Request::Scale { workers: 1 }).ok);
    server.wait_until("one worker", |server| server.serving().workers.len() == 1);
    assert_eq!(server.workers(), [youngest], "the oldest go first");
    server.signal(Signal::SIGTTOU);
    assert!(!server.ask(&Request::Scale { workers: 0 }).ok);
    server.signal(Signal::SIGUSR1);
    server.wait_for("log files reopened");
    assert_eq!(server.workers(), [youngest], "there is always one");
    server.stop();
}

fn killing_the_arbiter_leaves_no_process() {
    let server = Server::start("hello", &["-w", "2"]);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let status = server.serving();
    let mold = status.mold.unwrap().pid;
    let workers = server.workers();
    let streams: Vec<_> = (0..4).map(|_| server.say("sleep")).collect();
    server.signal(Signal::SIGKILL);
    assert!(ends(mold) && workers.iter().all(|&pid| ends(pid)), "{}", server.log());
    for stream in streams {
        assert!(answer(stream).ends_with(" hello\n"), "what was accepted is answered");
    }
}

fn workers_survive_a_pause_of_the_arbiter() {
    let server = Server::start("hello", &["-w", "2", "--timeout", "1.2"]);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let workers = server.workers();
    let stop = |signal| {
        server.signal(signal);
        for &pid in &workers {
            kill(Pid::from_raw(pid as i32), signal).unwrap();
        }
    };
    // Each time longer than the timeout.
    let first = Pid::from_raw(workers[0] as i32);
    stop(Signal::SIGSTOP);
    assert!(!process::gone(first, Duration::from_millis(2500)), "{}", server.log());
    stop(Signal::SIGCONT);
    assert!(!process::gone(first, Duration::from_millis(1500)), "{}", server.log());
    assert_eq!(server.workers(), workers);
    server.stop();
}

fn an_idle_arbiter_sleeps() {
    let server = Server::start("hello", &["-w", "2"]);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let before = process::sleeps(server.pid());
    assert!(!process::gone(server.pid(), Duration::from_secs(3)), "it ended: {}", server.log());
    let woken = process::sleeps(server.pid()) - before;
    assert!(woken <= 3, "{woken} wake-ups in 3 s");
    server.stop();
}

fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bind = format!("unix:{}?mode=0600", path.display());
    let server = Server::start("hello", &["--bind", &bind]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut second = Server::spawn("hello", &["--bind", &bind]);
    assert_eq!(second.wait(), End::Status(1));
    second.wait_for("is in use by another process");
    UnixStream::connect(&path).unwrap().write_all(b"hi").unwrap();
    server.stop();
    assert!(!path.exists());
}

fn a_second_server_with_the_same_pid_file_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let flags = ["--pid", path.to_str().unwrap()];
    let server = Server::start("hello", &flags);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
    let mut second = Server::spawn("hello", &flags);
    assert_eq!(second.wait(), End::Status(1));
    second.wait_for("already running as process");
    server.stop();
    assert!(!path.exists());
}
