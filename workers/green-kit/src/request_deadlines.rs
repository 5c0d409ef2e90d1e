//! Enforces `request_timeout`: a request that exceeds it is logged with its stack, and its current wait fails. Costs
//! nothing without `request_timeout`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use green::{Greenlet, Timer};
use kit::WorkerBase;
use kit::clock::now_ns;
use worker_api::raw::ExchangeBox;
use worker_api::{AppHandle, Host, LogLevel};

use crate::connections::Connections;

/// The requests that the application serves, if there is a limit.
pub(crate) struct RequestDeadlines {
    limited: bool,
    app: AppHandle,
    host: Host,
    requests: RefCell<HashMap<RawFd, Rc<Limited>>>,
}

/// One request with a limit.
struct Limited {
    timer: Timer,
    request: String,
    received_ns: u64,
    deadline_ns: Cell<u64>,
    /// The greenlet that serves it; none if a guest loop does.
    greenlet: Option<Greenlet>,
}

impl RequestDeadlines {
    pub(crate) fn new(base: &WorkerBase) -> Self {
        Self {
            limited: base.context.config.request_timeout.is_some(),
            app: base.app.clone(),
            host: base.host.clone(),
            requests: RefCell::default(),
        }
    }

    /// Starts the timer of a request. To be called before the application.
    pub(crate) fn begin(&self, fd: RawFd, exchange: &ExchangeBox) {
        if !self.limited {
            return;
        }
        let head = exchange.head();
        let time_out = move || {
            if let Some(connections) = Connections::current() {
                connections.deadlines().time_out(&connections, fd);
            }
        };
        // Cannot fail: this is the thread of a hub, where all requests are served.
        let Ok(timer) = Timer::new(time_out) else { return };
        let limited = Limited {
            timer,
            request: format!("{} {}", head.method, head.target.as_slice().escape_ascii()),
            received_ns: head.received_ns,
            deadline_ns: Cell::new(exchange.deadline_ns()),
            greenlet: green::current(),
        };
        limited.set();
        self.requests.borrow_mut().insert(fd, Rc::new(limited));
    }

    /// Moves the deadline of a request.
    pub(crate) fn extend(&self, fd: RawFd, deadline_ns: u64) {
        if let Some(limited) = self.requests.borrow().get(&fd) {
            limited.deadline_ns.set(deadline_ns);
            limited.set();
        }
    }

    /// Ends the timer of a request. To be called when its exchange is over.
    pub(crate) fn end(&self, fd: RawFd) {
        if self.limited {
            let ended = self.requests.borrow_mut().remove(&fd);
            drop(ended);
        }
    }

    /// Consumes the interrupt of a request that ended just when it timed out, so that it does not end the next request.
    pub(crate) fn absorb_interrupt(&self) {
        if self.limited {
            let _ = green::yield_now();
        }
    }

    fn time_out(&self, connections: &Rc<Connections>, fd: RawFd) {
        let Some(limited) = self.requests.borrow().get(&fd).cloned() else { return };
        let age = Duration::from_nanos(now_ns().saturating_sub(limited.received_ns));
        let trace = self.app.trace();
        tracing::warn!(
            "{} timed out after {:.3} s (request_timeout){}{trace}",
            limited.request,
            age.as_secs_f64(),
            if trace.is_empty() { "" } else { ":\n" },
        );
        if let Some(trace) = limited.greenlet.as_ref().and_then(Greenlet::trace) {
            let heading = format!("{} timed out here", limited.request);
            let target = module_path!();
            self.host.log_stack(LogLevel::WARNING, target, &heading, trace.addresses());
        }
        if let Some(greenlet) = &limited.greenlet {
            greenlet.kill();
        }
        if let Some(entry) = connections.entry(fd) {
            entry.fire_on_disconnect();
        }
    }

    fn served_by(&self, greenlet: &Greenlet) -> Option<Rc<Limited>> {
        let requests = self.requests.borrow();
        requests.values().find(|limited| limited.greenlet.as_ref() == Some(greenlet)).cloned()
    }
}

impl Limited {
    fn set(&self) {
        let left = self.deadline_ns.get().saturating_sub(now_ns());
        self.timer.set(Duration::from_nanos(left));
    }
}

/// Returns whether the request of the current greenlet has timed out.
pub(crate) fn current_has_timed_out() -> bool {
    let Some(connections) = Connections::current() else { return false };
    let deadlines = connections.deadlines();
    let served = deadlines.limited.then(green::current).flatten();
    served.and_then(|greenlet| deadlines.served_by(&greenlet)).is_some_and(|limited| {
        let deadline_ns = limited.deadline_ns.get();
        deadline_ns != 0 && deadline_ns <= now_ns()
    })
}
