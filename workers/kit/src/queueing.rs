//! How long a request has been queued when the application is called for it: in the kernel, for a worker to accept its
//! connection or to read from it, and in the worker, for a thread or a greenlet. What it waits for later is part of its
//! duration.

use worker_api::Counter;

use crate::clock::{nanoseconds, now_ns};
use crate::connection::Connection;
use crate::socket;

impl Connection {
    /// Counts how long the request has been queued, where somebody may ask: of a part of them, for the sake of its price.
    #[inline]
    pub(crate) fn note_queueing(&self) {
        if self.context.config.notes_queueing
            && let Some(turn) = self.turn.as_deref()
            && turn.request().id % ONE_OF == 1
        {
            self.measure_queueing(turn.request().received_ns.max(turn.ready_ns));
        }
    }

    /// The kernel knows when the last bytes came: those of the request's head, or of what of its body is there already,
    /// so that what it has waited in the worker is a second lower bound. Of a unix socket the kernel does not know.
    #[cold]
    fn measure_queueing(&self, received_ns: u64) {
        let Ok(in_all) = socket::since_last_received(self.stream.as_fd()) else { return };
        let in_the_worker_ns = now_ns().saturating_sub(received_ns);
        let micros = nanoseconds(in_all).max(in_the_worker_ns) / 1000;
        self.context.host.count(Counter::QUEUED_US, i64::try_from(micros).unwrap_or(i64::MAX));
    }
}

/// One request in so many is looked at, the first of a worker among them: half a microsecond for the system call would be
/// some 5 % of a short request.
const ONE_OF: u64 = 16;
