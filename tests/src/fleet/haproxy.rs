//! HAProxy with the recipe as it is.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    network::{NAMES, Network},
    proxy::Proxy,
    recipe::Recipe,
};
use crate::{tools::works, wait};

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    proxy: Proxy,
    directory: TempDir,
}

/// What HAProxy does with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sends requests.
    Up,
    /// Sends no new requests.
    Draining,
    /// Takes it for dead.
    Down,
}

impl Haproxy {
    /// Returns whether this machine has it.
    pub fn is_present() -> bool {
        works("haproxy", &["-v"])
    }

    /// Starts it, and waits until it accepts connections and commands.
    pub fn start(network: &Network, recipe: &Recipe) -> Self {
        let directory = TempDir::with_prefix("jimu-haproxy-").unwrap();
        let socket = directory.path().join("admin");
        let global = directory.path().join("global.cfg");
        let text = format!("global\n    stats socket {} mode 600 level admin\n", socket.display());
        std::fs::write(&global, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&global).arg("-f").arg(&recipe.path);
        let proxy = Proxy::start(network, command);
        wait::until("HAProxy accepts commands", PATIENCE, || UnixStream::connect(&socket));
        Self { proxy, directory }
    }

    /// Stops health checks of a host, so that only the agent check is left.
    pub fn disable_health_checks(&self, host: usize) {
        self.command(&format!("disable health app/{}", NAMES[host]));
    }

    /// Stops agent checks of a host, so that only the health check is left.
    pub fn disable_agent_checks(&self, host: usize) {
        self.command(&format!("disable agent app/{}", NAMES[host]));
    }

    /// Waits until HAProxy is in this state for a host. There is no event for all of them.
    pub fn until(&self, host: usize, state: State) {
        let what = format!("{} is {state:?}", NAMES[host]);
        wait::until(&what, PATIENCE, || {
            let (found, line) = self.state(host);
            if found == Some(state) { Ok(()) } else { Err(line) }
        });
    }

    /// Returns how often HAProxy has taken a host for dead.
    pub fn deaths(&self) -> usize {
        self.proxy.log().count(" is DOWN")
    }

    /// Returns the number of requests that HAProxy has sent to a host, or tried to.
    pub fn requests(&self, host: usize) -> u64 {
        let line = self.statistics(host);
        line.split(',').nth(SESSIONS).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Returns the state of a host, and the line of the statistics that has it.
    fn state(&self, host: usize) -> (Option<State>, String) {
        let line = self.statistics(host);
        let fields: Vec<&str> = line.split(',').collect();
        let state = match (fields[STATUS], fields[WEIGHT]) {
            (status, _) if status.starts_with("DOWN") => Some(State::Down),
            (_, "0") => Some(State::Draining),
            ("UP" | "no check", _) => Some(State::Up),
            // On the way to another state: `UP 1/2`.
            _ => None,
        };
        (state, line)
    }

    fn statistics(&self, host: usize) -> String {
        let all = self.command("show stat");
        let start = format!("app,{},", NAMES[host]);
        let line = all.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no {start} in {all}")).to_owned()
    }

    fn command(&self, line: &str) -> String {
        let path: PathBuf = self.directory.path().join("admin");
        let mut stream = UnixStream::connect(path).expect("HAProxy's socket accepts");
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Places in a line of `show stat`.
const SESSIONS: usize = 7;
const STATUS: usize = 17;
const WEIGHT: usize = 18;
/// Longer than the checks of the recipe take to notice anything.
const PATIENCE: Duration = Duration::from_secs(20);
