//! Requests that run over `request_timeout` on threads that may block: a thread of its own watches their time, since
//! those who serve them do not come round to it.
//!
//! There is no such thread where there is no such limit. What can be ended is ended by the class: see [`Overtime::start`].

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use std::{io, mem};

use nix::sys::socket;
use worker_api::AppHandle;
use worker_api::raw::ExchangeBox;

use crate::base::Base;
use crate::clock::now_ns;

/// The requests that are with the application, by their connection.
pub struct Overtime {
    requests: Mutex<HashMap<RawFd, Limited>>,
    begun: Condvar,
    app: AppHandle,
}

struct Limited {
    request: String,
    received_ns: u64,
    /// Monotonic nanoseconds; 0 once it has passed.
    deadline_ns: u64,
}

impl Overtime {
    /// Watches the requests of a worker; nothing where they have no limit. A request that runs over is named in the log
    /// with its age and where the application stands, and its connection is shut down: what is written to it fails.
    /// Then `ran_over` is called, on a thread of its own.
    pub fn start(
        base: &Base,
        ran_over: impl Fn() + Send + 'static,
    ) -> io::Result<Option<Arc<Self>>> {
        if base.kit.config.request_timeout.is_none() {
            return Ok(None);
        }
        let overtime = Arc::new(Self {
            requests: Mutex::default(),
            begun: Condvar::new(),
            app: base.app.clone(),
        });
        let watched = Arc::clone(&overtime);
        thread::Builder::new()
            .name("overtime".to_owned())
            .spawn(move || watched.watch(ran_over))?;
        Ok(Some(overtime))
    }

    /// The application is about to be called.
    pub fn begin(&self, fd: RawFd, exchange: &ExchangeBox) {
        let deadline_ns = exchange.deadline_ns();
        if deadline_ns == 0 {
            return;
        }
        let head = exchange.head();
        let request = format!("{} {}", head.method, head.target.as_slice().escape_ascii());
        let limited = Limited { request, received_ns: head.received_ns, deadline_ns };
        self.lock().insert(fd, limited);
        self.begun.notify_one();
    }

    /// The request has got more time.
    pub fn extend(&self, fd: RawFd, deadline_ns: u64) {
        if let Some(limited) = self.lock().get_mut(&fd) {
            limited.deadline_ns = deadline_ns;
        }
    }

    /// The request is over; from now on its descriptor may be another connection's.
    pub fn end(&self, fd: RawFd) {
        self.lock().remove(&fd);
    }

    fn watch(&self, ran_over: impl Fn()) {
        let mut requests = self.lock();
        loop {
            let now = now_ns();
            let mut late = Vec::new();
            let mut next_ns = u64::MAX;
            for (fd, limited) in requests.iter_mut().filter(|(_, limited)| limited.deadline_ns != 0)
            {
                let due_ns = limited.deadline_ns.saturating_add(GRACE_NS);
                if due_ns > now {
                    next_ns = next_ns.min(due_ns);
                    continue;
                }
                limited.deadline_ns = 0;
                // While the lock is held the request is not over, so the descriptor is its connection's. One that the
                // client has closed already needs no end.
                let _ = socket::shutdown(*fd, socket::Shutdown::Both);
                late.push((
                    mem::take(&mut limited.request),
                    now.saturating_sub(limited.received_ns),
                ));
            }
            if late.is_empty() {
                let pause = Duration::from_nanos(next_ns.saturating_sub(now)).min(PAUSE_MAX);
                requests = self
                    .begun
                    .wait_timeout(requests, pause)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            drop(requests);
            for (request, age_ns) in late {
                self.name(&request, Duration::from_nanos(age_ns));
            }
            ran_over();
            requests = self.lock();
        }
    }

    fn name(&self, request: &str, age: Duration) {
        let seconds = age.as_secs_f64();
        tracing::error!("{request} has run over its time (request_timeout): {seconds:.1} s");
        // Behind the line itself: an application that holds a lock of its own may be slow to answer.
        let trace = self.app.trace();
        if !trace.is_empty() {
            tracing::error!("{request} stands here:\n{}", trace.trim_end());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RawFd, Limited>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long after its time a request is cut: one that waits for its client notices by itself, and is answered.
const GRACE_NS: u64 = 100_000_000;
/// The longest that the watch sleeps: a deadline is never further away than it was when it began to.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
