//! Virtual environments for the Python servers, created once in cargo's target directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which interpreter serves, with which packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Python {
    /// `python3` on PATH, with WSGI servers.
    Usual,
    /// `/usr/bin/python3`, with WSGI servers.
    Debian,
    /// `python3` on PATH, with ASGI servers.
    Asgi,
}

impl Python {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usual, Self::Debian, Self::Asgi];

    fn directory(self) -> &'static str {
        match self {
            Self::Usual => "bench-venv",
            Self::Debian => "bench-venv-debian",
            Self::Asgi => "bench-venv-asgi",
        }
    }

    fn base(self) -> &'static str {
        match self {
            Self::Usual | Self::Asgi => "python3",
            Self::Debian => "/usr/bin/python3",
        }
    }

    /// Returns the requirements: names, some with extras.
    fn wanted(self) -> impl Iterator<Item = &'static str> {
        let text = match self {
            Self::Usual | Self::Debian => include_str!("../apps/requirements.txt"),
            Self::Asgi => include_str!("../apps/requirements-asgi.txt"),
        };
        text.lines().filter(|line| !line.trim().is_empty())
    }
}

/// A virtual environment.
pub(crate) struct Environment {
    /// Its interpreter, or why there is none.
    python: Result<PathBuf, String>,
    /// Each required package without extras, with its version or the reason why it is missing.
    packages: BTreeMap<&'static str, Result<String, String>>,
}

impl Environment {
    /// Opens an environment. Creates it and installs its packages unless they exist.
    pub(crate) fn prepare(which: Python, target: &Path) -> Self {
        let python = virtual_environment(which.base(), &target.join(which.directory()));
        Self::of(which, python, install)
    }

    /// Opens an environment if it exists, and installs nothing.
    pub(crate) fn existing(which: Python, target: &Path) -> Option<Self> {
        let python = target.join(which.directory()).join("bin/python");
        python.exists().then(|| Self::of(which, Ok(python), version))
    }

    fn of(
        which: Python,
        python: Result<PathBuf, String>,
        package: fn(&Path, &str) -> Result<String, String>,
    ) -> Self {
        let packages = match &python {
            Ok(python) => {
                which.wanted().map(|want| (name_of(want), package(python, want))).collect()
            }
            Err(_) => BTreeMap::new(),
        };
        Self { python, packages }
    }

    /// Returns its interpreter.
    pub(crate) fn python(&self) -> Result<PathBuf, String> {
        self.python.clone()
    }

    /// Returns the version of a package.
    pub(crate) fn package(&self, name: &str) -> Result<String, String> {
        let package = self.packages.get(name).cloned();
        package.unwrap_or_else(|| Err(format!("{name} is in no list of requirements")))
    }

    /// Returns the versions of the interpreter and of the packages that are installed.
    pub(crate) fn versions(&self) -> Vec<String> {
        let python = self.python.as_ref().ok();
        let python = python.and_then(|python| last_line(Command::new(python).arg("-V")));
        let python = python.map(|line| line.replace("Python", "CPython"));
        let packages = self.packages.iter().filter_map(|(name, version)| {
            version.as_ref().ok().map(|version| format!("{name} {version}"))
        });
        python.into_iter().chain(packages).collect()
    }
}

fn virtual_environment(base: &str, directory: &Path) -> Result<PathBuf, String> {
    let python = directory.join("bin/python");
    if !python.exists() {
        eprintln!("creating {} with {base}", directory.display());
        run(Command::new(base).args(["-m", "venv"]).arg(directory))
            .map_err(|why| format!("no virtual environment can be created with {base}: {why}"))?;
    }
    python.canonicalize().map_err(|error| error.to_string())?;
    fs::canonicalize(directory)
        .map(|directory| directory.join("bin/python"))
        .map_err(|e| e.to_string())
}

/// Returns the version of a package, which is installed if it is missing.
///
/// pip's cache is not used: it would reuse a uWSGI that was built with another interpreter of the same version,
/// and that embeds it.
fn install(python: &Path, want: &str) -> Result<String, String> {
    if let Ok(version) = version(python, want) {
        return Ok(version);
    }
    eprintln!("installing {want}");
    let pip = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"];
    run(Command::new(python).args(pip).arg(want)).map_err(|why| match want {
        "bjoern" => {
            "bjoern needs the headers of Python and libev: apt-get install python3-dev libev-dev"
                .to_owned()
        }
        _ => format!("{want} cannot be installed: {why}"),
    })?;
    version(python, want)
}

fn version(python: &Path, want: &str) -> Result<String, String> {
    let name = name_of(want);
    let code = format!("import importlib.metadata as m; print(m.version('{name}'))");
    run(Command::new(python).args(["-c", &code]))
}

/// Returns the name of a requirement without its extras.
fn name_of(want: &str) -> &str {
    want.split('[').next().unwrap_or(want)
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
pub(crate) fn last_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}
