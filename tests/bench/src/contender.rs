//! Contenders: Jimu with each class, its peers, and the floor below which no server can be; and the command with
//! which each serves an application.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::setup::Setup;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `host` with this worker class, loaded from its library.
    Jimu(&'static str),
    /// `host` with this worker class, statically linked.
    Linked(&'static str),
    /// `host` with this worker class and `--metrics-bind`, scraped once per second.
    Metered(&'static str),
    /// gunicorn with this worker class.
    Gunicorn(&'static str),
    /// gevent's WSGI server.
    Pywsgi,
    /// bjoern.
    Bjoern,
    /// granian in WSGI mode.
    Granian,
    /// uWSGI with its HTTP socket.
    Uwsgi,
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
    /// The Python application `module:name`.
    Wsgi(&'static str),
}

/// How to serve it.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// Application to serve.
    pub app: App,
    /// Whether connections are kept alive, as far as the server decides.
    pub keep_alive: bool,
    /// Number of worker processes.
    pub workers: usize,
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
            Self::Linked(class) => format!("Jimu {class}, linked in"),
            Self::Metered(class) => format!("Jimu {class}, with metrics"),
            Self::Gunicorn(class) => format!("gunicorn {class}"),
            Self::Pywsgi => "gevent pywsgi".into(),
            Self::Bjoern => "bjoern".into(),
            Self::Granian => "granian".into(),
            Self::Uwsgi => "uWSGI".into(),
            Self::Nginx => "nginx".into(),
            Self::Bare => "bare epoll loop".into(),
        }
    }

    /// Returns the relation to Jimu.
    pub fn role(self) -> Role {
        match self {
            Self::Jimu(_) | Self::Linked(_) | Self::Metered(_) => Role::Ours,
            Self::Bare => Role::Floor,
            _ => Role::Peer,
        }
    }

    /// Returns the command that serves on an address, or one line that says what it lacks.
    pub fn command(
        self,
        setup: &Setup,
        serving: Serving<'_>,
        address: SocketAddr,
    ) -> Result<Command, String> {
        let mut command = match self {
            Self::Jimu(class) => jimu(setup, &setup.built("host")?, class, serving, address)?,
            Self::Linked(class) => {
                let host = setup.built(&format!("host-{class}"))?;
                jimu(setup, &host, class, serving, address)?
            }
            Self::Metered(class) => {
                let mut command = jimu(setup, &setup.built("host")?, class, serving, address)?;
                let metrics = metrics_of(serving.directory, address);
                command.arg("--metrics-bind").arg(format!("unix:{}", metrics.display()));
                command
            }
            Self::Gunicorn(class) => gunicorn(setup, class, serving, address)?,
            Self::Pywsgi => script(setup, "gevent", "serve_pywsgi.py", serving, address)?,
            Self::Bjoern => script(setup, "bjoern", "serve_bjoern.py", serving, address)?,
            Self::Granian => granian(setup, serving, address)?,
            Self::Uwsgi => uwsgi(setup, serving, address)?,
            Self::Nginx => nginx(setup, serving, address)?,
            Self::Bare => {
                let mut command = Command::new(setup.built("bare-epoll")?);
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

fn jimu(
    setup: &Setup,
    host: &Path,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let class_file = setup.built(&format!("lib{class}_worker.so"))?;
    let mut command = Command::new(host);
    command.arg("--worker-class").arg(class_file);
    command.args(["--bind", &address.to_string(), "--workers", &serving.workers.to_string()]);
    command.args(["--worker-connections", &serving.connections.to_string()]);
    command.args(["--threads", &threads_of(class).to_string()]);
    command.args(["--keep-alive", KEEP_ALIVE_SECONDS, "--log-level", "warning"]);
    command.arg("--control-socket").arg(serving.directory.join(format!("{}.ctl", address.port())));
    command.args(serving.preload.then_some("--preload"));
    match serving.app {
        App::Native => command.arg(setup.built("libhello_app.so")?),
        App::Wsgi(app) => {
            setup.built("libwsgi_app.so")?;
            command.arg("--python").arg(setup.python()?).arg(app)
        }
    };
    Ok(command)
}

fn gunicorn(
    setup: &Setup,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package("gunicorn")?;
    if class == "gevent" {
        setup.package("gevent")?;
    }
    let mut command = setup.module("gunicorn")?;
    command.args(["--worker-class", class, "--bind", &address.to_string()]);
    command.args(["--workers", &serving.workers.to_string()]);
    command.args(["--worker-connections", &serving.connections.to_string()]);
    command.args(["--threads", &threads_of(class).to_string()]);
    command.args(["--keep-alive", KEEP_ALIVE_SECONDS, "--log-level", "warning"]);
    command.args(serving.preload.then_some("--preload"));
    command.arg(wsgi_of(serving)?);
    Ok(command)
}

/// A server that is a library: a script takes the application and the address.
fn script(
    setup: &Setup,
    package: &str,
    file: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(package)?;
    let mut command = Command::new(setup.python()?);
    command.arg(setup.apps().join(file)).arg(wsgi_of(serving)?).arg(address.port().to_string());
    Ok(command)
}

fn granian(setup: &Setup, serving: Serving<'_>, address: SocketAddr) -> Result<Command, String> {
    setup.package("granian")?;
    let mut command = setup.module("granian")?;
    command.args(["--interface", "wsgi", "--no-ws", "--log-level", "warning"]);
    command.args(["--workers", &serving.workers.to_string()]);
    command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.arg(wsgi_of(serving)?);
    Ok(command)
}

fn uwsgi(setup: &Setup, serving: Serving<'_>, address: SocketAddr) -> Result<Command, String> {
    setup.package("uWSGI")?;
    let (module, name) = wsgi_of(serving)?.split_once(':').unwrap_or_default();
    let python = setup.python()?;
    let mut command = Command::new(python.with_file_name("uwsgi"));
    command.arg(if serving.keep_alive { "--http11-socket" } else { "--http-socket" });
    command.args([&address.to_string(), "--master", "--die-on-term", "--disable-logging"]);
    command.args(["--processes", &serving.workers.to_string(), "--listen", "128"]);
    command.args(["--module", module, "--callable", name, "--need-app"]);
    let home = python.ancestors().nth(2).unwrap_or(Path::new("/"));
    command.arg("--virtualenv").arg(home).arg("--pythonpath").arg(setup.apps());
    Ok(command)
}

fn nginx(setup: &Setup, serving: Serving<'_>, address: SocketAddr) -> Result<Command, String> {
    if serving.app != App::Native {
        return Err("nginx runs no applications".into());
    }
    let program = setup.nginx()?;
    let configuration: PathBuf = serving.directory.join(format!("nginx-{}.conf", address.port()));
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "{user} daemon off; worker_processes {workers}; pid nginx-{port}.pid; error_log stderr warn;
         events {{ worker_connections {connections}; }}
         http {{
             access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000;
             client_body_temp_path nginx-body; proxy_temp_path nginx-proxy;
             fastcgi_temp_path nginx-fastcgi; uwsgi_temp_path nginx-uwsgi;
             scgi_temp_path nginx-scgi;
             server {{
                 listen {address};
                 location = / {{ default_type text/plain; return 200 \"Hello, world!\\n\"; }}
                 location = /file {{ alias {directory}/{BIG_FILE}; }}
             }}
         }}",
        workers = serving.workers,
        port = address.port(),
        // With few left it closes idle connections to make room.
        connections = serving.connections * 2,
        directory = serving.directory.display(),
    );
    std::fs::write(&configuration, text).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-p").arg(serving.directory).arg("-c").arg(configuration);
    Ok(command)
}

fn wsgi_of(serving: Serving<'_>) -> Result<&'static str, String> {
    match serving.app {
        App::Wsgi(app) => Ok(app),
        App::Native => Err("it runs Python applications only".into()),
    }
}

fn threads_of(class: &str) -> usize {
    if class == "gthread" { THREADS } else { 1 }
}

/// Name of the served file in the directory of a run.
pub const BIG_FILE: &str = "megabyte";
/// The pause between two rounds of one contender need not be longer, and must not be shorter.
const KEEP_ALIVE_SECONDS: &str = "75";
/// Number of threads per worker of the threaded classes.
const THREADS: usize = 8;
