//! For classes with a thread for each connection: the thread waits here for its client, and the connection that has waited
//! longest for a request gives way when the worker is at its limit.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use worker_api::Interest;

use crate::connection::{Advance, Connection};
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::worker_base::WorkerBase;
use crate::{crowd, poll};

/// The connections whose threads wait for their clients. All threads of a worker use one.
#[derive(Debug)]
pub struct WaitingConnections {
    context: Arc<ServerContext>,
    /// Those that wait for a request, by descriptor, each with the time since which it waits.
    since_ns: Mutex<HashMap<RawFd, u64>>,
}

impl WaitingConnections {
    /// Creates the list of a worker.
    pub fn new(context: &Arc<ServerContext>) -> Self {
        Self { context: Arc::clone(context), since_ns: Mutex::default() }
    }

    /// Waits in poll(2) for what the connection needs next, at most until its deadline, and advances it or lets it expire.
    ///
    /// Checks each second whether the worker drains, which shortens the deadline of an idle connection.
    pub fn wait(&self, connection: &mut Connection, interest: Interest) -> Advance {
        let fd = connection.fd();
        if let Some(since_ns) = connection.waits_since_ns() {
            self.lock().insert(fd, since_ns);
        }
        let is_ready = self.wait_until_ready(connection, interest);
        self.lock().remove(&fd);
        match is_ready {
            Ok(true) => connection.advance(),
            Ok(false) => connection.expire(),
            Err(_) => Advance::Closed,
        }
    }

    fn wait_until_ready(
        &self,
        connection: &mut Connection,
        interest: Interest,
    ) -> io::Result<bool> {
        loop {
            if self.context.draining() {
                connection.shorten_idle_deadline(WorkerBase::idle_drain_deadline());
            }
            let deadline = connection.deadline();
            let until = deadline.min(Deadline::from_now(SLICE));
            if poll::wait(connection.fd(), interest, until, || ())? {
                return Ok(true);
            }
            if deadline.is_past() {
                return Ok(false);
            }
        }
    }

    /// Ends the wait of up to `needed` connections for a request, of those that have waited longest and for at least half a
    /// second: their threads read the end of the client's bytes, and close them. Returns how many there are.
    pub fn make_room(&self, needed: usize) -> usize {
        let since_ns = self.lock();
        let longest = crowd::pick(since_ns.iter().map(|(fd, since_ns)| (*since_ns, *fd)), needed);
        for fd in &longest {
            // Its thread removes it before it closes it. A client that has disconnected needs no shutdown.
            let _ = shutdown(*fd, Shutdown::Read);
        }
        drop(since_ns);
        self.context.note_crowd(longest.len());
        longest.len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RawFd, u64>> {
        self.since_ns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a wait lasts before the thread checks whether the worker drains.
const SLICE: Duration = Duration::from_secs(1);
