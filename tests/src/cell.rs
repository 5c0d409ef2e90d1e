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
    /// `sync`, or the file name of a third party's.
    pub name: String,
    /// The shared library.
    pub path: PathBuf,
}

/// The application that runs under the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// The example in Rust, `plugins/examples/hello`.
    Native,
    /// The same routes in Python, `apps/routes.py`, through the wsgi plugin.
    Wsgi,
}

/// A worker class and an application.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The class.
    pub class: Class,
    /// The application.
    pub app: App,
}

/// What a behavior needs a class to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It answers several requests on one connection.
    KeepAlive,
    /// One worker serves several requests at once, given `--threads`.
    Concurrency,
    /// More clients that are slow with a body or a response than it has threads delay no others.
    SlowClients,
    /// It serves applications that bring an event loop of their own.
    Loops,
}

/// What our own classes can do, so that losing it is a failure and not a skipped test.
const KNOWN: [(&str, &[Need]); 5] = [
    ("sync", &[]),
    ("gthread", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients]),
    ("eventlet", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
    ("gevent", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
    ("pywsgi", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops]),
];

impl Class {
    /// The classes to test: `WORKER_CLASS` alone when it is set, else all that the workspace has built.
    pub fn all() -> Vec<Self> {
        if let Some(path) = env::var_os("WORKER_CLASS").map(PathBuf::from) {
            // cargo runs tests in their package's directory: a relative path means from the top of the tree.
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

    /// Whether the class can do it: by the table if it is one of ours, else by trying.
    pub fn can(&self, need: Need) -> bool {
        match KNOWN.iter().find(|(name, _)| self.is_ours() && *name == self.name) {
            Some((_, capabilities)) => capabilities.contains(&need),
            None => tried(self, need),
        }
    }

    /// Whether it is one of the workspace's, and not a third party's.
    fn is_ours(&self) -> bool {
        self.path.parent() == Some(artifacts::directory())
    }

    /// Whether its heartbeat may come from another thread than its requests, so that a busy request does not stop it.
    pub fn has_threads(&self) -> bool {
        self.name == "gthread" || !self.is_ours()
    }
}

impl App {
    /// The applications that can be tested here.
    pub fn all() -> Vec<Self> {
        let wsgi = artifacts::directory().join("libwsgi_app.so").exists();
        [Self::Native, Self::Wsgi].into_iter().take(1 + usize::from(wsgi)).collect()
    }

    /// Its name in the names of tests.
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

/// The directory of the Python applications.
pub fn apps() -> PathBuf {
    artifacts::root().join("tests/apps")
}

/// The interpreter with the packages that the Python tests need: `TEST_PYTHON`, else the one of
/// the virtual environment that `cargo xtask test` makes.
pub fn python() -> Option<PathBuf> {
    match env::var_os("TEST_PYTHON").map(PathBuf::from) {
        Some(path) => path.exists().then_some(path),
        None => python_of("venv"),
    }
}

/// The interpreter of a virtual environment under target/.
pub fn python_of(name: &str) -> Option<PathBuf> {
    let target = artifacts::directory().parent().map(Path::to_owned).unwrap_or_default();
    let path = target.join(name).join("bin/python");
    path.exists().then_some(path)
}

/// Tries once for each class and need.
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
            // It ends in any case: the application lacks its interpreter.
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
