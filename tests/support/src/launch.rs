//! A command that runs until the test ends it: its process group and its output.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use crate::{
    output::Output,
    process::{End, Group},
};

/// A running command. Dropping it kills it with everything that it started.
#[derive(Debug)]
pub struct Launched {
    group: Group,
    /// Its standard error.
    pub log: Output,
    /// Its standard output.
    pub out: Output,
    command: String,
    started: Instant,
}

impl Launched {
    // `Group` waits for the process: by its PID, as for the orphans that it leaves.
    #[allow(clippy::zombie_processes)]
    /// Starts the command in a separate process group, without waiting.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let shown = format!("{command:?}");
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Self {
            group: Group::new(Pid::from_raw(child.id() as i32)),
            log: Output::of(child.stderr.take().expect("stderr is piped")),
            out: Output::of(child.stdout.take().expect("stdout is piped")),
            command: shown,
            started,
        }
    }

    /// Returns the first process.
    pub fn pid(&self) -> Pid {
        self.group.leader()
    }

    /// Returns the process group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Returns the command, for messages.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the time since its start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the first process to exit.
    pub fn wait(&mut self, limit: Duration) -> Option<End> {
        self.group.wait(limit)
    }

    /// Kills every process of the group.
    pub fn destroy(&mut self) {
        self.group.destroy();
    }
}
