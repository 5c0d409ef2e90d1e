//! Molds and workers that lie about who they are, and write wherever they can.

use std::process::{Child, Command};

use host::control::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::server::{Server, lives};

pub(crate) const TESTS: &[Test] = &tests![
    a_mold_that_names_a_foreign_process_reaches_no_other,
    a_worker_that_writes_everywhere_reaches_no_other,
];

/// A process that has nothing to do with the server.
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

/// Reloads, kills, stops: everything that sends signals to workers.
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

fn a_mold_that_names_a_foreign_process_reaches_no_other() {
    let victim = Victim::start();
    let behaviour = format!("forge-mold {}", victim.0.id());
    exercise(Server::start(&behaviour, &["-w", "2"]), &victim);
}

fn a_worker_that_writes_everywhere_reaches_no_other() {
    let victim = Victim::start();
    let behaviour = format!("forge-worker {}", victim.0.id());
    let server = Server::start(&behaviour, &["-w", "2", "--timeout", "60"]);
    assert!(server.wait_for("scribbled over").contains("scribbled over 1 slots"), "its own alone");
    exercise(server, &victim);
}
