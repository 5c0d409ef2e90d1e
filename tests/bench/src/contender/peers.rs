//! Commands of the peers that serve WSGI applications, and of nginx.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{App, BIG_FILE, KEEP_ALIVE_SECONDS, Serving, python_app, threads_of};
use crate::setup::Setup;

pub(super) fn gunicorn(
    setup: &Setup,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, "gunicorn")?;
    if class == "gevent" {
        setup.package(serving.python, "gevent")?;
    }
    let mut command = setup.module(serving.python, "gunicorn")?;
    command.args(["--worker-class", class, "--bind", &address.to_string()]);
    command.args(["--workers", &serving.workers.to_string()]);
    command.args(["--worker-connections", &serving.connections.to_string()]);
    command.args(["--threads", &threads_of(class, serving).to_string()]);
    command.args(["--keep-alive", KEEP_ALIVE_SECONDS, "--log-level", "warning"]);
    command.args(serving.preload.then_some("--preload"));
    if class == "asgi" {
        command.args(["--asgi-loop", "uvloop"]);
    }
    command.arg(python_app(serving)?);
    Ok(command)
}

/// A server that is a library: a script takes the application and the address.
pub(super) fn script(
    setup: &Setup,
    package: &str,
    file: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, package)?;
    let mut command = Command::new(setup.python(serving.python)?);
    command.arg(setup.apps().join(file)).arg(python_app(serving)?).arg(address.port().to_string());
    Ok(command)
}

/// It has a command, but that takes no loop.
pub(super) fn fastpysgi(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let mut command = script(setup, "fastpysgi", "serve_fastpysgi.py", serving, address)?;
    command.arg(serving.workers.to_string());
    command.args(matches!(serving.app, App::Asgi(_)).then_some("uvloop"));
    Ok(command)
}

pub(super) fn granian(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, "granian")?;
    let mut command = setup.module(serving.python, "granian")?;
    command.args(match serving.app {
        App::Asgi(_) => ["--interface", "asgi", "--loop", "uvloop"].as_slice(),
        _ => ["--interface", "wsgi", "--no-ws"].as_slice(),
    });
    command.args(["--log-level", "warning"]);
    // It takes no more connections than this.
    let backlog = serving.connections.max(GRANIAN_BACKLOG);
    command.args(["--backlog", &backlog.to_string()]);
    command.args(["--workers", &serving.workers.to_string()]);
    command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.arg(python_app(serving)?);
    Ok(command)
}

pub(super) fn uwsgi(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, "uWSGI")?;
    let (module, name) = python_app(serving)?.split_once(':').unwrap_or_default();
    let python = setup.python(serving.python)?;
    let mut command = Command::new(python.with_file_name("uwsgi"));
    command.arg(if serving.keep_alive { "--http11-socket" } else { "--http-socket" });
    command.args([&address.to_string(), "--master", "--die-on-term", "--disable-logging"]);
    command.args(["--processes", &serving.workers.to_string(), "--listen", "128"]);
    command.args(["--module", module, "--callable", name, "--need-app"]);
    let home = python.ancestors().nth(2).unwrap_or(Path::new("/"));
    command.arg("--virtualenv").arg(home).arg("--pythonpath").arg(setup.apps());
    Ok(command)
}

pub(super) fn nginx(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
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

/// Its default.
const GRANIAN_BACKLOG: usize = 1024;
