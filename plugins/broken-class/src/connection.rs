//! A connection's thread, with the faults that concern single connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kit::{Advance, Base, Connection, Home, Kit, blocking, clock, poll};
use worker_api::{AppHandle, Host, Interest, Result};

use crate::fault::Fault;

/// What the threads share.
pub(crate) struct Shared {
    kit: Arc<Kit>,
    app: AppHandle,
    host: Host,
    fault: Option<Fault>,
    open: AtomicUsize,
    waiting: AtomicUsize,
    one_at_a_time: Mutex<()>,
}

/// A connection's place among those that are open.
pub(crate) struct Opened(Arc<Shared>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One that is counted for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Opened {
    /// Serves a connection to its end.
    pub(crate) fn serve(self, connection: Box<Connection>) {
        self.0.serve(connection);
    }
}

impl Shared {
    pub(crate) fn new(base: &Base, fault: Option<Fault>) -> Self {
        Self {
            kit: Arc::clone(&base.kit),
            app: base.app.clone(),
            host: base.host.clone(),
            fault,
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            one_at_a_time: Mutex::new(()),
        }
    }

    /// Whether a connection is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Whether a request waits for its client.
    pub(crate) fn someone_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// A place for one more.
    pub(crate) fn enter(self: &Arc<Self>) -> Opened {
        self.open.fetch_add(1, Ordering::AcqRel);
        Opened(Arc::clone(self))
    }

    fn serve(self: &Arc<Self>, mut connection: Box<Connection>) {
        let place = Arc::new(Place { shared: Arc::clone(self), connection: Mutex::default() });
        let mut next = connection.advance();
        loop {
            next = match next {
                Advance::Request => {
                    let alone = self.one_at_a_time.lock();
                    if self.fault != Some(Fault::BeatsFromThread) {
                        drop(alone);
                    }
                    self.app.call(connection.into_exchange(place.clone()));
                    let Some(back) = place.take() else { return };
                    connection = back;
                    if self.fault == Some(Fault::ExitsAfterFirst) {
                        while matches!(connection.advance(), Advance::Request) {}
                        std::process::exit(0);
                    }
                    connection.advance()
                }
                Advance::Wait(interest) if self.wait(&mut connection, interest) => {
                    connection.advance()
                }
                Advance::Wait(_) => connection.expire(),
                Advance::Closed => break,
            };
        }
        if self.fault == Some(Fault::DiesOfBadClients) && connection.is_fresh() {
            std::process::exit(9);
        }
    }

    /// Waits for the client between requests; false when its time is up.
    fn wait(&self, connection: &mut Connection, interest: Interest) -> bool {
        loop {
            if self.kit.draining() && self.fault != Some(Fault::HoldsIdle) {
                connection.hasten(Base::farewell_deadline_ns());
            }
            let deadline_ns = connection.deadline_ns();
            let until_ns = clock::earlier(deadline_ns, clock::now_ns() + SLICE_NS);
            match poll::wait(connection.fd(), interest, until_ns, || ()) {
                Ok(true) => return true,
                Ok(false) if deadline_ns == 0 || clock::now_ns() < deadline_ns => {
                    if self.fault == Some(Fault::ServesOneAtATime) {
                        self.host.notify();
                    }
                }
                Ok(false) | Err(_) => return false,
            }
        }
    }
}

/// Where a request's connection comes back to.
struct Place {
    shared: Arc<Shared>,
    connection: Mutex<Option<Box<Connection>>>,
}

impl Place {
    fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Home for Place {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        let _counted = Counted::new(&self.shared.waiting);
        blocking::in_time(poll::wait(fd, interest, deadline_ns, || ()))
    }

    fn done(&self, connection: Box<Connection>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

/// An answer of the class's own, of which no application knows.
pub(crate) fn answer(mut stream: TcpStream) {
    // A client that does not take it gets none.
    let _ = stream.set_nonblocking(false);
    let _ = stream.read(&mut [0; 4096]);
    let _ =
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
}

/// How long a wait lasts before the thread looks up.
const SLICE_NS: u64 = 200_000_000;
