//! Guest loops: gevent or eventlet itself runs this process, and watches the worker class's engine as one
//! descriptor among its own.
//!
//! The loops are driven in Python (`driver.py`, with `gevent.py` or `eventlet.py` for the differences), so that no
//! function of the server is on the stack when a greenlet waits for a request. The functions of the engine never block.
//! Those that read and send a body wait in the greenlet of their request, with nothing borrowed: the waker adds the
//! request's number to a list that the driver reads after each turn of the engine. A contended lock
//! ([`rlock`]) waits in its greenlet, too.

pub(crate) mod engine;
mod leftovers;
pub(crate) mod methods;
mod rlock;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use worker_api::{Exchange, Failure, Result, Waker};

use leftovers::Leftovers;
use python::{GlobalRef, Object, PyResult, Python};

/// A guest loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loop {
    /// gevent's hub.
    Gevent,
    /// eventlet's hub.
    Eventlet,
}

impl Loop {
    /// Returns the loop named by [`worker_api::AppContext::guest_loop`]; `None` for an empty name.
    pub(crate) fn named(name: &str) -> Result<Option<Self>> {
        match name {
            "" => Ok(None),
            "gevent" => Ok(Some(Self::Gevent)),
            "eventlet" => Ok(Some(Self::Eventlet)),
            other => {
                let message = format!("unknown guest loop `{other}`: expected gevent or eventlet");
                Err(Failure::unsupported(message))
            }
        }
    }

    /// Patches Python's standard library, before any application code is imported. Returns the loop's module.
    pub(crate) fn patch(self, py: Python<'_>) -> PyResult<Object<'_>> {
        let (name, source) = match self {
            Self::Gevent => ("_jimu_gevent", include_str!("gevent.py")),
            Self::Eventlet => ("_jimu_eventlet", include_str!("eventlet.py")),
        };
        let module = py.module(name, source, &[])?;
        module.call_method("patch", [])?;
        module.call_method("replace_rlock", [&rlock::factory(py)?])?;
        Ok(module)
    }
}

/// Per-process state of a guest loop.
pub(crate) struct Guest {
    /// The module of the loop.
    module: GlobalRef,
    /// The loop's driver.
    driver: GlobalRef,
    /// The driver's function that waits for a request's waker.
    wait: GlobalRef,
    /// What requests leave behind.
    leftovers: Leftovers,
    /// Exchanges that are not yet assigned to a greenlet.
    ready: Mutex<VecDeque<Exchange>>,
    /// Numbers of requests whose wait is over.
    woken: Arc<Mutex<Vec<u64>>>,
    /// Numbers of requests whose client has disconnected or whose deadline has passed.
    gone: Arc<Mutex<Vec<u64>>>,
}

impl Guest {
    /// Creates the driver of a loop from the module returned by [`Loop::patch`]. `limited` tells whether
    /// requests have a deadline.
    pub(crate) fn new(module: &Object<'_>, limited: bool) -> PyResult<Self> {
        let py = module.py();
        let driver = py.module("_jimu_driver", include_str!("driver.py"), &[])?;
        let made = driver.attr_named("Driver")?.call([module, &py.truth(limited)?])?;
        Ok(Self {
            leftovers: Leftovers::new(&made)?,
            wait: made.attr_named("wait")?.store(),
            driver: made.store(),
            module: module.clone().store(),
            ready: Mutex::new(VecDeque::new()),
            woken: Arc::default(),
            gone: Arc::default(),
        })
    }

    /// Queues an exchange, which a greenlet serves later.
    pub(crate) fn take(&self, exchange: Exchange) {
        locked(&self.ready).push_back(exchange);
    }

    /// Makes the loop usable in the child after a fork.
    pub(crate) fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        self.module.get(py).call_method("after_fork", []).map(drop)
    }

    /// Runs the loop in the mold until the descriptor is readable. Returns at once if the loop has nothing to
    /// run.
    pub(crate) fn wait_in_mold(&self, py: Python<'_>, descriptor: i32) -> PyResult<()> {
        let descriptor = py.number(descriptor.into())?;
        self.module.get(py).call_method("wait_in_mold", [&descriptor]).map(drop)
    }

    /// Runs the loop until the engine has stopped: the object of [`engine`].
    fn run<'py>(&self, engine: &Object<'py>, application: &Object<'py>) -> PyResult<()> {
        let driver = self.driver.get(engine.py());
        driver.call_method("run", [engine, application]).map(drop)
    }

    /// Returns the stack of each greenlet that serves a request.
    pub(crate) fn trace(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.driver.get(py).call_method("trace", [])?.to_text())
    }

    /// Returns a waker that adds the number to the list read by `woken()`.
    pub(crate) fn waker(&self, number: u64) -> Waker {
        let woken = Arc::clone(&self.woken);
        Waker::new(move || locked(&woken).push(number))
    }

    /// Returns a waker that adds the number to the list read by `gone()`.
    fn gone_waker(&self, number: u64) -> Waker {
        let gone = Arc::clone(&self.gone);
        Waker::new(move || locked(&gone).push(number))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
