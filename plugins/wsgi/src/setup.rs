//! Creates the [`PythonRuntime`] of this process.

use std::sync::OnceLock;

use worker_api::Host;

use crate::environ::Constants;
use crate::guest::{self, Guest, Loop};
use crate::python::{PyResult, Python};
use crate::runtime::{Parts, PythonRuntime};
use crate::{jimu, methods, process};

/// Arguments of [`install`].
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

/// Creates the runtime and installs it. Called once per process.
pub(crate) fn install(py: Python<'_>, plan: Plan) -> PyResult<&'static PythonRuntime> {
    // Must precede every import of something that the loop patches.
    let patched = plan.guest.map(|guest| guest.patch(py)).transpose()?;
    let module = jimu::module(py)?;
    let process = process::module(py)?.store();
    process::install(py, &process)?;
    let constants = Constants {
        multithread: plan.multithread,
        gateway_interface: plan.gateway_interface,
        multiprocess: plan.host.setting_int("workers").is_some_and(|workers| workers > 1),
        software: format!("jimu/{}", env!("CARGO_PKG_VERSION")),
        errors: module.attr_named("errors")?.store(),
        file_wrapper: module.attr_named("FileWrapper")?.store(),
        script_name: OnceLock::new(),
    };
    let limited = plan.host.setting_duration("request_timeout").is_some();
    let guest = patched.map(|patched| {
        let natives = guest::methods::for_driver(py)?;
        Guest::new(py, patched, limited, natives)
    });
    let guest = guest.transpose()?;
    let types = methods::types(py, guest.as_ref())?;
    let parts = Parts {
        types,
        module: module.store(),
        process,
        guest,
        constants,
        offers_websocket: plan.guest == Some(Loop::Gevent),
        host: plan.host,
    };
    PythonRuntime::install(py, parts)
}
