//! Creates the state of this process: the [`PythonRuntime`] and, above it, the [`Requests`].

use std::sync::OnceLock;

use worker_api::Host;

use crate::environ::Constants;
use crate::guest::{Guest, Loop};
use crate::methods;
use crate::request::Requests;
use crate::runtime::{Parts, PythonRuntime};
use python::{Interpreter, PyResult, Python};

/// Arguments of [`create`].
pub(crate) struct Plan {
    /// Services of the host.
    pub(crate) host: Host,
    /// Whether several threads or greenlets serve at once.
    pub(crate) multithread: bool,
    /// `GATEWAY_INTERFACE`, which gevent's server sets and gunicorn does not.
    pub(crate) gateway_interface: Option<&'static str>,
    /// Guest loop to drive the worker class's engine.
    pub(crate) guest: Option<Loop>,
}

/// Creates the state. Called once per process.
pub(crate) fn create(py: Python<'_>, plan: Plan) -> PyResult<&'static Requests> {
    // Must precede every import of something that the loop patches.
    let patched = plan.guest.map(|guest| guest.patch(py)).transpose()?;
    let interpreter = Interpreter::new(py, plan.host, "wsgi", plan.guest.is_none())?;
    let host = &interpreter.host;
    let constants = Constants {
        multithread: plan.multithread,
        gateway_interface: plan.gateway_interface,
        multiprocess: host.setting_int("workers").is_some_and(|workers| workers > 1),
        software: format!("jimu/{}", env!("CARGO_PKG_VERSION")),
        errors: interpreter.of_module(py, "errors")?.store(),
        file_wrapper: interpreter.of_module(py, "FileWrapper")?.store(),
        script_name: OnceLock::new(),
    };
    let limited = host.setting_duration("request_timeout").is_some();
    let guest = patched.map(|patched| Guest::new(&patched, limited)).transpose()?;
    let types = methods::types(py)?;
    let parts =
        Parts { interpreter, guest, constants, offers_websocket: plan.guest == Some(Loop::Gevent) };
    Ok(Requests::new(PythonRuntime::new(py, parts)?, types))
}
