//! Molds and workers that forge their identity and write wherever they can.

use std::process::{Child, Command};

use host::control::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::server::{Server, lives};

pub(crate) const TESTS: &[Test] = &tests![
    a_mold_that_names_a_foreign_process_cannot_signal_it,
    a_worker_that_writes_everywhere_affects_no_other,
    a_worker_cannot_give_another_one_a_heartbeat,
];

/// A process that is unrelated to the server.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn lives(&self) -> bool {
        lives(self.0.id())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reloads, kills and stops: every operation that sends signals to workers.
fn exercise(server: Server, victim: &Victim) {
    assert!(server.reload().ok, "{}", server.log());
    assert!(victim.lives());
    assert!(!server.ask(&Request::KillWorker { pid: victim.0.id() }).ok);
    server.wait_until("all workers", |server| server.workers().len() == 2);
    let worker = server.workers()[0];
    kill(Pid::from_raw(i32::try_from(worker).unwrap()), Signal::SIGKILL).unwrap();
    server.wait_until("replaced", |server| {
        let workers = server.workers();
        workers.len() == 2 && !workers.contains(&worker)
    });
    server.behave("hello");
    assert!(server.reload().ok, "{}", server.log());
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
    assert!(victim.lives());
}

fn a_mold_that_names_a_foreign_process_cannot_signal_it() {
    let victim = Victim::start();
    let behaviour = format!("forge-mold {}", victim.0.id());
    exercise(Server::start(&behaviour, &["-w", "2"]), &victim);
}

fn a_worker_that_writes_everywhere_affects_no_other() {
    let victim = Victim::start();
    let behaviour = format!("forge-worker {}", victim.0.id());
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let flags = ["-w", "2", "--timeout", "60", "--access-logfile", log.to_str().unwrap()];
    let server = Server::start(&behaviour, &flags);
    // Each of the two workers does.
    let line = server.wait_for_nth("scribbled over", 2);
    assert!(line.contains("scribbled over 1 slots and 0 other mappings"), "{line}");
    let forger = server.workers()[0];
    kill(Pid::from_raw(i32::try_from(forger).unwrap()), Signal::SIGKILL).unwrap();
    server.wait_until("replaced", |server| {
        let workers = server.workers();
        workers.len() == 2 && !workers.contains(&forger)
    });
    // The access lines that it left are cut to the memory, and to complete lines.
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.ends_with('\n') && text.len() < 1 << 16, "{} bytes", text.len());
    assert!(text.lines().all(|line| line == "forged."), "{text}");
    exercise(server, &victim);
}

fn a_worker_cannot_give_another_one_a_heartbeat() {
    let server = Server::start("forge-heartbeat", &["-w", "2", "--timeout", "1"]);
    let line = server.wait_for("forges heartbeats");
    let forger = server.workers().into_iter().find(|pid| line.contains(&pid.to_string())).unwrap();
    server.wait_until("all workers", |server| server.workers().len() == 2);
    let victim = server.workers().into_iter().find(|pid| *pid != forger).unwrap();
    kill(Pid::from_raw(i32::try_from(victim).unwrap()), Signal::SIGSTOP).unwrap();
    let line = server.wait_for("killed by the arbiter: no heartbeat");
    assert!(line.contains(&victim.to_string()), "{line}");
    server.wait_until("replaced", |server| server.workers().len() == 2);
    assert!(server.workers().contains(&forger), "it lives by its own heartbeat");
    server.stop();
}
