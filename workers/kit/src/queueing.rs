//! Measuring how long a request was queued before the application is called: in the kernel, until a worker
//! accepts or reads its connection, and in the worker, until a thread or greenlet is free. Later waits are part
//! of the request's duration.

use worker_api::Counter;

use crate::clock::{nanoseconds, now_ns};
use crate::connection::Connection;
use crate::socket;

impl Connection {
    /// Measures the queueing time of a sample of the requests, if metrics, the status page or
    /// `max_workers` are set.
    #[inline]
    pub(crate) fn note_queueing(&self) {
        if self.io.context.config.measures_queueing
            && let Some(active) = self.request()
            && active.head().id % SAMPLE_INTERVAL == 1
        {
            self.measure_queueing(active.head().received_ns.max(active.ready_ns));
        }
    }

    /// The kernel reports when the last bytes arrived: those of the head, or of the part of the body that is
    /// already there. The time that the request spent in the worker is therefore a second lower bound. The
    /// kernel does not report it for unix sockets.
    #[cold]
    fn measure_queueing(&self, received_ns: u64) {
        let Ok(since_received) = socket::since_last_received(self.io.stream.as_fd()) else {
            return;
        };
        let in_worker_ns = now_ns().saturating_sub(received_ns);
        let micros = nanoseconds(since_received).max(in_worker_ns) / 1000;
        self.io.context.host.count(Counter::QUEUED_US, i64::try_from(micros).unwrap_or(i64::MAX));
    }
}

/// One request in this many is measured, starting with the first of a worker: the system call takes half a
/// microsecond, some 5 % of a short request.
const SAMPLE_INTERVAL: u64 = 16;
