//! Commands of `host`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{App, KEEP_ALIVE_SECONDS, Serving, metrics_of, threads_of};
use crate::setup::{Build, SERVER, Setup, root};

/// Returns the command of a build's `host`.
pub(super) fn command(
    setup: &Setup,
    build: Build,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    serve(setup, build, &setup.built(build, SERVER)?, class, serving, address)
}

/// Returns the command of the `host` with this class linked in.
pub(super) fn linked(
    setup: &Setup,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let host = setup.built(Build::This, &format!("host-{class}"))?;
    serve(setup, Build::This, &host, class, serving, address)
}

/// Returns the command of `host` with metrics.
pub(super) fn metered(
    setup: &Setup,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let mut command = command(setup, Build::This, class, serving, address)?;
    let metrics = metrics_of(serving.directory, address);
    command.arg("--metrics-bind").arg(format!("unix:{}", metrics.display()));
    Ok(command)
}

/// Returns the command of `host` with the application in C, which is compiled as its first lines say.
pub(super) fn in_c(
    setup: &Setup,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let library = serving.directory.join("libhello_c_app.so");
    let source = root().join("plugins/examples/hello-c/hello.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O2", "-fPIC", "-shared", "-I"]);
    compiler.arg(root().join("worker-api/include")).arg(source).arg("-o").arg(&library);
    let is_built = compiler.status().is_ok_and(|status| status.success());
    if !is_built {
        return Err("the application in C cannot be compiled".into());
    }
    let host = setup.built(Build::This, SERVER)?;
    let mut command = class_of(setup, Build::This, &host, class, serving, address)?;
    command.arg(library);
    Ok(command)
}

/// Another build may be older: every flag here exists since the benchmark does, except those of later classes.
fn serve(
    setup: &Setup,
    build: Build,
    host: &Path,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let mut command = class_of(setup, build, host, class, serving, address)?;
    match serving.app {
        App::Native => command.arg(setup.built(build, "libhello_app.so")?),
        App::Wsgi(app) => {
            setup.built(build, "libwsgi_app.so")?;
            command.arg("--python").arg(setup.python(serving.python)?).arg(app)
        }
        App::Asgi(app) => {
            setup.built(build, "libasgi_app.so")?;
            command.args(["--asgi-loop", "uvloop"]);
            command.arg("--python").arg(setup.python(serving.python)?).arg(app)
        }
    };
    Ok(command)
}

/// Returns the command without its application.
fn class_of(
    setup: &Setup,
    build: Build,
    host: &Path,
    class: &str,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    let class_file = setup.built(build, &format!("lib{class}_worker.so"))?;
    let mut command = Command::new(host);
    command.arg("--worker-class").arg(class_file);
    command.args(["--bind", &address.to_string(), "--workers", &serving.workers.to_string()]);
    command.args(["--worker-connections", &serving.connections.to_string()]);
    command.args(["--threads", &threads_of(class, serving).to_string()]);
    command.args(["--keep-alive", KEEP_ALIVE_SECONDS, "--log-level", "warning"]);
    command.arg("--control-socket").arg(serving.directory.join(format!("{}.ctl", address.port())));
    command.args(serving.preload.then_some("--preload"));
    Ok(command)
}
