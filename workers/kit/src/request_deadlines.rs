//! Enforcing `request_timeout` for classes whose threads may block: a separate thread watches the deadlines,
//! because a thread that hangs in the application cannot.
//!
//! The thread exists only if the limit is set. The class decides how to end what can be ended: see
//! [`RequestDeadlines::start`].
//!
//! The cooperative classes use another type, in `green-kit`, which shares no part with this one. There a deadline is a
//! timer of the hub, and a request ends when its greenlet is killed, which only the hub's thread can do: so that type has
//! neither a thread nor a lock, and its requests hold greenlets. Here a thread that hangs cannot be interrupted: the
//! request is cut at its socket, from outside, and the client gets its response from the thread that watches.

use std::io;
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket;
use nix::unistd::Pid;
use worker_api::raw::ExchangeBox;
use worker_api::{Address, AppHandle, Host, RequestHead, Version};

use crate::clock::now_ns;
use crate::connection::Connection;
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::driver::ConnectionDriver;
use crate::hung_request;
use crate::registry::Registry;
use crate::wire::{RequestLine, Wire};
use crate::worker_base::WorkerBase;

/// Calls the application, and watches the deadline of each request. Costs nothing without `request_timeout`.
#[derive(Clone)]
pub struct RequestDeadlines {
    app: AppHandle,
    tracker: Option<Arc<Tracker>>,
}

/// The requests that the application is serving, and the thread that watches them.
struct Tracker {
    requests: Mutex<Requests>,
    /// Wakes the thread for a deadline before its next check.
    earlier: Condvar,
    app: AppHandle,
    context: Arc<ServerContext>,
}

#[derive(Default)]
struct Requests {
    /// By the descriptor of their connection. A request waits for the moment at which it is cut.
    by_fd: Registry<Tracked>,
    /// When the thread checks them next.
    check: Deadline,
}

/// A request that exceeded its time.
#[derive(Clone)]
pub struct TimedOutRequest {
    method: String,
    target: Vec<u8>,
    version: Version,
    peer: String,
    port: u16,
    received_ns: u64,
    /// The status of the response that was sent on behalf of the application; 0 if none was sent.
    status: u16,
}

struct Tracked {
    request: TimedOutRequest,
    wire: Arc<Wire>,
}

impl TimedOutRequest {
    /// Returns the method and target, for the log.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.target.escape_ascii())
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.received_ns))
    }

    /// Writes the request's line into the access log, for a class that terminates with the request. Otherwise
    /// the exchange does that when the application drops it.
    pub fn record(&self, host: &Host) {
        let line = RequestLine {
            method: self.method.as_bytes(),
            target: &self.target,
            peer: Address { host: self.peer.as_str().into(), port: self.port },
            version: self.version,
            received_ns: self.received_ns,
        };
        line.record(host, self.status);
    }

    fn of(head: &RequestHead<'_>) -> Self {
        Self {
            method: head.method.to_string(),
            target: head.target.to_vec(),
            version: head.version,
            peer: head.peer.host.to_string(),
            port: head.peer.port,
            received_ns: head.received_ns,
            status: 0,
        }
    }
}

impl RequestDeadlines {
    /// Watches the requests of a worker. If a request exceeds its time, its age and the application's stack
    /// traces are logged. Its client receives a 500 if nothing of the response was sent, and its connection is
    /// shut down, so that later writes fail. Then `on_timeout` is called on a separate thread with all
    /// requests that exceeded their time at this moment.
    pub fn start(
        base: &WorkerBase,
        on_timeout: impl Fn(&[TimedOutRequest]) + Send + 'static,
    ) -> io::Result<Self> {
        let app = base.app.clone();
        if base.context.config.request_timeout.is_none() {
            return Ok(Self { app, tracker: None });
        }
        let tracker = Arc::new(Tracker {
            requests: Mutex::default(),
            earlier: Condvar::new(),
            app: base.app.clone(),
            context: Arc::clone(&base.context),
        });
        let shared = Arc::clone(&tracker);
        thread::Builder::new()
            .name("request-timeout".to_owned())
            .spawn(move || shared.run(on_timeout))?;
        Ok(Self { app, tracker: Some(tracker) })
    }

    /// Calls the application with the request of a connection: only valid after [`Advance::Request`]. The
    /// connection returns through [`ConnectionDriver::release`], which has to call [`RequestDeadlines::end`].
    ///
    /// [`Advance::Request`]: crate::Advance::Request
    pub fn call(&self, connection: Box<Connection>, driver: Arc<dyn ConnectionDriver>) {
        let fd = connection.fd();
        let wire = self.tracker.as_ref().map(|_| Arc::clone(&connection.io.wire));
        let exchange = connection.into_exchange(driver);
        if let (Some(tracker), Some(wire)) = (&self.tracker, wire) {
            tracker.begin(fd, &exchange, wire);
        }
        self.app.call(exchange);
    }

    /// Moves the deadline of a request, or stops watching it if there is none any more: for
    /// [`ConnectionDriver::deadline_extended`].
    pub fn extend(&self, fd: RawFd, deadline: Deadline) {
        if deadline.is_never() {
            self.end(fd);
        } else if let Some(tracker) = &self.tracker {
            let mut requests = tracker.lock();
            if requests.by_fd.get_mut(fd).is_some() {
                tracker.watch(&mut requests, fd, deadline);
            }
        }
    }

    /// Stops watching the request; its descriptor may belong to another connection from now on.
    pub fn end(&self, fd: RawFd) {
        if let Some(tracker) = &self.tracker {
            // The guard is a temporary: the request is dropped after the lock is released.
            let _ended = tracker.lock().by_fd.remove(fd);
        }
    }
}

impl Tracker {
    fn begin(&self, fd: RawFd, exchange: &ExchangeBox, wire: Arc<Wire>) {
        let deadline = Deadline::from_abi(exchange.deadline_ns());
        if deadline.is_never() {
            return;
        }
        let tracked = Tracked { request: TimedOutRequest::of(exchange.head()), wire };
        let mut requests = self.lock();
        requests.by_fd.insert(fd, tracked);
        self.watch(&mut requests, fd, deadline);
    }

    /// Sets the deadline of a request, and wakes the thread if its next check is too late for that. It rarely is: while
    /// requests are served, the thread waits for the first deadline, and later requests have later ones.
    fn watch(&self, requests: &mut Requests, fd: RawFd, deadline: Deadline) {
        let due = deadline.later_by(GRACE_NS);
        requests.by_fd.begin_wait(fd, due, None);
        if due < requests.check {
            self.earlier.notify_one();
        }
    }

    fn run(&self, on_timeout: impl Fn(&[TimedOutRequest])) {
        let mut requests = self.lock();
        loop {
            let now_ns = now_ns();
            let overdue = self.cut_overdue(&mut requests, now_ns);
            if !overdue.is_empty() {
                drop(requests);
                self.log_overdue(&overdue);
                on_timeout(&overdue);
                requests = self.lock();
                continue;
            }
            let left_ns = requests.by_fd.earliest_deadline().left_ns_at(now_ns);
            let pause = Duration::from_nanos(left_ns).min(PAUSE_MAX);
            requests.check = Deadline::after(now_ns, Some(pause));
            let waited = self.earlier.wait_timeout(requests, pause);
            requests = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Responds on behalf of the application to each request that has exceeded its time, and shuts down its connection.
    fn cut_overdue(&self, requests: &mut Requests, now_ns: u64) -> Vec<TimedOutRequest> {
        let mut overdue = Vec::new();
        while let Some(fd) = requests.by_fd.pop_expired(now_ns) {
            let Some(tracked) = requests.by_fd.get_mut(fd) else { continue };
            // While the lock is held the request is not over, so the descriptor is still its
            // connection's. A failure means that the client has already disconnected.
            if tracked.wire.claim().is_some_and(|claim| claim.answer(&self.context, fd)) {
                tracked.request.status = hung_request::STATUS;
            }
            let _ = socket::shutdown(fd, socket::Shutdown::Both);
            overdue.push(tracked.request.clone());
        }
        overdue
    }

    /// Logs the requests that exceeded their time, with the application's stack traces. If the application
    /// does not even deliver those, it cannot serve requests any more: the worker is replaced.
    fn log_overdue(&self, overdue: &[TimedOutRequest]) {
        for request in overdue {
            let seconds = request.age().as_secs_f64();
            tracing::error!("{} timed out after {seconds:.1} s (request_timeout)", request.name());
        }
        if self.context.is_stuck() {
            return;
        }
        let Ok(trace) = self.request_trace() else { return };
        match trace.recv_timeout(TRACE_TIMEOUT) {
            Ok(trace) if trace.is_empty() => {}
            Ok(trace) => {
                let names: Vec<String> = overdue.iter().map(TimedOutRequest::name).collect();
                tracing::error!(
                    "stack traces of the application during {}:\n{}",
                    names.join(", "),
                    trace.trim_end()
                );
            }
            Err(_) => self.give_up(trace),
        }
    }

    /// Requests the stack traces on a separate thread, since the call may never return: an application with a
    /// global lock, such as Python's, can hang with the lock held.
    fn request_trace(&self) -> io::Result<Receiver<String>> {
        let (sender, trace) = channel();
        let app = self.app.clone();
        let request = move || {
            // The receiver may have given up.
            let _ = sender.send(app.trace());
        };
        thread::Builder::new().name("trace".to_owned()).spawn(request)?;
        Ok(trace)
    }

    /// Handles an application that does not respond: the worker stops accepting and is replaced. If the
    /// application has not recovered by then, the worker aborts, which logs stack traces and disconnects its
    /// clients.
    fn give_up(&self, trace: Receiver<String>) {
        self.context.set_stuck();
        tracing::error!(
            "the application does not respond (it may hang holding a lock): requesting a replacement"
        );
        self.context.host.retire_for("its application does not respond");
        let context = Arc::clone(&self.context);
        let abort = move || {
            if trace.recv_timeout(ABORT_AFTER).is_err() {
                hung_request::answer_at_once(&context);
                // A process may always send a signal to itself.
                let _ = kill(Pid::this(), Signal::SIGABRT);
            }
        };
        if let Err(error) = thread::Builder::new().name("abort".to_owned()).spawn(abort) {
            tracing::debug!("cannot start the thread that aborts the worker: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time after its deadline at which a request is cut: a request that waits for its client detects the timeout
/// by itself and gets a response.
const GRACE_NS: u64 = 100_000_000;
/// How long the application may take to deliver its stack traces. A worker that is replaced for a slow reply
/// loses nothing.
const TRACE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long the application may take to recover after that: its replacement serves by then.
const ABORT_AFTER: Duration = Duration::from_secs(2);
/// The longest sleep.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
