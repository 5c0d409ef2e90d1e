//! hostctl, run as a user would.

use std::{
    path::Path,
    process::{Command, Output},
};

use nix::unistd::Pid;
use serde_json::Value;

use crate::artifacts;

/// Output of hostctl.
#[derive(Debug)]
pub struct Control {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A worker as shown by `hostctl status --json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Process ID.
    pub pid: Pid,
    /// State: `ready`, `busy`, `draining`, …
    pub state: String,
    /// Number of requests served.
    pub requests: u64,
    /// Number of open connections that carry another protocol.
    pub upgraded: u64,
    /// Number of WebSocket messages received.
    pub messages_received: u64,
    /// Number of WebSocket messages sent.
    pub messages_sent: u64,
    /// Number of requests in progress.
    pub busy: u64,
    /// Requests in progress: method and target.
    pub in_flight: Vec<String>,
    /// Generation it belongs to.
    pub generation: u64,
    /// State of the generation: `booting`, `serving`, `retiring`.
    pub generation_state: String,
}

impl Control {
    pub(super) fn run(socket: &Path, arguments: &[&str]) -> Self {
        Self::of(Command::new(artifacts::executable("hostctl")), socket, arguments)
    }

    /// Runs hostctl in a directory.
    pub fn run_in(directory: &Path, socket: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(artifacts::executable("hostctl"));
        command.current_dir(directory);
        Self::of(command, socket, arguments)
    }

    fn of(mut command: Command, socket: &Path, arguments: &[&str]) -> Self {
        let output = command.arg("--socket").arg(socket).args(arguments).output();
        let Output { status, stdout, stderr } = output.expect("hostctl can be started");
        Self {
            status: status.code().expect("hostctl ends by itself"),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Returns the output of a command that must have succeeded.
    pub fn done(self) -> String {
        assert_eq!(self.status, 0, "hostctl failed: {}{}", self.out, self.err);
        self.out
    }

    /// Returns the message of a command that must have been refused.
    pub fn refused(self) -> String {
        assert_ne!(self.status, 0, "hostctl succeeded: {}{}", self.out, self.err);
        assert!(!self.err.trim().is_empty(), "hostctl gave no reason");
        self.err
    }
}

/// Returns all workers in the status, of all generations.
pub(super) fn workers(json: &str) -> Vec<WorkerStatus> {
    let text = |value: &Value| value.as_str().map(str::to_owned).expect("a text in the status");
    let status: Value = serde_json::from_str(json).expect("hostctl status --json prints JSON");
    let generations = status["status"]["generations"].as_array().expect("status has generations");
    generations
        .iter()
        .flat_map(|generation| {
            let id = number(&generation["id"]);
            let stage = text(&generation["state"]);
            let workers = generation["workers"].as_array().expect("a generation has workers");
            workers.iter().map(move |worker| WorkerStatus {
                pid: Pid::from_raw(number(&worker["pid"]) as i32),
                state: text(&worker["state"]),
                requests: number(&worker["requests"]),
                upgraded: number(&worker["upgraded"]),
                messages_received: number(&worker["messages_received"]),
                messages_sent: number(&worker["messages_sent"]),
                busy: number(&worker["busy"]),
                in_flight: worker["in_flight"]
                    .as_array()
                    .map_or_else(Vec::new, |requests| requests.iter().map(text).collect()),
                generation: id,
                generation_state: stage.clone(),
            })
        })
        .collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number in the status: {value}"))
}
