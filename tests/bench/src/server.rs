//! A server under measurement: a process group that is started, checked for a response, and stopped.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use support::process::Group;

use crate::{load, proc};

/// A server that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its program cannot be started.
    #[error("{program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// The error.
        error: io::Error,
    },
    /// It exited, or does not respond. Its output is in the file.
    #[error("it does not answer ({reason}); it wrote: {said}")]
    Silent {
        /// What happened instead of a response.
        reason: String,
        /// The end of its output.
        said: String,
    },
    /// The load could not be run.
    #[error("{0}")]
    Load(#[from] io::Error),
}

/// Which processors a server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processors {
    /// One, which the load generator does not use if there are two.
    One,
    /// That of the load generator too.
    Both,
}

/// A running server that responds.
pub struct Server {
    group: Group,
    /// Its address.
    pub address: SocketAddr,
    /// Time from its start to its first response.
    pub start: Duration,
}

impl Server {
    /// Starts the command that `command` creates for an address, with its output in a file of `directory`,
    /// and waits until it has responded to `request`.
    pub fn start(
        directory: &Path,
        processors: Processors,
        request: impl Fn(SocketAddr) -> Vec<u8>,
        command: impl FnOnce(SocketAddr) -> Command,
    ) -> Result<Self, Fault> {
        let address = free_address()?;
        let mut command = command(address);
        let output = directory.join(format!("server-{}.log", address.port()));
        let file = File::create(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let begun = Instant::now();
        let spawned = on_processors(processors, || command.spawn());
        let child = spawned.map_err(|error| Fault::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            error,
        })?;
        let group = Group::new(Pid::from_raw(child.id() as i32));
        let mut server = Self { group, address, start: Duration::ZERO };
        server.await_answer(&request(address), &output)?;
        server.start = begun.elapsed();
        Ok(server)
    }

    /// Returns its processes at this time.
    pub fn pids(&self) -> Vec<u32> {
        proc::tree(self.leader())
    }

    /// Stops its processes until [`Server::resume`].
    pub fn pause(&self) {
        // It has ended: the next request to it fails.
        let _ = killpg(self.group.leader(), Signal::SIGSTOP);
    }

    /// Lets its processes continue.
    pub fn resume(&self) {
        // See above.
        let _ = killpg(self.group.leader(), Signal::SIGCONT);
    }

    /// Returns its first process.
    pub fn leader(&self) -> u32 {
        self.group.leader().as_raw() as u32
    }

    fn await_answer(&mut self, request: &[u8], output: &Path) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let error = match load::ask(self.address, request) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.group.wait(Duration::ZERO);
            if ended.is_some() || begun.elapsed() > START_MAX {
                let said = std::fs::read_to_string(output).unwrap_or_default();
                let reason = ended.map_or(error.to_string(), |end| format!("it ended: {end:?}"));
                return Err(Fault::Silent { reason, said: last_lines(&said) });
            }
            // There is no event that all servers have in common.
            thread::sleep(START_PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(self.group.leader(), Signal::SIGTERM);
        self.resume();
        self.group.wait(STOP_MAX);
    }
}

/// Pins this thread, which generates the load, to a processor that no server uses unless it may use both,
/// if there are two.
pub fn settle() {
    pin(&[LOAD_PROCESSOR]);
}

/// Runs `act` with this thread pinned to these processors, which the processes it starts inherit.
fn on_processors<T>(processors: Processors, act: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(Pid::from_raw(0));
    match processors {
        Processors::One => pin(&[SERVER_PROCESSOR]),
        Processors::Both => pin(&[SERVER_PROCESSOR, LOAD_PROCESSOR]),
    }
    let result = act();
    if let Ok(before) = before {
        let _ = sched_setaffinity(Pid::from_raw(0), &before);
    }
    result
}

fn pin(processors: &[usize]) {
    let mut set = CpuSet::new();
    if processors.iter().all(|processor| set.set(*processor).is_ok()) {
        // A machine with one processor refuses the second, and is measured as it is.
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

const SERVER_PROCESSOR: usize = 0;
const LOAD_PROCESSOR: usize = 1;
/// The slowest start is that of Django with preloading.
const START_MAX: Duration = Duration::from_secs(40);
/// Short, because it is the resolution of the start-up times.
const START_PAUSE: Duration = Duration::from_micros(500);
const STOP_MAX: Duration = Duration::from_secs(5);
