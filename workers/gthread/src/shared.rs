//! What the main thread and the pool share: how an exchange waits on a thread, and what follows for its connection.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use jimu_kit::clock::now_ns;
use jimu_kit::{
    Advance, Connection, ConnectionDriver, Deadline, RequestDeadlines, ServerContext, WorkerBase,
    blocking, poll, threads,
};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use worker_api::{Counter, Failure, Interest, Result, Waker};

use crate::entrance::Entrance;
use crate::pollers::{Event, Pollers, wait};
use crate::pool::{Next, Pool, PoolThread, VACANT_MAX_NS, WAKE_DELAY_NS};
use crate::table::Table;

/// The state that the threads of a worker share.
pub(crate) struct Shared {
    pub(crate) context: Arc<ServerContext>,
    pub(crate) pool: Pool<Box<Connection>, Arc<Pollers>>,
    pub(crate) entrance: Entrance,
    /// Whether the main thread must be woken when a thread becomes free.
    pub(crate) wants_room: AtomicBool,
    /// Whether the main thread waits on the listeners, and must be woken when no thread is free.
    pub(crate) is_accepting: AtomicBool,
    deadlines: RequestDeadlines,
    stack_size: usize,
    table: Mutex<Table>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    me: Weak<Self>,
}

impl Shared {
    /// Starts `threads` threads.
    pub(crate) fn new(base: &WorkerBase, threads: usize) -> io::Result<Arc<Self>> {
        let pollers = Arc::new(Pollers::new(base.wake_fd())?);
        let entrance = Entrance::new(base, [&pollers.main, &pollers.lead])?;
        // A thread whose request has timed out continues to run; its next write fails, which ends the request. The main
        // thread is woken because it may have to stop accepting.
        let main = Arc::clone(&pollers);
        let deadlines = RequestDeadlines::start(base, move |_| main.wake_main())?;
        let shared = Arc::new_cyclic(|me| Self {
            context: Arc::clone(&base.context),
            pool: Pool::new(threads, WAKE_DELAY_NS, pollers),
            entrance,
            wants_room: AtomicBool::new(false),
            is_accepting: AtomicBool::new(false),
            deadlines,
            stack_size: threads::stack_size(&base.app),
            table: Mutex::new(Table::default()),
            threads: Mutex::new(Vec::new()),
            me: Weak::clone(me),
        });
        (0..threads).try_for_each(|_| shared.start_thread())?;
        Ok(shared)
    }

    /// Waits until all threads have ended. The pool must be closed.
    pub(crate) fn join(&self) {
        for thread in self.threads().drain(..) {
            // The result is always `Ok`: a panic of the application ends its exchange, not the thread.
            let _ = thread.join();
        }
    }

    /// Locks the table of connections.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a thread of the pool: serves one request after the other.
    pub(crate) fn serve(self: &Arc<Self>) {
        IS_POOL_THREAD.set(true);
        let busy = Cell::new(false);
        let count_busy = |is_busy| {
            // Only when it changes, and not for every request of a batch.
            if busy.replace(is_busy) != is_busy {
                self.context.host.count(Counter::BUSY_SLOTS, if is_busy { 1 } else { -1 });
            }
        };
        let idle = || {
            count_busy(false);
            self.wake_main_if_waiting();
        };
        let mut thread = PoolThread::default();
        loop {
            match self.pool.next(&mut thread, idle, || self.can_accept()) {
                Next::Serve(connection) => {
                    count_busy(true);
                    self.deadlines.call(connection, Arc::<Self>::clone(self));
                }
                Next::Lead(limit) => self.lead(&mut thread, limit),
                Next::End => return count_busy(false),
            }
        }
    }

    /// Waits for requests and connections as the leader, and accepts up to `limit`.
    fn lead(&self, thread: &mut PoolThread, limit: usize) {
        let mut events = [EpollEvent::empty(); LEAD_MAX];
        let requests = if self.entrance.is_open() {
            self.wait_for_all(&mut events, limit)
        } else {
            self.take_ready(&mut events, EpollTimeout::NONE)
        };
        let after = self.pool.finish_leading(thread, requests);
        if after.set_timer {
            self.pool.poller.set_timer(VACANT_MAX_NS);
        }
        if after.is_full && self.is_accepting.load(Ordering::Acquire) || self.context.draining() {
            self.wake_main();
        }
    }

    /// Waits for requests and connections, accepts up to `limit`, and returns the requests that have arrived.
    fn wait_for_all(&self, events: &mut [EpollEvent], limit: usize) -> Vec<Box<Connection>> {
        let pollers = &self.pool.poller;
        let count = wait_on_thread(&pollers.lead, events, EpollTimeout::NONE);
        let has_room = |accepted| accepted < limit && self.can_accept();
        let mut requests = self.accept(&pollers.lead, &events[..count], has_room);
        let is_ready = |event| matches!(pollers.event(event), Event::Connections);
        if events[..count].iter().any(is_ready) {
            requests.extend(self.take_ready(events, EpollTimeout::ZERO));
        }
        requests
    }

    /// Accepts connections ([`Entrance::accept`]), and returns the requests that have arrived.
    ///
    /// Each connection is read after all have been accepted, which leaves its client time to send the request: a connection
    /// whose request has arrived needs no entry in the epoll.
    pub(crate) fn accept(
        &self,
        epoll: &Epoll,
        events: &[EpollEvent],
        has_room: impl Fn(usize) -> bool,
    ) -> Vec<Box<Connection>> {
        let accepted =
            self.entrance.accept(epoll, events, has_room, |connection| self.lend(connection));
        self.advance_all(accepted)
    }

    /// Accepts up to `count` connections although no thread is free, and returns the requests that have arrived.
    pub(crate) fn accept_waiting(&self, count: usize) -> Vec<Box<Connection>> {
        let room = self.context.config.worker_connections.saturating_sub(self.table().len());
        let added = |connection: &Connection| self.lend(connection);
        let accepted = self.entrance.accept_waiting(count.min(room), added);
        self.advance_all(accepted)
    }

    /// Ends accepting by threads of the pool.
    pub(crate) fn close_entrance(&self) {
        let last = self.entrance.close(&self.pool.poller.lead);
        self.pool.push(last.into_iter().filter_map(|connection| self.start(connection)));
    }

    /// Reads a connection that was just accepted, and returns its request if that has arrived.
    pub(crate) fn start(&self, connection: Box<Connection>) -> Option<Box<Connection>> {
        self.lend(&connection);
        self.advance(connection)
    }

    /// Returns whether a thread that is free can accept a connection: the application responds, the table has room, and
    /// accepting does not pause after a failure.
    pub(crate) fn can_accept(&self) -> bool {
        !self.context.is_stuck() && self.entrance.pause_ends().is_never() && !self.is_full()
    }

    /// Returns whether there are `worker_connections`.
    pub(crate) fn is_full(&self) -> bool {
        self.table().len() >= self.context.config.worker_connections
    }

    /// Adds a new connection to the table.
    fn lend(&self, connection: &Connection) {
        self.table().insert_lent(connection.fd());
    }

    /// Waits for ready connections until `timeout`, and returns those that have a complete request. `events` limits their
    /// number.
    pub(crate) fn take_ready(
        &self,
        events: &mut [EpollEvent],
        timeout: EpollTimeout,
    ) -> Vec<Box<Connection>> {
        let pollers = &self.pool.poller;
        let count = wait_on_thread(&pollers.connections, events, timeout);
        let mut wakers = Vec::new();
        let mut table = self.table();
        let ready = events[..count].iter().filter_map(|event| match pollers.event(event) {
            Event::Other(fd) => table.on_event(fd, event.events(), &mut wakers),
            _ => None,
        });
        let ready: Vec<_> = ready.collect();
        drop(table);
        wakers.iter().for_each(Waker::wake);
        self.advance_all(ready)
    }

    /// Advances connections, and returns those that have a complete request.
    fn advance_all(&self, connections: Vec<Box<Connection>>) -> Vec<Box<Connection>> {
        connections.into_iter().filter_map(|connection| self.advance(connection)).collect()
    }

    /// Advances a connection until it waits or is closed, or returns it with a complete request.
    pub(crate) fn advance(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let next = connection.advance();
        self.settle(connection, next)
    }

    /// Does what a connection asks for, until it waits or is closed, or returns it with a complete request.
    pub(crate) fn settle(
        &self,
        mut connection: Box<Connection>,
        mut next: Advance,
    ) -> Option<Box<Connection>> {
        loop {
            match next {
                Advance::Request => {
                    if connection.has_body_to_come() {
                        self.table().mute(&self.pool.poller.connections, connection.as_fd());
                    }
                    return Some(connection);
                }
                Advance::Wait(interest) => {
                    // A separate statement: its end unlocks the table.
                    let parked =
                        self.table().park(&self.pool.poller.connections, connection, interest);
                    match parked {
                        Ok(None) => return None,
                        Ok(Some(ready)) => {
                            connection = ready;
                            next = connection.advance();
                        }
                        Err((error, refused)) => {
                            tracing::warn!("cannot watch a connection: {error}");
                            connection = refused;
                            next = Advance::Closed;
                        }
                    }
                }
                Advance::Closed => {
                    self.close(connection);
                    return None;
                }
            }
        }
    }

    /// Closes a connection.
    pub(crate) fn close(&self, connection: Box<Connection>) {
        let mut table = self.table();
        let entry = table.remove(connection.fd());
        if connection.is_duplicated() {
            // Fails if the connection was never registered, which needs no cleanup.
            let _ = self.pool.poller.connections.delete(&*connection);
        }
        // Close the descriptor while the table is locked: its number is reused only once its entry is vacant.
        drop(connection);
        drop(table);
        // Drops the wakers, which are foreign code, without the lock.
        drop(entry);
    }

    fn start_thread(&self) -> io::Result<()> {
        let Some(shared) = self.me.upgrade() else { return Ok(()) };
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        let name = format!("gthread-{}", threads.len() + 1);
        let builder = thread::Builder::new().name(name).stack_size(self.stack_size);
        threads.push(builder.spawn(move || shared.serve())?);
        Ok(())
    }

    /// Waits for the client. After [`GRACE_NS`], or as soon as a thread is needed, another thread serves in this one's place.
    fn wait_for_client(
        &self,
        fd: RawFd,
        interest: Interest,
        deadline: Deadline,
    ) -> io::Result<bool> {
        let wait_until = |until| poll::wait(fd, interest, until, || ());
        if !IS_POOL_THREAD.get() {
            return wait_until(deadline);
        }
        let grace_ends_ns = now_ns() + GRACE_NS;
        while !self.is_thread_needed() && now_ns() < grace_ends_ns {
            let check_ns = (now_ns() + DEMAND_CHECK_NS).min(grace_ends_ns);
            let until = deadline.min(Deadline::at_ns(check_ns));
            let waited = wait_until(until);
            if !matches!(waited, Ok(false)) || until == deadline {
                return waited;
            }
        }
        if self.pool.begin_blocking()
            && let Err(error) = self.start_thread()
        {
            // The existing threads continue.
            self.pool.spawn_failed();
            tracing::debug!("cannot start a thread: {error}");
        }
        self.wake_main_if_waiting();
        let waited = wait_until(deadline);
        self.pool.end_blocking();
        waited
    }

    /// Returns whether a request waits for a thread, or the main thread for one to become free.
    fn is_thread_needed(&self) -> bool {
        self.wants_room.load(Ordering::Acquire) || self.pool.has_waiting()
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_main_if_waiting(&self) {
        if self.wants_room.swap(false, Ordering::AcqRel) {
            self.wake_main();
        }
    }

    /// Wakes the main thread.
    pub(crate) fn wake_main(&self) {
        self.pool.poller.wake_main();
    }
}

impl ConnectionDriver for Shared {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        blocking::in_time(self.wait_for_client(fd, interest, deadline))
    }

    fn register_waker(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Deadline,
        waker: Waker,
    ) -> Result<()> {
        let epoll = &self.pool.poller.connections;
        let mut waker = Some(waker);
        let armed = self.table().arm(epoll, fd, interest, deadline, &mut waker);
        // The table is unlocked: a waker is foreign code, which may call the class.
        match armed {
            Ok(true) => waker.iter().for_each(Waker::wake),
            Ok(false) => {}
            Err(error) => return Err(Failure::io("cannot watch the connection", &error)),
        }
        Ok(())
    }

    fn on_disconnect(&self, fd: BorrowedFd<'_>, waker: Waker) {
        let mut waker = Some(waker);
        let watched = self.table().on_disconnect(&self.pool.poller.connections, fd, &mut waker);
        if let Err(error) = watched {
            tracing::warn!("cannot watch a connection: {error}");
        }
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.deadlines.extend(fd, deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        if let Some(request) = self.advance(connection) {
            self.pool.push([request]);
        }
        if self.context.draining() {
            self.wake_main();
        }
    }
}

/// Waits for events and returns their number: 0 if that fails, which is logged.
fn wait_on_thread(epoll: &Epoll, events: &mut [EpollEvent], timeout: EpollTimeout) -> usize {
    wait(epoll, events, timeout).unwrap_or_else(|error| {
        tracing::warn!("cannot wait for connections: {error}");
        0
    })
}

thread_local! {
    /// Whether this is a thread of the pool: an application can also wait on a thread that it started itself.
    static IS_POOL_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// The number of requests that a leader of the pool takes at a time: they are served one after the other.
const LEAD_MAX: usize = 8;
/// How long a client may block a thread that is not needed before another thread serves in its place.
const GRACE_NS: u64 = 20_000_000;
/// How often the blocked thread checks during that time whether it is needed.
const DEMAND_CHECK_NS: u64 = 1_000_000;
