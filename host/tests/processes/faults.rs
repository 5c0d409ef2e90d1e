//! Faults of plugins and workers, and their effects on the server.

use host::control::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::process::End;

use crate::Test;
use crate::server::{Server, answer};

pub(crate) const TESTS: &[Test] = &tests![
    a_failed_load_or_boot_ends_the_start_with_the_reason,
    a_failed_load_or_boot_keeps_the_old_generation,
    a_worker_that_dies_is_replaced_and_logged_once,
    a_worker_stopped_by_another_process_is_logged_with_the_sender,
    a_worker_without_a_heartbeat_is_aborted_and_its_request_logged,
    a_stopped_worker_is_killed_eventually,
    a_retiring_worker_serves_until_its_replacement_does,
    a_dead_mold_is_replaced_when_a_worker_is_needed,
    the_control_socket_tolerates_invalid_requests,
];

/// A fault at start, the exit status, and its words in the log.
const REFUSALS: &[(&str, i32, &str)] = &[
    ("load-refuse", 4, "no such module: nosuch"),
    ("load-panic", 78, "panicked while loading: at the disco"),
    ("load-exit-0", 78, "failed: the mold exited with status 0"),
    ("load-exit-3", 78, "failed: the mold exited with status 3"),
    ("load-abort", 78, "failed: the mold was killed by SIGABRT"),
    ("load-hang", 78, "loading did not finish within 0.5 s"),
    ("load-close", 78, "the mold closed its connection to the arbiter"),
    ("boot-refuse", 3, "the worker does not like it"),
    ("boot-panic", 3, "exited with status 70: panicked: at the boot before it was ready"),
    ("boot-hang", 3, "it was not ready within 0.5 s"),
];

fn a_failed_load_or_boot_ends_the_start_with_the_reason() {
    for (behaviour, status, reason) in REFUSALS {
        let flags = ["-w", "2", "--boot-timeout", "0.5", "--boot-failures-max", "3"];
        let mut server = Server::spawn(behaviour, &flags);
        assert_eq!(server.wait(), End::Status(*status), "{behaviour}: {}", server.log());
        server.wait_for(reason);
        assert_eq!(server.count("Server is ready"), 0);
    }
}

fn a_failed_load_or_boot_keeps_the_old_generation() {
    for workers in ["1", "4"] {
        let server = Server::start("hello", &["-w", workers, "--boot-timeout", "0.5"]);
        let count: usize = workers.parse().unwrap();
        server.wait_until("all workers", |server| server.workers().len() == count);
        let before = server.workers();
        for (behaviour, _, reason) in REFUSALS {
            server.behave(behaviour);
            let response = server.reload();
            let error = response.error.unwrap_or_default();
            assert!(!response.ok && error.contains(reason), "{behaviour}: {error:?}");
            assert_eq!(server.workers(), before, "{behaviour}");
            assert!(server.talk("hi").ends_with(" hello\n"));
        }
        server.stop();
    }
}

fn a_worker_that_dies_is_replaced_and_logged_once() {
    let deaths = [
        ("exit 3", "exited with status 3"),
        ("abort", "was killed by SIGABRT (SIGABRT from itself)"),
        ("panic", "exited with status 70: panicked: in the request"),
    ];
    let server = Server::start("hello", &[]);
    for (word, story) in deaths {
        let before = server.workers();
        assert_eq!(server.talk(word), "");
        server.wait_for(story);
        server.wait_until("replaced", |server| {
            let workers = server.workers();
            workers.len() == 1 && workers != before
        });
        assert!(server.talk("hi").ends_with(" hello\n"));
        assert_eq!(server.count(story), 1);
    }
    let victim = server.workers()[0];
    kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
    let line = server.wait_for("was killed by SIGKILL");
    assert!(line.contains(&format!("(pid: {victim}) was killed by SIGKILL")), "{line}");
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}

fn a_worker_stopped_by_another_process_is_logged_with_the_sender() {
    let server = Server::start("hello", &[]);
    let victim = server.workers()[0];
    kill(Pid::from_raw(victim as i32), Signal::SIGTERM).unwrap();
    let line = server.wait_for("Worker exiting");
    let sender = format!("(SIGTERM from process {}", std::process::id());
    assert!(line.contains(&sender), "{line}");
    server.wait_until("replaced", |server| server.workers().len() == 1);
    server.stop();
}

fn a_worker_without_a_heartbeat_is_aborted_and_its_request_logged() {
    let server = Server::start("hello", &["--timeout", "1.5"]);
    let stream = server.say("hang");
    let line = server.wait_for("killed by the arbiter: no heartbeat for 1.");
    assert!(line.contains("busy with hang for 1."), "{line}");
    assert_eq!(answer(stream), "");
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}

fn a_stopped_worker_is_killed_eventually() {
    let server = Server::start("hello", &["--timeout", "1"]);
    let victim = server.workers()[0];
    kill(Pid::from_raw(victim as i32), Signal::SIGSTOP).unwrap();
    server.wait_for("killed by the arbiter: no heartbeat");
    server.wait_until("replaced", |server| server.workers().len() == 1);
    server.stop();
}

fn a_retiring_worker_serves_until_its_replacement_does() {
    let server = Server::start("retire", &[]);
    let first = server.workers()[0];
    for _ in 0..20 {
        assert!(server.talk("hi").ends_with(" retire\n"));
    }
    server.wait_until("replaced", |server| server.workers().first() != Some(&first));
    assert!(server.count("): it has served 5 connections") >= 1);
    let log = server.stop();
    let asked = log.find("replacing worker").unwrap();
    let booted = log[asked..].find("Booted worker").unwrap();
    let ended = log[asked..].find("Worker exiting").unwrap();
    assert!(booted < ended, "{log}");
}

fn a_dead_mold_is_replaced_when_a_worker_is_needed() {
    let server = Server::start("hello", &[]);
    let mold = server.serving().mold.unwrap().pid;
    kill(Pid::from_raw(mold as i32), Signal::SIGKILL).unwrap();
    server.wait_for("another one is started when needed");
    assert!(server.talk("hi").ends_with(" hello\n"));
    assert!(server.ask(&Request::Scale { workers: 2 }).ok);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    assert_ne!(server.serving().mold.unwrap().pid, mold);
    server.stop();
}

fn the_control_socket_tolerates_invalid_requests() {
    use std::io::{Read as _, Write as _};
    let server = Server::start("hello", &[]);
    let path = server.directory().join("control");
    let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let idle: Vec<_> = (0..10).map(|_| connect()).collect();
    let mut stream = connect();
    stream.write_all(b"nonsense\n{\"request\":\"status\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(answers[0].starts_with(r#"{"ok":false,"error":"invalid request:"#), "{answers:?}");
    assert!(answers[1].starts_with(r#"{"ok":true,"status":"#), "{answers:?}");
    let mut endless = connect();
    let _ = endless.write_all(&vec![b'x'; 64 * 1024]);
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    drop(idle);
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}
