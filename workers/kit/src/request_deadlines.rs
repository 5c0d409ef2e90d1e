//! Requests that run over `request_timeout` on threads that may block: a thread of its own watches their time, since
//! those who serve them do not come round to it.
//!
//! There is no such thread where there is no such limit. What can be ended is ended by the class: see [`RequestDeadlines::start`].

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket;
use nix::unistd::Pid;
use worker_api::abi::std_types::{ROption, RSlice};
use worker_api::raw::ExchangeBox;
use worker_api::{AccessRecord, Address, AppHandle, Host, RequestHead, Version};

use crate::clock::now_ns;
use crate::connection::Connection;
use crate::context::ServerContext;
use crate::driver::ConnectionDriver;
use crate::wire::{self, Wire};
use crate::worker_base::WorkerBase;

/// Calls the application, and watches for how long it has each request. Costs nothing where there is no such limit.
#[derive(Clone)]
pub struct RequestDeadlines {
    app: AppHandle,
    watch: Option<Arc<Watch>>,
}

/// The requests that are with the application, by their connection.
struct Watch {
    requests: Mutex<HashMap<RawFd, Limited>>,
    begun: Condvar,
    app: AppHandle,
    context: Arc<ServerContext>,
}

/// A request that has run over.
#[derive(Clone)]
pub struct TimedOutRequest {
    method: String,
    target: Vec<u8>,
    version: &'static str,
    peer: String,
    port: u16,
    received_ns: u64,
    /// The status with which it was answered in place of the application; 0 where its response had begun.
    status: u16,
}

struct Limited {
    request: TimedOutRequest,
    /// Monotonic nanoseconds; 0 once it has passed.
    deadline_ns: u64,
    wire: Arc<Wire>,
}

impl TimedOutRequest {
    /// Its method and target, for the log.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.target.escape_ascii())
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.received_ns))
    }

    /// Writes its line into the access log: for a class that ends with it. Elsewhere the exchange does that when the
    /// application leaves it.
    pub fn record(&self, host: &Host) {
        let line = [self.method.as_bytes(), &self.target, self.version.as_bytes()].join(&b' ');
        let record = AccessRecord {
            head: ROption::RNone,
            request_line: line.as_slice().into(),
            peer: Address { host: self.peer.as_str().into(), port: self.port },
            status: self.status,
            body_bytes: 0,
            duration_ns: now_ns().saturating_sub(self.received_ns),
            response_headers: RSlice::EMPTY,
        };
        host.request_ended(0, &record);
    }

    fn of(head: &RequestHead<'_>) -> Self {
        Self {
            method: head.method.to_string(),
            target: head.target.to_vec(),
            version: if head.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            peer: head.peer.host.to_string(),
            port: head.peer.port,
            received_ns: head.received_ns,
            status: 0,
        }
    }
}

impl RequestDeadlines {
    /// Watches the requests of a worker. A request that runs over is named in the log with its age and where the
    /// application stands. Its client gets a 500 where nothing of the response was sent (not through TLS), and its
    /// connection is shut down: what is written to it fails. Then `ran_over` is called with those that ran over together,
    /// on a separate thread.
    pub fn start(
        base: &WorkerBase,
        ran_over: impl Fn(&[TimedOutRequest]) + Send + 'static,
    ) -> io::Result<Self> {
        let app = base.app.clone();
        if base.context.config.request_timeout.is_none() {
            return Ok(Self { app, watch: None });
        }
        let watch = Arc::new(Watch {
            requests: Mutex::default(),
            begun: Condvar::new(),
            app: base.app.clone(),
            context: Arc::clone(&base.context),
        });
        let watched = Arc::clone(&watch);
        thread::Builder::new().name("overtime".to_owned()).spawn(move || watched.run(ran_over))?;
        Ok(Self { app, watch: Some(watch) })
    }

    /// Has the application answer the request that a connection has: only after [`Advance::Request`]. The connection
    /// comes back through [`ConnectionDriver::release`], of which [`RequestDeadlines::end`] is to be told.
    ///
    /// [`Advance::Request`]: crate::Advance::Request
    pub fn call(&self, connection: Box<Connection>, home: Arc<dyn ConnectionDriver>) {
        let fd = connection.fd();
        let wire = self.watch.as_ref().map(|_| Arc::clone(&connection.wire));
        let exchange = connection.into_exchange(home);
        if let (Some(watch), Some(wire)) = (&self.watch, wire) {
            watch.begin(fd, &exchange, wire);
        }
        self.app.call(exchange);
    }

    /// The request has got more time: [`ConnectionDriver::deadline_extended`].
    pub fn extend(&self, fd: RawFd, deadline_ns: u64) {
        if let Some(watch) = &self.watch
            && let Some(limited) = watch.lock().get_mut(&fd)
        {
            limited.deadline_ns = deadline_ns;
        }
    }

    /// The request is over; from now on its descriptor may be another connection's.
    pub fn end(&self, fd: RawFd) {
        if let Some(watch) = &self.watch {
            watch.lock().remove(&fd);
        }
    }
}

impl Watch {
    fn begin(&self, fd: RawFd, exchange: &ExchangeBox, wire: Arc<Wire>) {
        let deadline_ns = exchange.deadline_ns();
        if deadline_ns == 0 {
            return;
        }
        let limited = Limited { request: TimedOutRequest::of(exchange.head()), deadline_ns, wire };
        self.lock().insert(fd, limited);
        self.begun.notify_one();
    }

    fn run(&self, ran_over: impl Fn(&[TimedOutRequest])) {
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
                if limited.wire.claim().is_some_and(|claim| claim.answer(&self.context, *fd)) {
                    limited.request.status = wire::STATUS;
                }
                let _ = socket::shutdown(*fd, socket::Shutdown::Both);
                late.push(limited.request.clone());
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
            self.name(&late);
            ran_over(&late);
            requests = self.lock();
        }
    }

    /// Logs which requests ran over, and where the application stands. One that does not even answer that question
    /// serves no request any more: another worker is to take over.
    fn name(&self, late: &[TimedOutRequest]) {
        for request in late {
            let seconds = request.age().as_secs_f64();
            tracing::error!(
                "{} has run over its time (request_timeout): {seconds:.1} s",
                request.name()
            );
        }
        if self.context.is_stuck() {
            return;
        }
        let Ok(answer) = self.ask_for_trace() else { return };
        match answer.recv_timeout(TRACE_PATIENCE) {
            Ok(trace) if trace.is_empty() => {}
            Ok(trace) => {
                let names: Vec<String> = late.iter().map(TimedOutRequest::name).collect();
                tracing::error!("{} stands here:\n{}", names.join(", "), trace.trim_end());
            }
            Err(_) => self.give_up(answer),
        }
    }

    /// Has a thread ask, since the answer may never come: an application with a lock for all of it, as Python's, can hang
    /// with the lock held.
    fn ask_for_trace(&self) -> io::Result<Receiver<String>> {
        let (answers, answer) = channel();
        let app = self.app.clone();
        let ask = move || {
            // No one may wait for it any more.
            let _ = answers.send(app.trace());
        };
        thread::Builder::new().name("trace".to_owned()).spawn(ask)?;
        Ok(answer)
    }

    /// The application does not respond. The worker stops accepting and is replaced; where the application has not come
    /// round by then, the worker aborts, which logs where it stands and lets its clients go.
    fn give_up(&self, answer: Receiver<String>) {
        self.context.set_stuck();
        tracing::error!(
            "the application does not respond, as if it hung with a lock held: another worker takes over"
        );
        self.context.host.retire_for("its application does not respond");
        let context = Arc::clone(&self.context);
        let abort = move || {
            if answer.recv_timeout(ABORT_AFTER).is_err() {
                context.wires.answer_all(&context);
                // A process may always send a signal to itself.
                let _ = kill(Pid::this(), Signal::SIGABRT);
            }
        };
        if let Err(error) = thread::Builder::new().name("abort".to_owned()).spawn(abort) {
            tracing::debug!("cannot watch the application that does not respond: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RawFd, Limited>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long after its time a request is cut: one that waits for its client notices by itself, and is answered.
const GRACE_NS: u64 = 100_000_000;
/// How long the application may take to say where it stands. A worker that is replaced for a slow answer loses nothing.
const TRACE_PATIENCE: Duration = Duration::from_millis(300);
/// How long after that it may come round: its successor serves by then.
const ABORT_AFTER: Duration = Duration::from_secs(2);
/// The longest that the watch sleeps: a deadline is never further away than it was when it began to.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
