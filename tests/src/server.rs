//! One running `host`: how it is started and becomes ready, what it says, and how it ends.

mod control;
mod setup;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use crate::{
    http::{Address, Answer, Broken, Connection},
    output::Output,
    process::{self, End, Group},
    runner, wait,
};
pub use control::{Control, WorkerStatus};
pub use setup::{Setup, address, inherit};

/// How long a server may take to become ready, to end, or to do anything else that has no limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Dropped, it and everything that it started is gone; in a failing test its log is shown and its
/// directory kept.
#[derive(Debug)]
pub struct Server {
    group: Group,
    addresses: Vec<Address>,
    dir: Option<TempDir>,
    /// What it writes to standard error.
    pub log: Output,
    /// What it writes to standard output.
    pub out: Output,
    notify: setup::Notify,
    command: String,
    started: Instant,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status or signal.
    pub end: End,
    /// All that it wrote to standard error.
    pub log: String,
    /// How long it ran.
    pub took: Duration,
}

impl Ended {
    /// The exit status of a server that ended by itself.
    pub fn status(&self) -> i32 {
        match self.end {
            End::Status(status) => status,
            End::Signal(signal) => panic!("ended by {signal}:\n{}", self.log),
        }
    }
}

impl Server {
    // `Group` waits for the process: by its number, as for the others that the server leaves to us.
    #[allow(clippy::zombie_processes)]
    /// Starts the command, in a process group of its own, without waiting for anything.
    fn spawn(mut command: Command, setup: setup::Parts) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let leader = Pid::from_raw(child.id() as i32);
        runner::own(leader);
        Self {
            group: Group::new(leader),
            addresses: setup.addresses,
            dir: Some(setup.dir),
            log: Output::of(child.stderr.take().expect("stderr is piped")),
            out: Output::of(child.stdout.take().expect("stdout is piped")),
            notify: setup.notify,
            command: shown,
            started: Instant::now(),
        }
    }

    /// Waits until the server says that a worker can serve.
    fn until_ready(mut self) -> Self {
        if !self.notify.awaits("READY=1", PATIENCE, self.pid()) {
            let end = self.group.wait(Duration::ZERO);
            panic!("the server is not ready after {:?} ({end:?})", self.started.elapsed());
        }
        self
    }

    /// The arbiter.
    pub fn pid(&self) -> Pid {
        self.group.leader()
    }

    /// The directory that belongs to this server.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the directory is there until the server is dropped").path()
    }

    /// The first address that it listens on.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// All addresses, in the order of the setup.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Connects, to a server that must be there.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.address()))
    }

    /// One GET on a connection of its own.
    pub fn try_get(&self, target: &str) -> Result<Answer, Broken> {
        Connection::open(self.address()).map_err(Broken::Io)?.get(target)
    }

    /// One GET on a connection of its own, answered.
    pub fn get(&self, target: &str) -> Answer {
        self.try_get(target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// The worker that answers a new connection.
    pub fn serving_pid(&self) -> Pid {
        pid_of(&self.get("/pid"))
    }

    /// Signals the arbiter.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for the next message of the given kind that the server sends to its supervisor, `READY=1` for instance.
    pub fn notified(&self, message: &str) {
        assert!(self.notify.awaits(message, PATIENCE, self.pid()), "no {message} in {PATIENCE:?}");
    }

    /// Whether it has sent its supervisor a message with this line that nobody has waited for.
    pub fn has_notified(&self, line: &str) -> bool {
        self.notify.awaits(line, Duration::ZERO, self.pid())
    }

    /// Runs hostctl against this server.
    pub fn ctl(&self, arguments: &[&str]) -> Control {
        Control::run(&self.control_socket(), arguments)
    }

    /// The path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir().join("control")
    }

    /// The workers as hostctl shows them.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        control::workers(&self.ctl(&["status", "--json"]).done())
    }

    /// Waits until a worker holds a request for this target.
    pub fn until_held(&self, target: &str) {
        self.until_workers(&format!("a worker that holds {target}"), |workers| {
            workers.iter().any(|worker| worker.in_flight.iter().any(|held| held.contains(target)))
        });
    }

    /// Waits until exactly so many workers are ready, and no others are there.
    pub fn until_ready_workers(&self, count: usize) -> Vec<Pid> {
        let workers = self.until_workers(&format!("{count} ready workers"), |workers| {
            workers.len() == count && workers.iter().all(|worker| worker.state == "ready")
        });
        workers.iter().map(|worker| worker.pid).collect()
    }

    /// Waits until the workers are as `wanted` says.
    ///
    /// The state of a worker has no event that a test could wait for, so hostctl is asked again and again.
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

    /// Waits for the arbiter's end, whatever causes it.
    pub fn ended(&mut self, limit: Duration) -> Ended {
        let end = self.group.wait(limit).unwrap_or_else(|| panic!("still runs after {limit:?}"));
        let took = self.started.elapsed();
        assert!(self.group.empty(PATIENCE), "left running: {:?}", self.group.members());
        assert!(self.log.ended(PATIENCE), "somebody holds the log open");
        Ended { end, log: self.log.text(), took }
    }

    /// Asks for a graceful end and waits until everything is gone; the status must be 0.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        let ended = self.ended(PATIENCE);
        assert_eq!(ended.end, End::Status(0), "the end after TERM");
        ended
    }

    /// Waits for the arbiter's end alone: what it started may go on.
    pub fn leader_ended(&mut self, limit: Duration) -> End {
        self.group.wait(limit).unwrap_or_else(|| panic!("still runs after {limit:?}"))
    }

    /// The processes of this server that are alive.
    pub fn processes(&self) -> Vec<Pid> {
        self.group.members()
    }

    /// Waits until none of the server's processes is alive.
    pub fn all_gone(&self, limit: Duration) -> bool {
        self.group.empty(limit)
    }

    /// Writes a file into the server's directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir().join(name), content).expect("the directory is writable");
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.group.destroy();
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
        runner::explain(&format!(
            "--- {}\n--- directory kept: {}\n--- standard error:\n{tail}---",
            self.command,
            dir.display(),
        ));
    }
}

/// The process number that `/pid` answers.
pub fn pid_of(answer: &Answer) -> Pid {
    assert_eq!(answer.status, 200);
    Pid::from_raw(answer.text().trim().parse().expect("/pid answers a number"))
}
