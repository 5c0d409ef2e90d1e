//! Commands of the peers that serve only ASGI applications.

use std::net::SocketAddr;
use std::process::Command;

use super::{KEEP_ALIVE_SECONDS, Serving, python_app};
use crate::setup::Setup;

pub(super) fn uvicorn(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, "uvicorn")?;
    let mut command = setup.module(serving.python, "uvicorn")?;
    command.args(["--loop", "uvloop", "--http", "httptools", "--ws", "auto"]);
    command.args(["--no-access-log", "--log-level", "warning"]);
    command.args(["--timeout-keep-alive", KEEP_ALIVE_SECONDS]);
    command.args(["--workers", &serving.workers.to_string()]);
    command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.arg(python_app(serving)?);
    Ok(command)
}

pub(super) fn hypercorn(
    setup: &Setup,
    serving: Serving<'_>,
    address: SocketAddr,
) -> Result<Command, String> {
    setup.package(serving.python, "hypercorn")?;
    let mut command = setup.module(serving.python, "hypercorn")?;
    command.args(["--config", "python:settings_hypercorn", "--worker-class", "uvloop"]);
    command.args(["--keep-alive", KEEP_ALIVE_SECONDS, "--log-level", "warning"]);
    command.args(["--workers", &serving.workers.to_string(), "--bind", &address.to_string()]);
    command.arg(python_app(serving)?);
    Ok(command)
}
