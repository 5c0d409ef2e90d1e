//! USR2: a second arbiter beside the first.

use std::net::TcpListener;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::process::End;

use crate::Test;
use crate::server::{Server, ends};

pub(crate) const TESTS: &[Test] = &tests![
    another_arbiter_takes_over_and_the_pid_file_follows,
    an_upgrade_can_be_taken_back,
    a_successor_that_cannot_start_changes_nothing,
];

fn pid_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn another_arbiter_takes_over_and_the_pid_file_follows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let second = directory.path().join("pid.2");
    let mut server = Server::start("hello", &["--pid", path.to_str().unwrap()]);
    server.signal(Signal::SIGUSR2);
    server.wait_for_nth("Server is ready", 2);
    let new = pid_in(&second).unwrap();
    assert_eq!(pid_in(&path), Some(server.pid().as_raw() as u32));
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), End::Status(0));
    server.wait_for("upgrade complete");
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.wait_until("renamed", |_| pid_in(&path) == Some(new) && !second.exists());
    assert_eq!(server.status().pid, new, "the control socket is the new arbiter's");
    kill(Pid::from_raw(new as i32), Signal::SIGTERM).unwrap();
    assert!(ends(new), "{}", server.log());
    assert!(!path.exists());
}

fn an_upgrade_can_be_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = ["--pid", path.to_str().unwrap(), "--metrics-bind", &metrics];
    let server = Server::start("hello", &flags);
    server.wait_for("Metrics at: http://");
    server.signal(Signal::SIGUSR2);
    server.wait_for_nth("Server is ready", 2);
    let new = pid_in(&directory.path().join("pid.2")).unwrap();
    server.signal(Signal::SIGWINCH);
    server.wait_for("Worker exiting");
    server.wait_for_nth("Metrics at: http://", 2);
    assert!(server.talk("hi").ends_with(" hello\n"));
    kill(Pid::from_raw(new as i32), Signal::SIGTERM).unwrap();
    server.wait_for("this one continues");
    server.wait_for_nth("Metrics at: http://", 3);
    assert!(server.talk("hi").ends_with(" hello\n"));
    assert_eq!(server.status().pid, server.pid().as_raw() as u32);
    assert_eq!(pid_in(&path), Some(server.pid().as_raw() as u32));
    server.stop();
}

fn a_successor_that_cannot_start_changes_nothing() {
    let server = Server::start("hello", &[]);
    let before = server.workers();
    server.behave("load-exit-3");
    server.signal(Signal::SIGUSR2);
    server.wait_for("the new arbiter exited with status 78; this one continues");
    assert_eq!(server.workers(), before);
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}
