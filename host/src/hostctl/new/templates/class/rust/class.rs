//! A worker class with one thread for each connection.

use std::collections::HashMap;
use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use jimu_kit::config::Config;
use jimu_kit::{AcceptResult, Acceptor, Advance, Connection, ConnectionDriver, Deadline};
use jimu_kit::{RequestDeadlines, WorkerBase, blocking, crowd, poll};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{Shutdown, shutdown};
use worker_api::{
    Capabilities, Counter, Failure, Host, Interest, Result, Worker, WorkerContext, WorkerFactory,
};

worker_api::export_worker_class!({{type}}Worker);

pub struct {{type}}Worker {
    base: Arc<WorkerBase>,
    deadlines: RequestDeadlines,
    waiting: Arc<Waiting>,
}

/// The connections that wait for a request, by descriptor, each with the time since which it waits.
type Waiting = Mutex<HashMap<RawFd, u64>>;

impl WorkerFactory for {{type}}Worker {
    const NAME: &'static str = "{{name}}";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "a thread for each connection";
    const CAPABILITIES: Capabilities = Capabilities::THREADS;

    fn setup(host: &Host) -> Result<()> {
        Config::check(host)
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let base = Arc::new(WorkerBase::new(context, true)?);
        let deadlines = RequestDeadlines::start(&base, |_| ())
            .map_err(|error| Failure::io("cannot watch the time of requests", &error))?;
        Ok(Self { base, deadlines, waiting: Arc::default() })
    }
}

impl Worker for {{type}}Worker {
    fn init_process(&self) -> Result<()> {
        self.base.host.count(Counter::SLOTS, self.base.context.config.worker_connections as i64);
        self.base.app.init_worker(blocking::runtime(&self.base.context))
    }

    fn run(&self) -> Result<()> {
        while self.base.host.alive() {
            self.base.tick();
            let is_crowded = self.wait();
            self.base.host.deliver_signals();
            if is_crowded {
                self.make_room();
            }
            for acceptor in self.base.acceptors.iter().filter(|_| self.has_room()) {
                self.accept(acceptor);
            }
        }
        self.base.context.drain();
        for (acceptor, mut left) in self.base.remaining_backlog() {
            while left > 0 && !self.base.context.is_stuck() && self.accept(acceptor) {
                left -= 1;
            }
        }
        self.base.host.close_listeners();
        let deadline = self.base.graceful_deadline();
        let is_busy = || Arc::strong_count(&self.base) > 1 || !self.base.context.background.is_idle();
        while is_busy() && !deadline.is_past() {
            self.base.tick();
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl {{type}}Worker {
    /// Returns whether there is a thread for another connection.
    fn has_room(&self) -> bool {
        let context = &self.base.context;
        Arc::strong_count(&self.base) <= context.config.worker_connections && !context.is_stuck()
    }

    /// Waits for a client or for a signal, which interrupts the poll, until a heartbeat is due. Returns whether a client
    /// waits for which there is no thread.
    fn wait(&self) -> bool {
        let pause_ms = self.base.pause().as_millis() as u16;
        let listening = self.base.acceptors.iter().filter(|_| !self.base.context.is_stuck());
        let watched = listening.map(AsFd::as_fd).chain([self.base.wake_fd()]);
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut polled: Vec<PollFd<'_>> = watched.map(watch).collect();
        let _ = nix::poll::poll(&mut polled, pause_ms);
        polled.pop();
        !self.has_room() && polled.iter().any(|listener| listener.any() == Some(true))
    }

    /// Closes the connection that has waited longest for a request: its thread reads the end of the client's bytes.
    fn make_room(&self) {
        let waiting = lock(&self.waiting);
        let longest = crowd::pick(waiting.iter().map(|(fd, since_ns)| (*since_ns, *fd)), 1);
        for fd in &longest {
            let _ = shutdown(*fd, Shutdown::Read);
        }
        drop(waiting);
        self.base.context.note_crowd(longest.len());
        // Until that thread has ended, or another one, the listeners would be reported again and again.
        thread::sleep(Duration::from_millis(20));
    }

    /// Accepts one connection; returns whether another one may be waiting.
    fn accept(&self, acceptor: &Acceptor) -> bool {
        match acceptor.take() {
            AcceptResult::Connection(accepted) => {
                self.base.host.count(Counter::ACCEPTED, 1);
                let connection = Connection::new(&self.base.context, accepted);
                let base = Arc::clone(&self.base);
                let deadlines = self.deadlines.clone();
                let waiting = Arc::clone(&self.waiting);
                let place = Place { back: Mutex::default(), deadlines, waiting };
                self.base.thread().spawn(move || serve(&base, place, connection)).is_ok()
            }
            AcceptResult::Empty => false,
            AcceptResult::Rest(pause) => {
                // No descriptors are left, or the system forbids accepting: pause instead of spinning.
                thread::sleep(pause);
                false
            }
        }
    }
}

fn serve(base: &WorkerBase, place: Place, mut connection: Box<Connection>) {
    let place = Arc::new(place);
    let mut next = connection.advance();
    loop {
        next = match next {
            Advance::Request => {
                base.host.count(Counter::BUSY_SLOTS, 1);
                place.deadlines.call(connection, place.clone());
                base.host.count(Counter::BUSY_SLOTS, -1);
                let Some(back) = lock(&place.back).take() else { return };
                connection = back;
                connection.advance()
            }
            Advance::Wait(interest) => {
                let fd = connection.fd();
                if let Some(since_ns) = connection.waits_since_ns() {
                    lock(&place.waiting).insert(fd, since_ns);
                }
                let is_ready = is_ready(base, &mut connection, interest);
                lock(&place.waiting).remove(&fd);
                if is_ready { connection.advance() } else { connection.expire() }
            }
            Advance::Closed => return,
        };
    }
}

/// Waits between requests; false when the client's time is up. Wakes now and then, in case the worker drains.
fn is_ready(base: &WorkerBase, connection: &mut Connection, interest: Interest) -> bool {
    loop {
        if base.context.draining() {
            connection.shorten_idle_deadline(WorkerBase::idle_drain_deadline());
        }
        let deadline = connection.deadline();
        let look_up = deadline.min(Deadline::from_now(Duration::from_millis(500)));
        match poll::wait(connection.fd(), interest, look_up, || ()) {
            Ok(true) => return true,
            Ok(false) if !deadline.is_past() => {}
            Ok(false) | Err(_) => return false,
        }
    }
}

struct Place {
    back: Mutex<Option<Box<Connection>>>,
    deadlines: RequestDeadlines,
    waiting: Arc<Waiting>,
}

impl ConnectionDriver for Place {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline, || ()))
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.deadlines.extend(fd, deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        *lock(&self.back) = Some(connection);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
