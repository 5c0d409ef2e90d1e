//! Prerequisites of a measurement: the programs built here, a virtual environment with the peers, nginx. What is
//! missing excludes the contenders that need it, and is reported; it stops nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The available programs.
pub struct Setup {
    /// Directory of the executables and libraries built by cargo, including this one.
    built: PathBuf,
    /// Interpreter of the virtual environment, if it could be created.
    python: Result<PathBuf, String>,
    /// Each required package, with its version or the reason why it is missing.
    packages: BTreeMap<String, Result<String, String>>,
    nginx: Option<PathBuf>,
}

impl Setup {
    /// Looks for everything, and creates the virtual environment if it does not exist.
    pub fn new(built: PathBuf) -> Self {
        let python = virtual_environment(&built.join("../bench-venv"));
        let packages = match &python {
            Ok(python) => wanted().map(|name| (name.to_owned(), install(python, name))).collect(),
            Err(_) => BTreeMap::new(),
        };
        Self { built, python, packages, nginx: on_path("nginx") }
    }

    /// Returns an executable or library of this workspace.
    pub fn built(&self, file: &str) -> Result<PathBuf, String> {
        let path = self.built.join(file);
        if path.is_file() { Ok(path) } else { Err(format!("{file} is not built")) }
    }

    /// Returns cargo's target directory.
    pub fn target(&self) -> &Path {
        self.built.parent().unwrap_or(&self.built)
    }

    /// Returns the interpreter for all Python servers.
    pub fn python(&self) -> Result<PathBuf, String> {
        self.python.clone()
    }

    /// Returns a command that runs a module of a package.
    pub fn module(&self, name: &str) -> Result<Command, String> {
        let mut command = Command::new(self.python()?);
        command.args(["-m", name]);
        Ok(command)
    }

    /// Returns whether a package is installed.
    pub fn package(&self, name: &str) -> Result<String, String> {
        let package = self.packages.get(name).cloned();
        package.unwrap_or_else(|| Err(format!("{name} is not in requirements.txt")))
    }

    /// Returns nginx, if it is on PATH.
    pub fn nginx(&self) -> Result<&Path, String> {
        self.nginx.as_deref().ok_or_else(|| "nginx is not on PATH".into())
    }

    /// Returns the directory of the Python applications.
    pub fn apps(&self) -> PathBuf {
        crate_directory().join("apps")
    }

    /// Returns the versions of everything that takes part, for the head of the page.
    pub fn versions(&self) -> Vec<String> {
        let packages = self.packages.iter().filter_map(|(name, version)| {
            version.as_ref().ok().map(|version| format!("{name} {version}"))
        });
        let nginx =
            self.nginx.as_ref().and_then(|program| last_line(Command::new(program).arg("-v")));
        let nginx = nginx.map(|line| line.replace("nginx version: nginx/", "nginx "));
        let python = self.python.as_ref().ok();
        let python = python.and_then(|python| last_line(Command::new(python).arg("-V")));
        let python = python.map(|line| line.replace("Python", "CPython"));
        let rustc = last_line(Command::new("rustc").arg("-V"));
        [rustc, python, nginx].into_iter().flatten().chain(packages).collect()
    }
}

/// Returns the top directory of the sources.
pub fn root() -> &'static Path {
    crate_directory().ancestors().nth(2).expect("this crate is in tests/bench")
}

fn crate_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn wanted() -> impl Iterator<Item = &'static str> {
    include_str!("../apps/requirements.txt").lines().filter(|line| !line.trim().is_empty())
}

fn virtual_environment(directory: &Path) -> Result<PathBuf, String> {
    let python = directory.join("bin/python");
    if !python.exists() {
        eprintln!("making a virtual environment for the peers");
        run(Command::new("python3").args(["-m", "venv"]).arg(directory))
            .map_err(|why| format!("no virtual environment can be made: {why}"))?;
    }
    python.canonicalize().map_err(|error| error.to_string())?;
    fs::canonicalize(directory)
        .map(|directory| directory.join("bin/python"))
        .map_err(|e| e.to_string())
}

/// Returns the version of a package, which is installed if it is missing.
fn install(python: &Path, name: &str) -> Result<String, String> {
    let version = || {
        let code = format!("import importlib.metadata as m; print(m.version('{name}'))");
        run(Command::new(python).args(["-c", &code]))
    };
    if let Ok(version) = version() {
        return Ok(version);
    }
    eprintln!("installing {name}");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", name];
    run(Command::new(python).args(pip)).map_err(|why| match name {
        "bjoern" => "bjoern needs the header of libev: apt-get install libev-dev".to_owned(),
        _ => format!("{name} cannot be installed: {why}"),
    })?;
    version()
}

/// Returns the last line of a command's output, or of its error output.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    if output.status.success() { Ok(last(&output.stdout)) } else { Err(last(&output.stderr)) }
}

/// Returns the last line of a command's output on either stream.
fn last_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian's location, which is not on every user's PATH.
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}
