//! Responses to pipelined requests, which one system call sends together.
//!
//! A complete response stays in its connection's output if the next request has arrived completely: the last response of
//! the batch sends all. That next request may take long. So while the application serves it, the output is lent to the
//! worker's [`Batches`], whose thread sends what has been there for 10 to 20 ms. The output comes back for the next response:
//! whatever reads or changes it [recalls](Lent::recall) it first. A process that is killed in those milliseconds loses a
//! complete response; its client sees a connection that ended before it, and may repeat the request if that is idempotent,
//! as a client that pipelines requests has to (RFC 9112 9.3.2).
//!
//! ```text
//!   response ──next request is complete──> held ──the application is called──> lent ──recall──> sent with the next response
//!                                                                               └──20 ms──> sent by the thread
//! ```

use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, send};
use worker_api::fork;

/// The outputs that a worker's connections have lent. The thread that sends them starts with the first one.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    shared: Arc<Shared>,
    has_thread: OnceLock<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Notified when the thread sleeps and an output is lent, and when the thread is to end.
    wakes: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// The outputs by descriptor.
    outputs: Vec<Option<Output>>,
    /// The number of outputs.
    len: usize,
    /// Passes of the thread over the table.
    tick: u64,
    /// The tick at which an output was lent last.
    last_lent: u64,
    is_asleep: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Output {
    unsent: Unsent,
    since_tick: u64,
}

/// Bytes to send.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    pub(crate) bytes: Vec<u8>,
    /// How many of them have been sent.
    pub(crate) sent: usize,
}

/// An output that is lent. It is recalled when this is dropped, at the latest: before the connection's descriptor is
/// closed.
#[derive(Debug)]
pub(crate) struct Lent {
    /// `None` once it is recalled.
    shared: Option<Arc<Shared>>,
    fd: RawFd,
}

impl Batches {
    /// Returns whether responses may be held back: not if there is no thread to send them.
    pub(crate) fn can_hold(&self) -> bool {
        *self.has_thread.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new().name("batches".to_owned()).spawn(move || {
                // Signals are handled by the worker's own threads. This cannot fail: the set is valid.
                let _ = SigSet::all().thread_block();
                shared.send_late();
            });
            if let Err(error) = &started {
                tracing::debug!("responses to pipelined requests are sent one by one: {error}");
            }
            started.is_ok()
        })
    }

    /// Lends the output of the connection with this descriptor, until the result is dropped or recalled.
    pub(crate) fn lend(&self, fd: RawFd, unsent: Unsent) -> Lent {
        let mut table = self.shared.lock();
        table.put(fd, unsent);
        if std::mem::take(&mut table.is_asleep) {
            self.shared.wakes.notify_one();
        }
        drop(table);
        Lent { shared: Some(Arc::clone(&self.shared)), fd }
    }

    /// Sends what the connection with this descriptor has lent, for a thread that responds in place of the one that serves
    /// it. Returns whether nothing of it is left. May be called in a signal handler, which may have interrupted the owner
    /// of the lock: so it waits only briefly for it.
    pub(crate) fn send_now(&self, fd: RawFd) -> bool {
        for _ in 0..LOCK_ATTEMPTS {
            match self.shared.table.try_lock() {
                Ok(mut table) => return table.send(fd),
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner().send(fd),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        false
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if !fork::is_child() {
            self.shared.lock().is_over = true;
            self.shared.wakes.notify_one();
        }
    }
}

impl Lent {
    /// Takes the output back, with what is unsent of it.
    pub(crate) fn recall(mut self) -> Unsent {
        self.take()
    }

    /// Returns the number of bytes that are unsent.
    pub(crate) fn len(&self) -> usize {
        let lent =
            |shared: &Arc<Shared>| shared.lock().get(self.fd).map(|output| output.unsent.len());
        self.shared.as_ref().and_then(lent).unwrap_or_default()
    }

    fn take(&mut self) -> Unsent {
        // In a forked child the thread does not exist, and may have held the lock at the fork.
        let shared = self.shared.take().filter(|_| !fork::is_child());
        shared.and_then(|shared| shared.lock().take(self.fd)).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.take();
    }
}

impl Unsent {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Sends as much as the kernel accepts now; returns whether that is all.
    fn send(&mut self, fd: RawFd) -> bool {
        while self.len() > 0 {
            // The thread that serves the connection finds out why by itself.
            match send(fd, self.rest(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Shared {
    /// Sends outputs that have been lent for two ticks, until the worker's connections are gone.
    fn send_late(&self) {
        let mut table = self.lock();
        while !table.is_over {
            table.tick();
            table = self.wait(table);
        }
    }

    /// Waits for the next tick; while nothing is lent, for an output.
    fn wait<'a>(&'a self, mut table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        if table.is_in_use() {
            let waited = self.wakes.wait_timeout(table, TICK);
            return waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        table.is_asleep = true;
        let waited = self.wakes.wait_while(table, |table| table.is_asleep && !table.is_over);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn get(&self, fd: RawFd) -> Option<&Output> {
        self.outputs.get(usize::try_from(fd).ok()?)?.as_ref()
    }

    fn put(&mut self, fd: RawFd, unsent: Unsent) {
        let Ok(at) = usize::try_from(fd) else { return };
        if self.outputs.len() <= at {
            self.outputs.resize_with(at + 1, || None);
        }
        self.outputs[at] = Some(Output { unsent, since_tick: self.tick });
        self.last_lent = self.tick;
        self.len += 1;
    }

    fn take(&mut self, fd: RawFd) -> Option<Unsent> {
        let output = self.outputs.get_mut(usize::try_from(fd).ok()?)?.take()?;
        self.len -= 1;
        Some(output.unsent)
    }

    /// Sends an output, if there is one; returns whether nothing of it is left.
    fn send(&mut self, fd: RawFd) -> bool {
        let Some(mut unsent) = self.take(fd) else { return true };
        let is_sent = unsent.send(fd);
        if !is_sent {
            self.put(fd, unsent);
        }
        is_sent
    }

    fn tick(&mut self) {
        self.tick += 1;
        for at in 0..self.outputs.len() {
            let since_tick = self.outputs[at].as_ref().map(|output| output.since_tick);
            if since_tick.is_some_and(|since_tick| self.tick - since_tick >= 2) {
                self.send(at as RawFd);
            }
        }
    }

    /// Returns whether an output is lent, or was a short time ago: waking the thread for each one would cost more.
    fn is_in_use(&self) -> bool {
        self.len > 0 || self.tick - self.last_lent < IDLE_TICKS
    }
}

/// Half the maximum time for which an output is held back.
const TICK: Duration = Duration::from_millis(10);
/// For how many ticks nothing has been lent when the thread goes to sleep.
const IDLE_TICKS: u64 = 10;
/// How often [`Batches::send_now`] tries to lock the table.
const LOCK_ATTEMPTS: usize = 100;
