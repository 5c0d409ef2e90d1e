//! Requests that run over `request_timeout`: each is named in the log with where it stands, and what it waits for
//! fails. Costs nothing where there is no such limit.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use green::{Greenlet, Timer};
use kit::WorkerBase;
use kit::clock::now_ns;
use worker_api::AppHandle;
use worker_api::raw::ExchangeBox;

use crate::connections::Connections;

/// The requests that are with the application, where these have a limit.
pub(crate) struct RequestDeadlines {
    limited: bool,
    app: AppHandle,
    requests: RefCell<HashMap<RawFd, Rc<Limited>>>,
}

/// One request with a limit.
struct Limited {
    timer: Timer,
    request: String,
    received_ns: u64,
    deadline_ns: Cell<u64>,
    /// Who serves it; nobody where a guest loop does.
    greenlet: Option<Greenlet>,
}

impl RequestDeadlines {
    pub(crate) fn new(base: &WorkerBase) -> Self {
        Self {
            limited: base.context.config.request_timeout.is_some(),
            app: base.app.clone(),
            requests: RefCell::default(),
        }
    }

    /// The application is about to be called.
    pub(crate) fn begin(&self, fd: RawFd, exchange: &ExchangeBox) {
        if !self.limited {
            return;
        }
        let head = exchange.head();
        let ran_over = move || {
            if let Some(connections) = Connections::here() {
                connections.deadlines().ran_over(&connections, fd);
            }
        };
        // There is a hub: requests are served on its thread alone.
        let Ok(timer) = Timer::new(ran_over) else { return };
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

    /// The request got more time.
    pub(crate) fn extend(&self, fd: RawFd, deadline_ns: u64) {
        if let Some(limited) = self.requests.borrow().get(&fd) {
            limited.deadline_ns.set(deadline_ns);
            limited.set();
        }
    }

    /// The exchange is over.
    pub(crate) fn end(&self, fd: RawFd) {
        if self.limited {
            let over = self.requests.borrow_mut().remove(&fd);
            drop(over);
        }
    }

    /// A request that ended just when it ran over leaves an interrupt behind, which the next one is not to meet.
    pub(crate) fn absorb(&self) {
        if self.limited {
            let _ = green::yield_now();
        }
    }

    fn ran_over(&self, connections: &Rc<Connections>, fd: RawFd) {
        let Some(limited) = self.requests.borrow().get(&fd).cloned() else { return };
        let age = Duration::from_nanos(now_ns().saturating_sub(limited.received_ns));
        let told = self.app.trace();
        tracing::warn!(
            "{} runs since {:.3} s, which is over its time (request_timeout){}{told}",
            limited.request,
            age.as_secs_f64(),
            if told.is_empty() { "" } else { ":\n" },
        );
        if let Some(trace) = limited.greenlet.as_ref().and_then(Greenlet::trace) {
            tell_stack(limited.request.clone(), trace);
        }
        if let Some(greenlet) = &limited.greenlet {
            greenlet.kill();
        }
        if let Some(place) = connections.place(fd) {
            place.fire_gone();
        }
    }

    fn serves(&self, greenlet: &Greenlet) -> Option<Rc<Limited>> {
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

/// Logs where a request stood. To name the functions takes a second or more where a library is full of symbols: a thread
/// does it, while others are served.
fn tell_stack(request: String, trace: Backtrace) {
    let told = green::spawn(move || match green::offload(move || trace.to_string()) {
        Ok(stack) => tracing::warn!("{request} stood here when its time was up:\n{stack}"),
        Err(error) => tracing::warn!("where {request} stood cannot be told: {error}"),
    });
    if let Err(error) = told {
        tracing::warn!("there is no greenlet to tell where a request stood: {error}");
    }
}

/// Whether the request of the greenlet that runs now has had its time.
pub(crate) fn is_over() -> bool {
    let Some(connections) = Connections::here() else { return false };
    let deadlines = connections.deadlines();
    let served = deadlines.limited.then(green::current).flatten();
    served.and_then(|greenlet| deadlines.serves(&greenlet)).is_some_and(|limited| {
        let deadline_ns = limited.deadline_ns.get();
        deadline_ns != 0 && deadline_ns <= now_ns()
    })
}
