//! Scenarios: their table, and running one.
//!
//! | module | what it measures |
//! | --- | --- |
//! | `mod` | the table, the servers of a scenario, the rounds |
//! | `head` | the headers of requests |
//! | `load` | as many requests as possible |
//! | `idle` | idle kept-alive connections |
//! | `memory` | servers with several workers, and the activity of an idle one |
//! | `scrape` | metrics scraped during the load |
//! | `parse` | the parser compared to the library it is built on |
//! | `start` | from the start to the first response |

mod head;
mod idle;
mod load;
mod memory;
mod parse;
mod scrape;
mod start;
mod table;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use self::head::Head;
pub use self::table::{SCENARIOS, Scenario};
use crate::contender::{App, BIG_FILE, Contender, Serving, THREADS};
use crate::environment::Python;
use crate::machine;
use crate::result::{Measured, Row};
use crate::server::{Fault, Processors, Server};
use crate::setup::Setup;

/// A request of the clients.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// Target for each kind of application that does the same work.
    native: &'static str,
    python: &'static str,
    /// Number of body bytes.
    body: usize,
    head: Head,
}

/// Method of measuring.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As many requests as possible, over this number of connections.
    Load { connections: usize, keep_alive: bool },
    /// The same for each of these numbers of connections, which are open before it is measured.
    Connections { counts: &'static [usize] },
    /// The same with each request pausing for this number of milliseconds.
    Pauses { connections: usize, pause_ms: u64 },
    /// The same for each of these numbers of workers, which may use the processor of the load generator too.
    Workers { connections: usize, counts: &'static [usize] },
    /// As many requests as possible, with this number of them sent at a time on each connection.
    Pipelined { connections: usize, depth: usize },
    /// As many requests as possible, with wrk as the load generator.
    Wrk { connections: usize },
    /// As many echoed messages as possible, over this number of connections.
    WebSocket { connections: usize },
    /// This number of idle connections beside some busy ones.
    Idle { connections: usize },
    /// This number of workers, with the application loaded before they are forked.
    Memory { workers: usize },
    /// The time to the first response.
    Start,
    /// The parser only.
    Parse,
}

/// One contender with the application that it serves.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Contender.
    pub contender: Contender,
    /// Application.
    pub app: App,
    /// Interpreter of a Python application.
    pub python: Python,
    /// Number of connections, if the scenario has several.
    pub connections: Option<usize>,
    /// Number of workers, if the scenario has several.
    pub workers: Option<usize>,
}

impl Entry {
    /// Returns the name for the tables. Peers serve only one kind of application.
    pub fn name(self) -> String {
        let native = self.app == App::Native
            && matches!(
                self.contender,
                Contender::Jimu(_)
                    | Contender::OtherBuild(_)
                    | Contender::Threads(..)
                    | Contender::Metered(_)
            );
        let native = if native { ", native" } else { "" };
        let python = if self.python == Python::Debian { ON_DEBIAN } else { "" };
        let connections = counted(self.connections, "connection");
        let workers = counted(self.workers, "worker");
        format!("{}{native}{python}{connections}{workers}", self.contender.name())
    }
}

/// Returns the end of a name that tells a number from others.
fn counted(count: Option<usize>, unit: &str) -> String {
    match count {
        None => String::new(),
        Some(1) => format!(", 1 {unit}"),
        Some(count) if count < 1000 => format!(", {count} {unit}s"),
        Some(count) => format!(", {},{:03} {unit}s", count / 1000, count % 1000),
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Number of rounds per contender.
    pub rounds: usize,
    /// Approximate duration of a round.
    pub seconds: f64,
    /// Whether a profile of Jimu's classes is recorded in a further round.
    pub profile: bool,
}

/// Measures of a scenario, and profiles if they were to be recorded.
pub struct Results {
    /// The figures.
    pub measured: Measured,
    /// A profile of each of Jimu's classes, with the name of its row.
    pub profiles: Vec<(String, String)>,
}

/// Measures a scenario. Contenders that cannot take part are named in the result.
pub fn measure(scenario: &Scenario, setup: &Setup, effort: Effort) -> io::Result<Results> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join(BIG_FILE), vec![b'x'; 1 << 20])?;
    let profiles = RefCell::default();
    let stage = Stage { scenario, setup, effort, directory: directory.path(), profiles };
    let has_load = !matches!(
        scenario.kind,
        Kind::Idle { .. } | Kind::Memory { .. } | Kind::Start | Kind::Parse
    );
    if effort.profile && !has_load {
        eprintln!("{}: no profile: it measures no load", scenario.name);
    }
    let (rows, absent) = match scenario.kind {
        Kind::Load { .. }
        | Kind::Connections { .. }
        | Kind::Workers { .. }
        | Kind::Pipelined { .. }
        | Kind::Wrk { .. }
        | Kind::Pauses { .. }
        | Kind::WebSocket { .. } => load::measure(&stage),
        Kind::Idle { connections } => idle::measure(&stage, connections),
        Kind::Memory { .. } => memory::measure(&stage),
        Kind::Start => start::measure(&stage),
        Kind::Parse => parse::measure(&stage),
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() / 86_400;
    let load = machine::load();
    let measured = Measured { scenario: scenario.name.into(), day, load, rows, absent };
    Ok(Results { measured, profiles: stage.profiles.into_inner() })
}

/// State of measuring one scenario.
struct Stage<'a> {
    scenario: &'a Scenario,
    setup: &'a Setup,
    effort: Effort,
    directory: &'a Path,
    /// Profiles recorded so far.
    profiles: RefCell<Vec<(String, String)>>,
}

/// A running contender.
struct Runner {
    entry: Entry,
    server: Server,
    request: Vec<u8>,
    row: Row,
}

impl Runner {
    /// Does something with the server running, which stands still otherwise if it would use a processor all the time.
    fn awake<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        self.server.resume();
        let result = act(self);
        self.rest();
        result
    }

    fn rest(&self) {
        if self.entry.contender.spins_when_idle() {
            self.server.pause();
        }
    }
}

/// Rows, and one line for each contender without one.
type Outcome = (Vec<Row>, Vec<String>);

impl Stage<'_> {
    /// Contenders. Each class of the other build, if there is one, runs next to the same class of this one.
    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.scenario.entries().flat_map(|entry| {
            let other = entry.contender.of_other_build();
            let other = other.filter(|_| self.setup.has_other_build());
            let other = other.map(|contender| Entry { contender, ..entry });
            std::iter::once(entry).chain(other)
        })
    }

    /// Starts all contenders.
    fn start_all(&self) -> (Vec<Runner>, Vec<String>) {
        let mut runners = Vec::new();
        let mut absent = Vec::new();
        for entry in self.entries() {
            match self.start(entry) {
                Ok(server) => {
                    let request = self.request(entry, server.address);
                    let row = Row::new(entry.name(), entry.contender.role());
                    let runner = Runner { entry, server, request, row };
                    runner.rest();
                    runners.push(runner);
                }
                Err(why) => absent.push(self.absence(entry, &why)),
            }
        }
        (runners, absent)
    }

    /// Starts one contender and waits for its first response.
    fn start(&self, entry: Entry) -> Result<Server, String> {
        let (connections, keep_alive, workers) = match self.scenario.kind {
            Kind::Load { connections, keep_alive } => (connections, keep_alive, 1),
            Kind::Connections { .. } => (entry.connections.unwrap_or_default(), true, 1),
            Kind::Workers { connections, .. } => {
                (connections, true, entry.workers.unwrap_or_default())
            }
            Kind::Pauses { connections, .. }
            | Kind::Pipelined { connections, .. }
            | Kind::Wrk { connections }
            | Kind::WebSocket { connections } => (connections, true, 1),
            Kind::Idle { connections } => (connections + idle::BUSY, true, 1),
            Kind::Memory { workers } => (0, true, workers),
            Kind::Start | Kind::Parse => (0, true, 1),
        };
        let serving = Serving {
            app: entry.app,
            python: entry.python,
            keep_alive,
            workers,
            threads: THREADS,
            preload: matches!(self.scenario.kind, Kind::Memory { .. }),
            // Above what is used, so that no contender reaches its limit, and never below the default.
            connections: (connections + 100).max(1000),
            directory: self.directory,
        };
        // Any address shows whether it can be started at all.
        entry.contender.command(self.setup, serving, SocketAddr::from(([127, 0, 0, 1], 1)))?;
        let request = |address| self.request(entry, address);
        let command = |address| {
            let command = entry.contender.command(self.setup, serving, address);
            command.unwrap_or_else(|why| unreachable!("it could be made a moment ago: {why}"))
        };
        let processors = match self.scenario.kind {
            Kind::Workers { .. } => Processors::Both,
            _ => Processors::One,
        };
        Server::start(self.directory, processors, request, command)
            .map_err(|fault: Fault| fault.to_string())
    }

    /// Returns the request for this contender.
    fn request(&self, entry: Entry, address: SocketAddr) -> Vec<u8> {
        let Request { native, python, body, head } = self.scenario.request;
        let target = if entry.app == App::Native { native } else { python };
        let keep_alive = !matches!(self.scenario.kind, Kind::Load { keep_alive: false, .. });
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let (method, length) = match body {
            0 => ("GET", String::new()),
            bytes => ("POST", format!("Content-Length: {bytes}\r\n")),
        };
        let lines = head.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = lines.collect();
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\n{headers}{close}{length}\r\n"
        )
        .into_bytes();
        request.resize(request.len() + body, b'u');
        request
    }

    fn absence(&self, entry: Entry, why: &str) -> String {
        let line = format!("{}: {why}", entry.name());
        eprintln!("{}: left out: {line}", self.scenario.name);
        line
    }
}

/// End of the names of contenders that serve with Debian's interpreter.
pub const ON_DEBIAN: &str = ", Debian's python3";
