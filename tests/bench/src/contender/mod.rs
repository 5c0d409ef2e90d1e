//! Contenders: Jimu with each class, its peers, and the floor below which no server can be; and the command with
//! which each serves an application.
//!
//! | module | commands of |
//! | --- | --- |
//! | `jimu` | `host` |
//! | `peers` | servers of WSGI applications, some of which serve ASGI too, and nginx |
//! | `asgi` | servers of ASGI applications only |

mod asgi;
mod jimu;
mod peers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::environment::Python;
use crate::setup::{Build, Setup};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `host` with this worker class, loaded from its library.
    Jimu(&'static str),
    /// The same of the other build, which the command line names.
    OtherBuild(&'static str),
    /// `host` of a build with the class gthread and this number of threads.
    Threads(Build, usize),
    /// `host` with this worker class, statically linked.
    Linked(&'static str),
    /// `host` with this worker class and the native application in C.
    InC(&'static str),
    /// `host` with this worker class and `--metrics-bind`, scraped once per second.
    Metered(&'static str),
    /// gunicorn with this worker class.
    Gunicorn(&'static str),
    /// gevent's WSGI server.
    Pywsgi,
    /// bjoern.
    Bjoern,
    /// granian in the mode of the application.
    Granian,
    /// uWSGI with its HTTP socket.
    Uwsgi,
    /// uvicorn with uvloop and httptools.
    Uvicorn,
    /// hypercorn with uvloop.
    Hypercorn,
    /// fastpysgi in the mode of the application, with uvloop for ASGI.
    Fastpysgi,
    /// nginx.
    Nginx,
    /// The loop without parsing.
    Bare,
}

/// Relation of a contender to Jimu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Jimu itself.
    Ours,
    /// Jimu, built from other sources.
    OtherBuild,
    /// Another server.
    Peer,
    /// Not a server, but the lower bound of its cost.
    Floor,
}

/// The served application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// The native application `hello`; nginx and the bare loop send the same response themselves.
    Native,
    /// The WSGI application `module:name`.
    Wsgi(&'static str),
    /// The ASGI application `module:name`.
    Asgi(&'static str),
}

/// How to serve it.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// Application to serve.
    pub app: App,
    /// Interpreter for it, if it is a Python application.
    pub python: Python,
    /// Whether connections are kept alive, as far as the server decides.
    pub keep_alive: bool,
    /// Number of worker processes.
    pub workers: usize,
    /// Number of threads per worker of a threaded class.
    pub threads: usize,
    /// Whether the application is loaded before the workers are forked.
    pub preload: bool,
    /// Number of connections that a worker must support.
    pub connections: usize,
    /// Directory of this run, the working directory of servers.
    pub directory: &'a Path,
}

impl Contender {
    /// Returns the name for the tables.
    pub fn name(self) -> String {
        match self {
            Self::Jimu(class) => format!("Jimu {class}"),
            Self::OtherBuild(class) => format!("Jimu {class}{OTHER_BUILD}"),
            Self::Threads(build, threads) => {
                let other = if build == Build::Other { OTHER_BUILD } else { "" };
                let unit = if threads == 1 { "thread" } else { "threads" };
                format!("Jimu gthread{other}, {threads} {unit}")
            }
            Self::Linked(class) => format!("Jimu {class}, linked in"),
            Self::InC(class) => format!("Jimu {class}, native, in C"),
            Self::Metered(class) => format!("Jimu {class}, with metrics"),
            Self::Gunicorn(class) => format!("gunicorn {class}"),
            Self::Pywsgi => "gevent pywsgi".into(),
            Self::Bjoern => "bjoern".into(),
            Self::Granian => "granian".into(),
            Self::Uwsgi => "uWSGI".into(),
            Self::Uvicorn => "uvicorn".into(),
            Self::Hypercorn => "hypercorn".into(),
            Self::Fastpysgi => "fastpysgi".into(),
            Self::Nginx => "nginx".into(),
            Self::Bare => "bare epoll loop".into(),
        }
    }

    /// Returns the relation to Jimu.
    pub fn role(self) -> Role {
        match self {
            Self::OtherBuild(_) | Self::Threads(Build::Other, _) => Role::OtherBuild,
            Self::Jimu(_)
            | Self::InC(_)
            | Self::Linked(_)
            | Self::Metered(_)
            | Self::Threads(Build::This, _) => Role::Ours,
            Self::Bare => Role::Floor,
            _ => Role::Peer,
        }
    }

    /// Returns the same of the other build, if `--against` compares it.
    pub fn of_other_build(self) -> Option<Self> {
        match self {
            Self::Jimu(class) => Some(Self::OtherBuild(class)),
            Self::Threads(_, threads) => Some(Self::Threads(Build::Other, threads)),
            _ => None,
        }
    }

    /// Returns whether it uses a processor while it has nothing to do, and so would disturb the others.
    pub fn spins_when_idle(self) -> bool {
        matches!(self, Self::Fastpysgi)
    }

    /// Returns the command that serves on an address, or one line that says what it lacks.
    pub fn command(
        self,
        setup: &Setup,
        serving: Serving<'_>,
        address: SocketAddr,
    ) -> Result<Command, String> {
        let mut command = match self {
            Self::Jimu(class) => jimu::command(setup, Build::This, class, serving, address)?,
            Self::OtherBuild(class) => jimu::command(setup, Build::Other, class, serving, address)?,
            Self::Threads(build, threads) => {
                let serving = Serving { threads, ..serving };
                jimu::command(setup, build, "gthread", serving, address)?
            }
            Self::Linked(class) => jimu::linked(setup, class, serving, address)?,
            Self::InC(class) => jimu::in_c(setup, class, serving, address)?,
            Self::Metered(class) => jimu::metered(setup, class, serving, address)?,
            Self::Gunicorn(class) => peers::gunicorn(setup, class, serving, address)?,
            Self::Pywsgi => peers::script(setup, "gevent", "serve_pywsgi.py", serving, address)?,
            Self::Bjoern => peers::script(setup, "bjoern", "serve_bjoern.py", serving, address)?,
            Self::Granian => peers::granian(setup, serving, address)?,
            Self::Uwsgi => peers::uwsgi(setup, serving, address)?,
            Self::Uvicorn => asgi::uvicorn(setup, serving, address)?,
            Self::Hypercorn => asgi::hypercorn(setup, serving, address)?,
            Self::Fastpysgi => peers::fastpysgi(setup, serving, address)?,
            Self::Nginx => peers::nginx(setup, serving, address)?,
            Self::Bare => {
                let mut command = Command::new(setup.built(Build::This, "bare-epoll")?);
                command.arg(address.to_string());
                command.args((!serving.keep_alive).then_some("--close"));
                command
            }
        };
        command.current_dir(serving.directory).env("PYTHONPATH", setup.apps());
        // Otherwise each server would use the interpreter of the caller.
        command.env_remove("VIRTUAL_ENV").env_remove("JIMU_CMD_ARGS").env_remove("PORT");
        Ok(command)
    }
}

/// Address on which a metered server serves its metrics.
pub fn metrics_of(directory: &Path, address: SocketAddr) -> PathBuf {
    directory.join(format!("{}.metrics", address.port()))
}

/// Returns the name `module:name` of a Python application.
fn python_app(serving: Serving<'_>) -> Result<&'static str, String> {
    match serving.app {
        App::Wsgi(app) | App::Asgi(app) => Ok(app),
        App::Native => Err("it runs Python applications only".into()),
    }
}

fn threads_of(class: &str, serving: Serving<'_>) -> usize {
    if class == "gthread" { serving.threads } else { 1 }
}

/// End of the names of contenders of the other build.
pub const OTHER_BUILD: &str = " (other build)";
/// Name of the served file in the directory of a run.
pub const BIG_FILE: &str = "megabyte";
/// The pause between two rounds of one contender need not be longer, and must not be shorter.
const KEEP_ALIVE_SECONDS: &str = "75";
/// Number of threads per worker of the threaded classes, unless a contender has another.
pub const THREADS: usize = 8;
