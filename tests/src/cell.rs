//! One cell of the matrix: a worker class and an application.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{artifacts, server::Setup};

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
}

/// What the classes of this workspace support, so that losing it is a failure and not a skipped test.
const KNOWN: [(&str, &[Need]); 5] = [
    ("sync", &[]),
    ("gthread", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients]),
    ("eventlet", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
    ("gevent", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
    ("pywsgi", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
];

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
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.trim_start_matches("lib").trim_end_matches(".so");
            let name = name.trim_end_matches("_worker").to_owned();
            return vec![Self { name, path }];
        }
        artifacts::classes()
            .into_iter()
            .map(|name| Self { path: artifacts::class(&name), name })
            .collect()
    }

    /// Returns whether the class supports it: from the table for a class of this workspace, otherwise by
    /// trying.
    pub fn can(&self, need: Need) -> bool {
        match KNOWN.iter().find(|(name, _)| self.is_ours() && *name == self.name) {
            Some((_, capabilities)) => capabilities.contains(&need),
            None => tried(self, need),
        }
    }

    /// Returns whether it is a class of this workspace, and not a third party's.
    fn is_ours(&self) -> bool {
        self.path.parent() == Some(artifacts::directory())
    }

    /// Returns whether its heartbeat may come from another thread than its requests, so that a busy request
    /// does not stop it.
    pub fn has_threads(&self) -> bool {
        self.name == "gthread" || !self.is_ours()
    }
}

impl App {
    /// Returns the applications that can be tested here.
    pub fn all() -> Vec<Self> {
        let wsgi = artifacts::directory().join("libwsgi_app.so").exists();
        [Self::Native, Self::Wsgi].into_iter().take(1 + usize::from(wsgi)).collect()
    }

    /// Returns its name for the names of tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wsgi => "wsgi",
        }
    }

    pub(crate) fn prepare(self, setup: &mut Setup) {
        match self {
            Self::Native => setup.set_app(artifacts::library("hello_app")),
            Self::Wsgi => {
                setup.set_app("routes:application");
                setup.python_path(&apps());
            }
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

/// Returns the interpreter of a virtual environment in target/.
pub fn python_of(name: &str) -> Option<PathBuf> {
    let target = artifacts::directory().parent().map(Path::to_owned).unwrap_or_default();
    let path = target.join(name).join("bin/python");
    path.exists().then_some(path)
}

/// Tries once per class and requirement.
fn tried(class: &Class, need: Need) -> bool {
    static TRIED: Mutex<Vec<(Class, Need, bool)>> = Mutex::new(Vec::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, can)) = tried.iter().find(|(c, n, _)| c == class && *n == need) {
        return *can;
    }
    let cell = Cell { class: class.clone(), app: App::Native };
    // A class whose setting `threads` is 1 by default can still serve several requests at once.
    let start = |flags| Setup::new(&cell).flags(flags).start();
    let can = match need {
        Need::KeepAlive => start("--threads 4").get("/").keeps(),
        Need::Loops => {
            let setup = Setup::new(&cell).app(artifacts::library("asyncio_app"));
            // It exits in any case: the application lacks its interpreter.
            let ended = setup.flags("--boot-failures-max 1").refused();
            !ended.log.contains("choose another class with --worker-class")
        }
        Need::Concurrency => {
            let server = start("--threads 4");
            let mut slow = server.connect();
            slow.send_get("/sleep?ms=3000").is_ok()
                && server.get("/").status == 200
                && slow.left_over().is_empty()
                && slow.fresh()
        }
        Need::SlowClients => {
            let server = start("--threads 1 --body-timeout 4 --write-timeout 4");
            let (mut sender, mut reader) = (server.connect(), server.connect());
            reader.take_little();
            let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n\r\n";
            sender.send(body).is_ok()
                && reader.send_get("/stream?n=1000&size=16384").is_ok()
                && reader.take_byte().is_some()
                && server.get("/").status == 200
                && sender.left_over().is_empty()
                && sender.fresh()
        }
    };
    tried.push((class.clone(), need, can));
    can
}
