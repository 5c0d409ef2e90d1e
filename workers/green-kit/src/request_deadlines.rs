//! Enforces `request_timeout`: a request that exceeds it is logged with its stack, and its current wait fails. Costs
//! nothing without `request_timeout`.
//!
//! The kit has another type for classes whose threads may block: it watches from a separate thread, and cuts a request
//! at its socket. Here each deadline is a timer of the hub, and the greenlet that serves the request is killed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use jimu_green::{Greenlet, Timer};
use jimu_kit::clock::now_ns;
use jimu_kit::{Deadline, WorkerBase};
use worker_api::raw::ExchangeBox;
use worker_api::{AppHandle, Host, LogLevel};

use crate::entry::ConnectionEntry;

/// The requests that the application serves, and their limits.
pub(crate) struct RequestDeadlines {
    app: AppHandle,
    host: Host,
    requests: RefCell<HashMap<RawFd, Rc<Limited>>>,
}

/// One request with a limit.
struct Limited {
    timer: Timer,
    /// The entry of its connection.
    entry: Weak<ConnectionEntry>,
    request: String,
    received_ns: u64,
    deadline: Cell<Deadline>,
    /// The greenlet that serves it; none if a guest loop does.
    greenlet: Option<Greenlet>,
}

impl RequestDeadlines {
    /// Creates the limits; `None` if there is no `request_timeout`.
    pub(crate) fn new(base: &WorkerBase) -> Option<Rc<Self>> {
        base.context.config.request_timeout.map(|_| {
            Rc::new(Self {
                app: base.app.clone(),
                host: base.host.clone(),
                requests: RefCell::default(),
            })
        })
    }

    /// Starts the timer of a request. To be called before the application.
    pub(crate) fn begin(
        self: &Rc<Self>,
        fd: RawFd,
        exchange: &ExchangeBox,
        entry: Option<&Rc<ConnectionEntry>>,
    ) {
        let head = exchange.head();
        let deadlines = Rc::downgrade(self);
        let time_out = move || {
            if let Some(deadlines) = deadlines.upgrade() {
                deadlines.time_out(fd);
            }
        };
        // Cannot fail: this is the thread of a hub, where all requests are served.
        let Ok(timer) = Timer::new(time_out) else { return };
        let limited = Limited {
            timer,
            entry: entry.map(Rc::downgrade).unwrap_or_default(),
            request: format!("{} {}", head.method, head.target.as_slice().escape_ascii()),
            received_ns: head.received_ns,
            deadline: Cell::new(Deadline::from_abi(exchange.deadline_ns())),
            greenlet: jimu_green::current(),
        };
        limited.set();
        self.requests.borrow_mut().insert(fd, Rc::new(limited));
    }

    /// Moves the deadline of a request, or ends its timer if there is none any more.
    pub(crate) fn extend(&self, fd: RawFd, deadline: Deadline) {
        if deadline.is_never() {
            self.end(fd);
        } else if let Some(limited) = self.requests.borrow().get(&fd) {
            limited.deadline.set(deadline);
            limited.set();
        }
    }

    /// Ends the timer of a request. To be called when its exchange is over.
    pub(crate) fn end(&self, fd: RawFd) {
        let ended = self.requests.borrow_mut().remove(&fd);
        drop(ended);
    }

    /// Returns whether the request of the current greenlet has timed out.
    pub(crate) fn current_has_timed_out(&self) -> bool {
        let limited = jimu_green::current().and_then(|greenlet| self.served_by(&greenlet));
        limited.is_some_and(|limited| limited.deadline.get().is_past())
    }

    fn time_out(&self, fd: RawFd) {
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
        if let Some(entry) = limited.entry.upgrade() {
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
        let left_ns = self.deadline.get().left_ns_at(now_ns());
        self.timer.set(Duration::from_nanos(left_ns));
    }
}
