//! Prerequisites of a measurement: the programs built here, another build, virtual environments with the peers,
//! nginx. What is missing excludes the contenders that need it, and is reported; it stops nothing else.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::environment::{Environment, Python, last_line};

/// The available programs.
pub struct Setup {
    /// Directory of the executables and libraries built by cargo, including this one.
    built: PathBuf,
    /// Directory of another build, which is measured beside this one.
    other: Option<PathBuf>,
    /// In the order of [`Python::ALL`]. Each is created when a contender needs it.
    environments: [OnceCell<Environment>; Python::ALL.len()],
    nginx: Option<PathBuf>,
    wrk: Option<PathBuf>,
    perf: Option<PathBuf>,
}

/// The server as it is installed, where this file is called `host`: one file is the command and the runtime for Python.
pub const SERVER: &str = "libjimu_runtime.so";

/// Which build of Jimu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The one of these sources.
    This,
    /// The one that the command line names.
    Other,
}

impl Setup {
    /// Looks for the programs.
    pub fn new(built: PathBuf, other: Option<PathBuf>) -> Self {
        let [nginx, wrk, perf] = ["nginx", "wrk", "perf"].map(on_path);
        Self { built, other, environments: Default::default(), nginx, wrk, perf }
    }

    /// Returns an executable or library of a build.
    pub fn built(&self, build: Build, file: &str) -> Result<PathBuf, String> {
        let (directory, missing) = match build {
            Build::This => (&self.built, "is not built"),
            Build::Other => {
                (self.other.as_ref().ok_or("no other build is named")?, "is not in the other build")
            }
        };
        let path = directory.join(file);
        if path.is_file() { Ok(path) } else { Err(format!("{file} {missing}")) }
    }

    /// Returns the directory of the programs and libraries of this build.
    pub fn directory(&self) -> &Path {
        &self.built
    }

    /// Returns whether another build takes part.
    pub fn has_other_build(&self) -> bool {
        self.other.is_some()
    }

    /// Returns cargo's target directory.
    pub fn target(&self) -> &Path {
        self.built.parent().unwrap_or(&self.built)
    }

    /// Returns an interpreter.
    pub fn python(&self, which: Python) -> Result<PathBuf, String> {
        self.environment(which).python()
    }

    /// Returns a command that runs a module of a package.
    pub fn module(&self, which: Python, name: &str) -> Result<Command, String> {
        let mut command = Command::new(self.python(which)?);
        command.args(["-m", name]);
        Ok(command)
    }

    /// Returns the version of a package, or why it is missing.
    pub fn package(&self, which: Python, name: &str) -> Result<String, String> {
        self.python(which)?;
        self.environment(which).package(name)
    }

    fn environment(&self, which: Python) -> &Environment {
        self.environments[which as usize].get_or_init(|| Environment::prepare(which, self.target()))
    }

    /// Returns nginx, if it is on PATH.
    pub fn nginx(&self) -> Result<&Path, String> {
        self.nginx.as_deref().ok_or_else(|| "nginx is not on PATH".into())
    }

    /// Returns wrk, if it is on PATH.
    pub fn wrk(&self) -> Result<&Path, String> {
        self.wrk.as_deref().ok_or_else(|| "wrk is not on PATH".into())
    }

    /// Returns perf, if it is on PATH.
    pub fn perf(&self) -> Result<&Path, String> {
        self.perf.as_deref().ok_or_else(|| "perf is not on PATH".into())
    }

    /// Returns the directory of the Python applications.
    pub fn apps(&self) -> PathBuf {
        crate_directory().join("apps")
    }

    /// Returns the versions of everything that takes part, for the head of the page.
    pub fn versions(&self) -> Vec<String> {
        let nginx =
            self.nginx.as_ref().and_then(|program| last_line(Command::new(program).arg("-v")));
        let nginx = nginx.map(|line| line.replace("nginx version: nginx/", "nginx "));
        let wrk = self.wrk.as_ref().and_then(|program| version_of_wrk(program));
        let rustc = last_line(Command::new("rustc").arg("-V"));
        let existing = |which| Environment::existing(which, self.target());
        let python = Python::ALL.into_iter().filter_map(existing);
        let mut versions: Vec<String> = rustc.into_iter().chain(nginx).chain(wrk).collect();
        for version in python.flat_map(|environment| environment.versions()) {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }
}

/// Returns the top directory of the sources.
pub fn root() -> &'static Path {
    crate_directory().ancestors().nth(2).expect("this crate is in tests/bench")
}

fn crate_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Its version is at the start of its help.
fn version_of_wrk(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-v").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.strip_prefix("wrk ")?.split_whitespace().next()?;
    Some(format!("wrk {version}"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian's location, which is not on every user's PATH.
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}
