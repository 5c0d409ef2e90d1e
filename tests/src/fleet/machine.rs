//! A host of a fleet: its network, its directory, and the server that runs on it.
//!
//! ```text
//!     releases/1/{host,shop-1.so}   releases/2/{host,shop-2.so}
//!     one/host       link to the `host` of a release
//!     one/host.toml  names the application of a release
//! ```

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    network::{NAMES, Network, address},
    recipe::Recipe,
};
use crate::{
    artifacts, executable,
    http::{Address, Answer},
    network::Namespace,
    process,
    server::{Server, Setup, pid_of},
};

/// A release of the server and of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The one that a fleet starts with.
    First = 1,
    /// The next one.
    Second = 2,
}

/// A host. Its server stops when it is dropped.
#[derive(Debug)]
pub struct Machine {
    number: usize,
    namespace: Namespace,
    releases: PathBuf,
    directory: PathBuf,
    flags: Vec<String>,
    server: Server,
}

/// Where a response comes from, as shown by the process that sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Process group: that of the host's server.
    pub group: Pid,
    /// Executable.
    pub program: PathBuf,
    /// Names of the libraries that are loaded.
    pub libraries: Vec<String>,
}

impl Release {
    /// Copies the executables and libraries of both releases.
    pub fn install(releases: &Path) {
        for release in [Self::First, Self::Second] {
            fs::create_dir_all(release.file(releases, "")).unwrap();
            executable::copy(artifacts::executable("host"), release.program(releases));
            fs::copy(artifacts::library("hello_app"), release.app(releases)).unwrap();
        }
    }

    fn file(self, releases: &Path, name: &str) -> PathBuf {
        releases.join((self as u32).to_string()).join(name)
    }

    /// Returns its executable of the server.
    pub fn program(self, releases: &Path) -> PathBuf {
        self.file(releases, "host")
    }

    /// Returns its application.
    pub fn app(self, releases: &Path) -> PathBuf {
        self.file(releases, &self.app_name())
    }

    fn app_name(self) -> String {
        format!("shop-{}.so", self as u32)
    }
}

impl Machine {
    /// Starts the first release on a host, with the flags of the recipe. `releases` contains what [`Release::install`] has
    /// copied.
    pub fn start(number: usize, network: &Network, recipe: &Recipe, releases: &Path) -> Self {
        let directory = releases.with_file_name(NAMES[number]);
        fs::create_dir_all(&directory).unwrap();
        let (namespace, flags) = (network.host(number).clone(), recipe.flags());
        put(&directory, Release::First.program(releases), &Release::First.app(releases));
        let server = boot(number, &namespace, &directory, &flags);
        Self { number, namespace, releases: releases.to_owned(), directory, flags, server }
    }

    /// Returns its server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the number of requests that its workers have served.
    pub fn requests(&self) -> u64 {
        self.server.workers().iter().map(|worker| worker.requests).sum()
    }

    /// Upgrades the executable: USR2, and TERM to the old arbiter when the new one is ready.
    pub fn upgrade_program(&self, release: Release) {
        link(&self.directory, release.program(&self.releases));
        let mark = self.server.log.mark();
        let old = self.arbiter();
        process::signal(old, Signal::SIGUSR2);
        self.server.log.line_after(mark, &["Server is ready"], PATIENCE);
        process::signal(old, Signal::SIGTERM);
        self.server.log.line_after(mark, &["upgrade complete"], PATIENCE);
    }

    /// Upgrades the application: a settings file that names the new one, and HUP.
    pub fn upgrade_application(&self, release: Release) {
        name(&self.directory, &release.app(&self.releases));
        let mark = self.server.log.mark();
        let new = self.generation() + 1;
        process::signal(self.arbiter(), Signal::SIGHUP);
        self.server.log.line_after(mark, &[&format!("generation {new} serves")], PATIENCE);
        self.server.until_workers("workers of the new generation only", |workers| {
            workers.iter().all(|worker| worker.generation == new)
        });
    }

    /// Replaces the worker class by hostctl.
    pub fn swap_class(&self, class: &str) {
        let class = artifacts::class(class);
        self.server.ctl(&["swap", class.to_str().unwrap()]).done();
    }

    /// Returns the arbiter, which is another process after an upgrade.
    fn arbiter(&self) -> Pid {
        let status = self.server.ctl(&["status", "--json"]).done();
        let status: Value = serde_json::from_str(&status).expect("hostctl prints JSON");
        Pid::from_raw(status["status"]["pid"].as_i64().expect("a number") as i32)
    }

    fn generation(&self) -> u64 {
        self.server.workers().iter().map(|worker| worker.generation).max().unwrap_or_default()
    }

    /// Kills all of its processes at once.
    pub fn kill(&self) {
        killpg(self.server.pid(), Signal::SIGKILL).unwrap();
        assert!(self.server.all_gone(PATIENCE), "left: {:?}", self.server.processes());
    }

    /// Starts its server again, which has ended.
    pub fn restart(&mut self) {
        assert!(self.server.all_gone(PATIENCE), "left: {:?}", self.server.processes());
        self.server = boot(self.number, &self.namespace, &self.directory, &self.flags);
    }

    /// Returns whether a response comes from here.
    pub fn has_sent(&self, origin: &Origin) -> bool {
        origin.group == self.server.pid()
    }
}

impl Origin {
    /// Reads the origin of a response to `/pid` from a worker that is still alive.
    pub fn of(answer: &Answer) -> Self {
        let pid = pid_of(answer);
        let stat = process::stat(pid).unwrap_or_else(|| panic!("worker {pid} has ended"));
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut libraries: Vec<String> = maps
            .lines()
            .filter_map(|line| line.split_once("/memfd:")?.1.strip_suffix(" (deleted)"))
            .map(str::to_owned)
            .collect();
        libraries.dedup();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        Self { group: stat.group, program, libraries }
    }

    /// Returns whether the sender has loaded this class.
    pub fn has_class(&self, class: &str) -> bool {
        self.has_library(&format!("lib{class}_worker.so"))
    }

    /// Returns whether the sender has loaded the application of this release.
    pub fn has_app(&self, release: Release) -> bool {
        self.has_library(&release.app_name())
    }

    /// Returns whether the sender runs the executable of this release.
    pub fn has_program(&self, release: Release) -> bool {
        self.program.ends_with(release.program(Path::new("releases")))
    }

    fn has_library(&self, name: &str) -> bool {
        self.libraries.iter().any(|library| library == name)
    }
}

fn boot(number: usize, namespace: &Namespace, directory: &Path, flags: &[String]) -> Server {
    Setup::of(&directory.join("host"))
        .reached_at(Address::Tcp(address(number)))
        .flags("--workers 2 --threads 4")
        .flag("--config", directory.join("host.toml"))
        .class(artifacts::class("gthread"))
        .with(|command| {
            command.args(flags);
            namespace.contain(command);
        })
        .start()
}

fn put(directory: &Path, program: PathBuf, app: &Path) {
    link(directory, program);
    name(directory, app);
}

/// Makes the link to the executable point elsewhere, at once.
fn link(directory: &Path, program: PathBuf) {
    let next = directory.join("next");
    symlink(program, &next).unwrap();
    fs::rename(next, directory.join("host")).unwrap();
}

fn name(directory: &Path, app: &Path) {
    fs::write(directory.join("host.toml"), format!("wsgi_app = \"{}\"\n", app.display())).unwrap();
}

const PATIENCE: Duration = Duration::from_secs(20);
