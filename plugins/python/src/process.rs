//! The application's effects on its process: the Rust side of `process.py`.
//!
//! The kernel's handlers for the server's signals remain the host's; Python's handler table shows what the
//! application expects. When Python code changes that table, CPython also changes the kernel's handler, so the
//! host's is installed again: chained to the application's in a worker ([`worker_api::Host::reclaim_signals`]),
//! alone in the mold.

use std::ffi::c_int;
use std::ptr;

use worker_api::fork;

use crate::method;
use crate::server::{Server, natives};
use crate::{Arguments, GlobalRef, Method, Object, PyErrSet, PyResult, Python, attach, required};

/// Functions of the module `_jimu_process`.
pub const METHODS: &[Method<Server>] = &[
    Method { name: c"_on_signal", entry: method!(on_signal) },
    Method { name: c"_reclaim", entry: method!(reclaim) },
    Method { name: c"_stop", entry: method!(stop) },
];

/// The module `_jimu_process`.
pub struct Process {
    module: GlobalRef,
    /// Actions for the server's signals in the mold before Python code changed them.
    kept: Actions,
}

impl Process {
    /// Creates the module, which imports `jimu`, and installs the server's handlers in the mold.
    pub fn install(server: &Object<'_>) -> PyResult<Self> {
        let natives = natives(server, &[METHODS])?;
        let module = server.py().module("_jimu_process", include_str!("process.py"), &natives)?;
        let kept = actions();
        let installed = module.call_method("install", []);
        restore(&kept);
        installed?;
        Ok(Self { module: module.store(), kept })
    }

    /// Takes the server's signals back in the mold after it has loaded the application.
    pub fn reset_mold(&self, py: Python<'_>) -> PyResult<()> {
        let reset = self.module.get(py).call_method("reset", []);
        restore(&self.kept);
        reset.map(drop)
    }

    /// Like [`Process::reset_mold`], in a newly forked worker, whose host has installed its handlers.
    pub fn reset_worker(&self, py: Python<'_>) -> PyResult<()> {
        fork::watch();
        let kept = actions();
        let reset = self.module.get(py).call_method("reset", []);
        restore(&kept);
        reset.map(drop)
    }

    /// Makes signals with Python handlers wake the main thread, and detects forks. Called in a worker.
    pub fn start_worker(&self, py: Python<'_>, wakeup: c_int) -> PyResult<()> {
        let wakeup = py.number(wakeup.into())?;
        self.module.get(py).call_method("start_worker", [&wakeup]).map(drop)
    }

    /// Runs Python's handlers of pending signals. Called on the main thread.
    pub fn run_handlers(&self) {
        attach(|py| {
            if let Err(raised) = py.check_signals() {
                let exception = raised.take(py);
                let module = self.module.get(py);
                if let Err(raised) = module.call_method("handler_failed", [&exception]) {
                    raised.clear(py);
                }
            }
        });
    }

    /// Ends a process that the application has forked, after the application's code has returned or raised
    /// `raised`. If `waits`, the application's threads are joined first.
    pub fn end_child(&self, py: Python<'_>, waits: bool, raised: Option<PyErrSet>) -> ! {
        let exception = raised.map_or_else(|| py.none(), |raised| raised.take(py));
        let ended = py
            .truth(waits)
            .and_then(|waits| self.module.get(py).call_method("end_child", [&exception, &waits]));
        // `end_child` does not return.
        drop(ended);
        fork::end(1)
    }
}

/// `_on_signal(number)`: performs the server's action for a signal.
fn on_signal<'py>(
    py: Python<'py>,
    server: &Server,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [number] = arguments.take(["number"])?;
    let number = required(py, number, "number")?.as_number()?;
    server.host.on_signal(number as i32);
    Ok(py.none())
}

/// `_reclaim()`: installs the host's handler again, chained to the application's new one.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn reclaim<'py>(
    py: Python<'py>,
    server: &Server,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    server.host.reclaim_signals();
    Ok(py.none())
}

/// `_stop()`: stops the worker after its requests.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn stop<'py>(
    py: Python<'py>,
    server: &Server,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    server.host.on_signal(libc::SIGTERM);
    Ok(py.none())
}

type Actions = [libc::sigaction; OWNED.len()];

fn actions() -> Actions {
    OWNED.map(|signal| {
        // SAFETY: a zeroed sigaction is valid to write to; no handler is changed.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, ptr::null(), &raw mut action);
            action
        }
    })
}

fn restore(actions: &Actions) {
    for (signal, action) in OWNED.into_iter().zip(actions) {
        // SAFETY: the action was previously installed for this signal.
        unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
    }
}

/// Signals of the server, as in `process.py`.
const OWNED: [c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];
