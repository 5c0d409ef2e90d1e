//! Creates the state of this process: the [`PythonRuntime`] and, above it, the [`Requests`].

use std::ffi::CStr;
use std::sync::{Arc, OnceLock};

use worker_api::Host;

use crate::environ::Constants;
use crate::guest::{Guest, Loop};
use crate::process::{self, Process};
use crate::python::{Method, Native, NativeType, PyResult, Python};
use crate::request::Requests;
use crate::runtime::{Parts, PythonRuntime};
use crate::server::{Drain, Server};
use crate::{drain, faults, jimu, methods};

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
    let drain = Arc::new(Drain::default());
    let server = Server { host: plan.host.clone(), drain: Arc::clone(&drain) };
    let server = NativeType::new(py)?.make(py, server)?;
    let module = jimu::module(&server)?;
    let process = Process::install(&server)?;
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
    let guest = patched.map(|patched| Guest::new(&patched, limited)).transpose()?;
    let types = methods::types(py, guest.as_ref())?;
    let parts = Parts {
        drain,
        server: server.store(),
        module: module.store(),
        process,
        guest,
        constants,
        offers_websocket: plan.guest == Some(Loop::Gevent),
        host: plan.host,
    };
    Ok(Requests::new(PythonRuntime::new(py, parts)?, types))
}

impl Native for Server {
    const NAME: &'static CStr = c"jimu.Server";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[jimu::METHODS, drain::METHODS, process::METHODS, faults::METHODS];
}
