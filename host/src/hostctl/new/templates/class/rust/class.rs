//! A worker class with one thread for each connection.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jimu_kit::config::Config;
use jimu_kit::{AcceptResult, Acceptor, Advance, Connection, ConnectionDriver, Deadline};
use jimu_kit::{RequestDeadlines, WaitingConnections, WorkerBase, blocking, poll};
use worker_api::{
    Capabilities, Counter, Failure, Host, Interest, Result, Worker, WorkerContext, WorkerFactory,
};

worker_api::export_worker_class!({{type}}Worker);

pub struct {{type}}Worker {
    base: Arc<WorkerBase>,
    deadlines: RequestDeadlines,
    waiting: Arc<WaitingConnections>,
}

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
        let waiting = Arc::new(WaitingConnections::new(&base.context));
        Ok(Self { base, deadlines, waiting })
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
            let is_stuck = self.base.context.is_stuck();
            self.base.wait_for_clients(self.has_room() && !is_stuck);
            self.base.host.deliver_signals();
            for acceptor in self.base.acceptors.iter().filter(|_| !is_stuck) {
                if self.has_room() {
                    self.accept(acceptor);
                } else {
                    self.waiting.make_room(acceptor.waiting());
                }
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
        self.base.cut_requests(Arc::strong_count(&self.base) - 1);
        Ok(())
    }
}

impl {{type}}Worker {
    /// Returns whether there may be a thread for another connection.
    fn has_room(&self) -> bool {
        Arc::strong_count(&self.base) <= self.base.context.config.worker_connections
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
                let back = place.back.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some(back) = back else { return };
                connection = back;
                connection.advance()
            }
            Advance::Wait(interest) => place.waiting.wait(&mut connection, interest),
            Advance::Closed => return,
        };
    }
}

struct Place {
    back: Mutex<Option<Box<Connection>>>,
    deadlines: RequestDeadlines,
    waiting: Arc<WaitingConnections>,
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
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
