//! A running `host`: starting, readiness, output and exit.

mod control;
mod setup;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use crate::{
    http::{Address, Answer, Broken, Connection},
    launch::Launched,
    output::Output,
    process::{self, End},
    scene, wait,
};
pub use control::{Control, WorkerStatus};
pub use setup::{Setup, address, inherit};

/// Time limit for a server to become ready, to exit, or to do anything else without a specific limit.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills it with everything that it started; a failing test shows its log and keeps
/// its directory.
#[derive(Debug)]
pub struct Server {
    launched: Launched,
    addresses: Vec<Address>,
    dir: Option<TempDir>,
    /// Its standard error.
    pub log: Output,
    /// Its standard output.
    pub out: Output,
    notify: setup::Notify,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status or signal.
    pub end: End,
    /// All of its standard error.
    pub log: String,
    /// How long it ran.
    pub took: Duration,
}

impl Ended {
    /// Returns the exit status of a server that exited by itself.
    pub fn status(&self) -> i32 {
        match self.end {
            End::Status(status) => status,
            End::Signal(signal) => panic!("ended by {signal}:\n{}", self.log),
        }
    }
}

impl Server {
    /// Starts the command, without waiting.
    fn spawn(command: Command, setup: setup::Parts) -> Self {
        let launched = Launched::start(command);
        scene::own(launched.pid());
        Self {
            log: launched.log.clone(),
            out: launched.out.clone(),
            launched,
            addresses: setup.addresses,
            dir: Some(setup.dir),
            notify: setup.notify,
        }
    }

    /// Waits until the server reports that a worker is ready.
    fn until_ready(mut self) -> Self {
        if !self.notify.awaits("READY=1", PATIENCE, self.pid()) {
            let end = self.launched.wait(Duration::ZERO);
            panic!("the server is not ready after {:?} ({end:?})", self.launched.age());
        }
        self
    }

    /// Returns the arbiter.
    pub fn pid(&self) -> Pid {
        self.launched.pid()
    }

    /// Returns the directory of this server.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the directory is there until the server is dropped").path()
    }

    /// Returns the first address that it listens on.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// Returns all addresses, in the order of the setup.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Connects to a server that must be running.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.address()))
    }

    /// Connects as a client that reads slowly ([`Connection::open_narrow`]).
    pub fn connect_narrow(&self) -> Connection {
        Connection::open_narrow(self.address())
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.address()))
    }

    /// Sends one GET on a new connection.
    pub fn try_get(&self, target: &str) -> Result<Answer, Broken> {
        Connection::open(self.address()).map_err(Broken::Io)?.get(target)
    }

    /// Sends one GET on a new connection, and reads the response.
    pub fn get(&self, target: &str) -> Answer {
        self.try_get(target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// Returns the worker that serves a new connection.
    pub fn serving_pid(&self) -> Pid {
        pid_of(&self.get("/pid"))
    }

    /// Signals the arbiter.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for the next message of this kind that the server sends to its supervisor, `READY=1` for
    /// instance.
    pub fn notified(&self, message: &str) {
        assert!(self.notify.awaits(message, PATIENCE, self.pid()), "no {message} in {PATIENCE:?}");
    }

    /// Returns whether it has sent its supervisor a message with this line that was not awaited.
    pub fn has_notified(&self, line: &str) -> bool {
        self.notify.awaits(line, Duration::ZERO, self.pid())
    }

    /// Runs hostctl against this server.
    pub fn ctl(&self, arguments: &[&str]) -> Control {
        Control::run(&self.control_socket(), arguments)
    }

    /// Returns the path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir().join("control")
    }

    /// Returns the workers as shown by hostctl.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        control::workers(&self.ctl(&["status", "--json"]).done())
    }

    /// Waits until a worker serves a request for this target.
    pub fn until_held(&self, target: &str) {
        self.until_workers(&format!("a worker that holds {target}"), |workers| {
            workers.iter().any(|worker| worker.in_flight.iter().any(|held| held.contains(target)))
        });
    }

    /// Waits until exactly this number of workers is ready, and no others exist.
    pub fn until_ready_workers(&self, count: usize) -> Vec<Pid> {
        let workers = self.until_workers(&format!("{count} ready workers"), |workers| {
            workers.len() == count && workers.iter().all(|worker| worker.state == "ready")
        });
        workers.iter().map(|worker| worker.pid).collect()
    }

    /// Waits until the workers are as `wanted` says.
    ///
    /// The state of a worker has no event that a test could await, so hostctl is polled.
    pub fn until_workers(
        &self,
        what: &str,
        wanted: impl Fn(&[WorkerStatus]) -> bool,
    ) -> Vec<WorkerStatus> {
        wait::until(what, PATIENCE, || {
            let workers = self.workers();
            if wanted(&workers) { Ok(workers) } else { Err(format!("{workers:#?}")) }
        })
    }

    /// Waits for the arbiter's exit, whatever causes it.
    pub fn ended(&mut self, limit: Duration) -> Ended {
        let end = self.launched.wait(limit).unwrap_or_else(|| panic!("still runs after {limit:?}"));
        let took = self.launched.age();
        assert!(
            self.launched.group().empty(PATIENCE),
            "left running: {:?}",
            self.launched.group().members()
        );
        assert!(self.log.ended(PATIENCE), "a process still holds the log open");
        Ended { end, log: self.log.text(), took }
    }

    /// Stops it gracefully and waits until everything has exited; the status must be 0.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        let ended = self.ended(PATIENCE);
        assert_eq!(ended.end, End::Status(0), "the end after TERM");
        ended
    }

    /// Waits only for the arbiter's exit: what it started may keep running.
    pub fn leader_ended(&mut self, limit: Duration) -> End {
        self.launched.wait(limit).unwrap_or_else(|| panic!("still runs after {limit:?}"))
    }

    /// Returns the living processes of this server.
    pub fn processes(&self) -> Vec<Pid> {
        self.launched.group().members()
    }

    /// Waits until none of the server's processes is alive.
    pub fn all_gone(&self, limit: Duration) -> bool {
        self.launched.group().empty(limit)
    }

    /// Writes a file into the server's directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir().join(name), content).expect("the directory is writable");
    }

    /// Returns the children of the arbiter that are no workers: molds, and the status process where there is one.
    pub fn molds(&self) -> Vec<Pid> {
        let workers: Vec<Pid> = self.workers().iter().map(|worker| worker.pid).collect();
        let children = process::children(self.pid()).into_iter().map(|child| child.pid);
        children.filter(|pid| !workers.contains(pid)).collect()
    }

    /// Returns the arbiter that USR2 started: the child of the first one that has children itself.
    pub fn successor(&self) -> Pid {
        let children = process::children(self.pid());
        let found = children.iter().find(|child| !process::children(child.pid).is_empty());
        found.unwrap_or_else(|| panic!("no successor among {children:?}")).pid
    }

    /// Returns the time since its start.
    pub fn age(&self) -> Duration {
        self.launched.age()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.launched.destroy();
        if !thread::panicking() {
            return;
        }
        let dir = self.dir.take().map(TempDir::keep).unwrap_or_default();
        self.log.ended(Duration::from_secs(1));
        let (log, out) = (self.log.text(), self.out.text());
        for (name, text) in [("stderr", &log), ("stdout", &out)] {
            let _ = fs::write(dir.join(name), text);
        }
        let tail = &log[log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at)..];
        scene::explain(&format!(
            "--- {}\n--- directory kept: {}\n--- standard error:\n{tail}---",
            self.launched.command(),
            dir.display(),
        ));
    }
}

/// Parses the PID that `/pid` returns.
pub fn pid_of(answer: &Answer) -> Pid {
    assert_eq!(answer.status, 200);
    Pid::from_raw(answer.text().trim().parse().expect("/pid answers a number"))
}
