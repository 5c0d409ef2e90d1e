//! One cell of the matrix: a worker class and an application.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::artifacts;

/// A worker class under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// `sync`, or the file name of a third party's class.
    pub name: String,
    /// Shared library.
    pub path: PathBuf,
}

/// The application that runs under the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// The Rust example, `plugins/examples/hello`.
    Native,
    /// The same routes in Python, `apps/routes.py`, through the wsgi plugin.
    Wsgi,
    /// The same routes in Python, `apps/routes_asgi.py`, through the asgi plugin.
    Asgi,
}

/// A worker class and an application.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Class.
    pub class: Class,
    /// Application.
    pub app: App,
}

/// What a behavior requires of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Serves several requests on one connection.
    KeepAlive,
    /// One worker serves several requests at once, given `--threads`.
    Concurrency,
    /// Clients that are slow with a body or a response do not delay others, even if there are more of them
    /// than threads.
    SlowClients,
    /// Serves applications that bring their own event loop.
    Loops,
    /// Drives exchanges that an application has detached.
    Deferral,
}

impl Class {
    /// Returns the classes to test: only `WORKER_CLASS` if it is set, otherwise all that the workspace has
    /// built.
    pub fn all() -> Vec<Self> {
        if let Some(path) = env::var_os("WORKER_CLASS").map(PathBuf::from) {
            // cargo runs tests in their package's directory: a relative path is relative to the top of
            // the tree.
            let path =
                artifacts::root().join(&path).canonicalize().or_else(|_| path.canonicalize());
            let path = path.unwrap_or_else(|error| panic!("WORKER_CLASS: {error}"));
            return vec![Self::at(path)];
        }
        artifacts::classes()
            .into_iter()
            .map(|name| Self { path: artifacts::class(&name), name })
            .collect()
    }

    /// Returns the class of a library.
    pub(crate) fn at(path: PathBuf) -> Self {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = file.trim_start_matches("lib").trim_end_matches(".so");
        let name = name.trim_end_matches("_worker").to_owned();
        Self { name, path }
    }

    /// Returns whether it is a class of this workspace, and not a third party's.
    pub fn is_ours(&self) -> bool {
        !artifacts::is_program()
            && self.path.parent() == Some(artifacts::directory())
            && artifacts::classes().contains(&self.name)
    }

    /// Returns whether its heartbeat may come from another thread than its requests, so that a busy request
    /// does not stop it.
    pub fn has_threads(&self) -> bool {
        self.name == "gthread" || !self.is_ours()
    }
}

impl App {
    /// Returns the applications that can be tested here with this class: the native one, and that of the interface that
    /// the class calls.
    pub fn all(class: &Class) -> Vec<Self> {
        let python = if class.is_ours() && class.name == "asgi" { Self::Asgi } else { Self::Wsgi };
        if artifacts::is_program() {
            return vec![Self::Native];
        }
        let plugin = artifacts::directory().join(format!("lib{}_app.so", python.name()));
        [Self::Native, python].into_iter().take(1 + usize::from(plugin.exists())).collect()
    }

    /// Returns its name for the names of tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wsgi => "wsgi",
            Self::Asgi => "asgi",
        }
    }
}

/// Returns the directory of the Python applications.
pub fn apps() -> PathBuf {
    artifacts::root().join("tests/apps")
}

/// Returns the interpreter with the packages that the Python tests need: `TEST_PYTHON`, otherwise that of the
/// virtual environment that `cargo xtask test` creates.
pub fn python() -> Option<PathBuf> {
    match env::var_os("TEST_PYTHON").map(PathBuf::from) {
        Some(path) => path.exists().then_some(path),
        None => python_of("venv"),
    }
}

/// Returns the interpreter that has Web frameworks beside these packages, those of `requirements-frameworks.txt`: that of
/// the environment beside [`python`]'s, otherwise the same one.
pub fn frameworks_python() -> Option<PathBuf> {
    let python = python()?;
    let beside = python.ancestors().nth(3).map(|top| top.join("venv-frameworks/bin/python"));
    Some(beside.filter(|path| path.exists()).unwrap_or(python))
}

/// Returns the interpreter that has the ASGI frameworks and clients of `requirements-asgi.txt`.
pub fn asgi_python() -> Option<PathBuf> {
    python_of("venv-asgi")
}

/// Returns whether an interpreter has these modules. They are looked for and not imported: some take seconds.
pub fn has_modules(python: Option<PathBuf>, modules: &[&str]) -> bool {
    const FIND: &str = "import sys\nfrom importlib.util import find_spec\n\
                        sys.exit(not all(map(find_spec, sys.argv[1:])))";
    python.is_some_and(|python| {
        let output = Command::new(python).args(["-Ic", FIND]).args(modules).output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// Returns the interpreter of a virtual environment in target/.
pub fn python_of(name: &str) -> Option<PathBuf> {
    let target = artifacts::directory().parent().map(Path::to_owned).unwrap_or_default();
    let path = target.join(name).join("bin/python");
    path.exists().then_some(path)
}
