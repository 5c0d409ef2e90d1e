//! What the main thread and the pool share: how an exchange waits, and where a connection goes when it is over.

use std::cell::Cell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use kit::clock::{earlier, now_ns};
use kit::{
    Advance, Connection, ConnectionDriver, RequestDeadlines, ServerContext, WorkerBase, blocking,
    poll, threads,
};
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use worker_api::{Counter, Failure, Interest, Result, Waker};

use crate::pollers::{Event, Pollers, wait};
use crate::pool::{Next, Queue, ThreadActivity, UNSEEN_MAX_NS, WAKE_DELAY_NS};
use crate::table::Table;

/// What the threads of a worker share.
pub(crate) struct Shared {
    pub(crate) context: Arc<ServerContext>,
    pub(crate) queue: Queue<Box<Connection>, Pollers>,
    /// Whether the main thread wants to hear of a thread that is free.
    pub(crate) wants_room: AtomicBool,
    /// Whether it waits for connections, and so wants to hear that none is free.
    pub(crate) at_accept_epoll: AtomicBool,
    deadlines: RequestDeadlines,
    stack_size: usize,
    table: Mutex<Table>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    me: Weak<Self>,
}

impl Shared {
    /// With so many threads, which are started.
    pub(crate) fn new(base: &WorkerBase, threads: usize) -> io::Result<Arc<Self>> {
        let pollers = Pollers::new(base.wake_fd())?;
        // The thread continues with what it does; what it writes fails, and so the request ends. The main thread may have
        // to stop accepting.
        let main: Arc<OnceLock<Weak<Self>>> = Arc::default();
        let of_main = Arc::clone(&main);
        let deadlines = RequestDeadlines::start(base, move |_| {
            if let Some(shared) = of_main.get().and_then(Weak::upgrade) {
                shared.wake_main();
            }
        })?;
        let shared = Arc::new_cyclic(|me| Self {
            context: Arc::clone(&base.context),
            queue: Queue::new(threads, WAKE_DELAY_NS, pollers),
            wants_room: AtomicBool::new(false),
            at_accept_epoll: AtomicBool::new(false),
            deadlines,
            stack_size: threads::stack_size(&base.app),
            table: Mutex::new(Table::default()),
            threads: Mutex::new(Vec::new()),
            me: Weak::clone(me),
        });
        let _ = main.set(Arc::downgrade(&shared));
        (0..threads).try_for_each(|_| shared.start_thread())?;
        Ok(shared)
    }

    /// Waits until all threads have ended. Only once the queue is closed.
    pub(crate) fn join(&self) {
        for thread in self.threads().drain(..) {
            // A panic of the application ends its exchange and not the thread.
            let _ = thread.join();
        }
    }

    /// The connections.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread's life: requests, one after the other.
    pub(crate) fn serve(self: &Arc<Self>) {
        OF_THE_POOL.set(true);
        let busy = Cell::new(false);
        let tell = |is_busy| {
            // When it changes, and not for each request of many.
            if busy.replace(is_busy) != is_busy {
                self.context.host.count(Counter::BUSY_SLOTS, if is_busy { 1 } else { -1 });
            }
        };
        let idle = || {
            tell(false);
            self.ring_if_wanted();
        };
        let mut activity = ThreadActivity::default();
        loop {
            match self.queue.next(&mut activity, idle) {
                Next::Serve(connection) => {
                    tell(true);
                    self.deadlines.call(connection, Arc::<Self>::clone(self));
                }
                Next::Look(most) => self.look(most),
                Next::End => return tell(false),
            }
        }
    }

    /// Waits for requests, of which it takes at most so many.
    fn look(&self, most: usize) {
        let mut events = [EpollEvent::empty(); LOOK_MAX];
        let requests = self.take(&mut events[..most.min(LOOK_MAX)], EpollTimeout::NONE);
        let found = self.queue.found(requests);
        if found.set_timer {
            self.queue.poller.set_timer(UNSEEN_MAX_NS);
        }
        if found.is_full && self.at_accept_epoll.load(Ordering::Acquire) || self.context.draining()
        {
            self.wake_main();
        }
    }

    /// The requests of those connections that are ready, or will be within `timeout`: of as many as there is room for.
    pub(crate) fn take(
        &self,
        events: &mut [EpollEvent],
        timeout: EpollTimeout,
    ) -> Vec<Box<Connection>> {
        let pollers = &self.queue.poller;
        let count = wait(&pollers.connections, events, timeout).unwrap_or_else(|error| {
            tracing::warn!("cannot wait for the connections: {error}");
            0
        });
        let mut wakers = Vec::new();
        let mut table = self.table();
        let ready = events[..count].iter().filter_map(|event| match pollers.event(event) {
            Event::Other(fd) => table.ready(fd, event.events(), &mut wakers),
            _ => None,
        });
        let ready: Vec<_> = ready.collect();
        drop(table);
        wakers.iter().for_each(Waker::wake);
        ready.into_iter().filter_map(|connection| self.carry_on(connection)).collect()
    }

    /// Goes on with a connection until it waits, ends, or has a whole request, which it gives back.
    pub(crate) fn carry_on(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let next = connection.advance();
        self.settle(connection, next)
    }

    /// Does with a connection what it asks for, until it waits, ends, or has a whole request, which it gives back.
    pub(crate) fn settle(
        &self,
        mut connection: Box<Connection>,
        mut next: Advance,
    ) -> Option<Box<Connection>> {
        loop {
            match next {
                Advance::Request => return Some(connection),
                Advance::Wait(interest) => {
                    match self.table().wait(&self.queue.poller.connections, connection, interest) {
                        Ok(None) => return None,
                        Ok(Some(ready)) => connection = ready,
                        Err(error) => {
                            tracing::warn!("cannot watch a connection: {error}");
                            return None;
                        }
                    }
                    next = connection.advance();
                }
                Advance::Closed => {
                    self.close(connection);
                    return None;
                }
            }
        }
    }

    /// Ends a connection.
    pub(crate) fn close(&self, connection: Box<Connection>) {
        let mut table = self.table();
        let place = table.leave(connection.fd());
        if connection.is_duplicated() {
            // One that was never watched is as good as one that is watched no more.
            let _ = self.queue.poller.connections.delete(&*connection);
        }
        // Closed while the table is locked: the next connection with this descriptor finds its place free.
        drop(connection);
        drop(table);
        drop(place);
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

    /// Waits; where that takes long, another thread serves meanwhile.
    fn wait_for_client(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> io::Result<bool> {
        let wait_until = |until_ns| poll::wait(fd, interest, until_ns, || ());
        if !OF_THE_POOL.get() {
            return wait_until(deadline_ns);
        }
        let grace_ends_ns = now_ns() + GRACE_NS;
        while !self.is_wanted() && now_ns() < grace_ends_ns {
            let look_up_ns = (now_ns() + LOOK_UP_NS).min(grace_ends_ns);
            let until_ns = earlier(look_up_ns, deadline_ns);
            let waited = wait_until(until_ns);
            if !matches!(waited, Ok(false)) || until_ns == deadline_ns {
                return waited;
            }
        }
        if self.queue.begin_blocking()
            && let Err(error) = self.start_thread()
        {
            // Those that there are go on.
            self.queue.spawn_failed();
            tracing::debug!("no thread can be started: {error}");
        }
        self.ring_if_wanted();
        let waited = wait_until(deadline_ns);
        self.queue.come_back();
        waited
    }

    /// Whether somebody waits for a thread: a request, or the main thread with a connection.
    fn is_wanted(&self) -> bool {
        self.wants_room.load(Ordering::Acquire) || self.queue.is_waiting()
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_if_wanted(&self) {
        if self.wants_room.swap(false, Ordering::AcqRel) {
            self.wake_main();
        }
    }

    /// Wakes the main thread.
    pub(crate) fn wake_main(&self) {
        self.queue.poller.wake_main();
    }
}

impl ConnectionDriver for Shared {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        blocking::in_time(self.wait_for_client(fd, interest, deadline_ns))
    }

    fn register_waker(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline_ns: u64,
        waker: Waker,
    ) -> Result<()> {
        let epoll = &self.queue.poller.connections;
        let mut waker = Some(waker);
        let armed = self.table().arm(epoll, fd, interest, deadline_ns, &mut waker);
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
        let watched = self.table().on_disconnect(&self.queue.poller.connections, fd, &mut waker);
        if let Err(error) = watched {
            tracing::warn!("cannot watch a connection: {error}");
        }
    }

    fn deadline_extended(&self, fd: RawFd, deadline_ns: u64) {
        self.deadlines.extend(fd, deadline_ns);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        if let Some(request) = self.carry_on(connection) {
            self.queue.push([request]);
        }
        if self.context.draining() {
            self.wake_main();
        }
    }
}

thread_local! {
    /// Whether this thread is one of the pool's: an application may wait on one of its own.
    static OF_THE_POOL: Cell<bool> = const { Cell::new(false) };
}

/// How many a thread of the pool takes at once: others would wait for it.
const LOOK_MAX: usize = 8;
/// How long a client may keep a thread waiting that nobody waits for before another serves in its place.
const GRACE_NS: u64 = 20_000_000;
/// How often it is asked meanwhile whether anybody waits for the thread.
const LOOK_UP_NS: u64 = 1_000_000;
