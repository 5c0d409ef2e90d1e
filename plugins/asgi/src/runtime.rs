//! Per-process state: what requests have in common, and the lists that wakers fill.

use std::cell::RefMut;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jimu_websocket::handshake::DeflatePolicy;
use python::clock::now_ns;
use python::{
    Cell, Exception, GlobalRef, Interpreter, NativeType, Object, PyErrSet, PyResult, Python,
};
use worker_api::{Exchange, Host, Step, Waker};

use crate::awaitable::{Completed, Pending};
use crate::names::Names;
use crate::operation::Subject;
use crate::scope::Scopes;
use crate::timers::Timers;

/// Everything that is created once per process.
pub(crate) struct AsgiRuntime {
    /// What does not depend on the interface that the application speaks.
    pub(crate) interpreter: Interpreter,
    pub(crate) names: Names,
    pub(crate) pending: NativeType<Pending>,
    /// The object of [`Completed`].
    pub(crate) completed: GlobalRef,
    /// Builds scopes.
    scopes: Cell<Scopes>,
    pub(crate) websocket: WebSockets,
    /// Exchanges for which no task has been started.
    ready: Mutex<VecDeque<Exchange>>,
    /// Numbers of requests one of whose operations can be tried again.
    woken: Numbers,
    /// Numbers of requests whose client has disconnected or whose deadline has passed.
    gone: Numbers,
    /// The requests that were not complete when their task first waited, by number.
    open: Cell<HashMap<u64, Open>>,
    /// Where a part of a body is read before it becomes `bytes`.
    buffer: Cell<Box<[u8]>>,
    /// When something is due for WebSockets.
    timers: Cell<Timers>,
    /// Sets the loop's timer to a number of nanoseconds from now, once the loop runs.
    pub(crate) arm: OnceLock<GlobalRef>,
    /// The loop's `create_future`, once it runs.
    pub(crate) create_future: OnceLock<GlobalRef>,
    /// Number of the last request.
    last: AtomicU64,
}

/// Settings of WebSockets.
pub(crate) struct WebSockets {
    pub(crate) max_message_size: usize,
    /// How messages are compressed, if they are.
    pub(crate) deflate: Option<DeflatePolicy>,
    /// After how long without bytes of the client a ping is sent.
    pub(crate) ping_interval_ns: Option<u64>,
    /// How long the client may take to answer.
    pub(crate) ping_timeout_ns: Option<u64>,
    /// The multiples at which something is done for connections, so that those due at about the same time share a timer.
    granularity_ns: u64,
}

impl WebSockets {
    fn new(host: &Host) -> Self {
        let nanoseconds = |name| {
            let time = host.setting_duration(name);
            time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let ping_interval_ns = nanoseconds("websocket_ping_interval");
        let compresses = host.setting_bool("websocket_compression");
        Self {
            max_message_size: host
                .setting_usize("websocket_max_message_size")
                .unwrap_or(usize::MAX),
            deflate: compresses.then(DeflatePolicy::default),
            ping_interval_ns,
            ping_timeout_ns: nanoseconds("websocket_ping_timeout"),
            granularity_ns: ping_interval_ns.map_or(GRANULARITY_MAX_NS, |interval| {
                (interval / INTERVAL_PARTS).clamp(GRANULARITY_MIN_NS, GRANULARITY_MAX_NS)
            }),
        }
    }

    /// Returns the next time at or after `due_ns` at which something is done for connections.
    pub(crate) fn round_up(&self, due_ns: u64) -> u64 {
        due_ns.checked_next_multiple_of(self.granularity_ns).unwrap_or(due_ns)
    }
}

/// A request whose task waits, or a WebSocket that is not over.
pub(crate) struct Open {
    /// What `request` is.
    pub(crate) subject: &'static dyn Subject,
    /// Its object.
    pub(crate) request: GlobalRef,
    pub(crate) task: GlobalRef,
    /// Whether the await stack of the task has been logged, because the deadline has passed.
    pub(crate) is_traced: bool,
}

type Numbers = Arc<Mutex<Vec<u64>>>;

impl AsgiRuntime {
    /// Creates the state. It is never freed: Python objects refer to it, and a worker exits without finalizing Python.
    pub(crate) fn new(py: Python<'_>, host: Host) -> PyResult<&'static Self> {
        let root_path = host.setting_text("root_path").unwrap_or_default();
        let websocket = WebSockets::new(&host);
        let interpreter = Interpreter::new(py, host, "asgi", false)?;
        let names = Names::new(py)?;
        Ok(Box::leak(Box::new(Self {
            scopes: Cell::new(Scopes::new(py, root_path)?),
            interpreter,
            names,
            websocket,
            pending: NativeType::new(py)?,
            completed: NativeType::new(py)?.make(py, Completed)?.store(),
            ready: Mutex::default(),
            woken: Numbers::default(),
            gone: Numbers::default(),
            open: Cell::new(HashMap::new()),
            buffer: Cell::new(vec![0; BUFFER].into()),
            timers: Cell::new(Timers::default()),
            arm: OnceLock::new(),
            create_future: OnceLock::new(),
            last: AtomicU64::new(0),
        })))
    }

    /// Queues an exchange, for which a task is started after the engine's turn.
    pub(crate) fn take(&self, exchange: Exchange) {
        locked(&self.ready).push_back(exchange);
    }

    /// Returns the next exchange without a task.
    pub(crate) fn next_ready(&self) -> Option<Exchange> {
        locked(&self.ready).pop_front()
    }

    /// Returns a request number that is unique in this process.
    pub(crate) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Borrows the buffer for a part of a body.
    pub(crate) fn buffer<'a>(&'a self, py: Python<'_>) -> PyResult<RefMut<'a, Box<[u8]>>> {
        borrow(py, &self.buffer)
    }

    /// Borrows the builder of scopes.
    pub(crate) fn scopes<'a>(&'a self, py: Python<'_>) -> PyResult<RefMut<'a, Scopes>> {
        borrow(py, &self.scopes)
    }

    /// Returns the requests whose task waits.
    pub(crate) fn open<'a>(&'a self, py: Python<'_>) -> PyResult<RefMut<'a, HashMap<u64, Open>>> {
        borrow(py, &self.open)
    }

    /// Returns whether the task of a request has ended.
    pub(crate) fn has_task_ended(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let open = self.open(py)?;
        let Some(open) = open.get(&number) else { return Ok(true) };
        let task = open.task.get(py);
        Ok(task.is_none() || self.is_done(&task)?)
    }

    /// Returns whether a future or a task has ended.
    pub(crate) fn is_done(&self, future: &Object<'_>) -> PyResult<bool> {
        Ok(future.attr(&self.names.done.get(future.py()))?.call([])?.is_true())
    }

    /// Removes a request that is over.
    pub(crate) fn forget(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        let open = self.open(py)?.remove(&number);
        if let Some(Open { request, task, .. }) = open {
            drop((request.take(py), task.take(py)));
        }
        Ok(())
    }

    /// Moves the time at which something is due for a request, and sets the loop's timer if that is the first.
    pub(crate) fn schedule(
        &self,
        py: Python<'_>,
        number: u64,
        from_ns: Option<u64>,
        to_ns: Option<u64>,
    ) -> PyResult<()> {
        borrow(py, &self.timers)?.set(number, from_ns, to_ns);
        self.arm_timer(py)
    }

    /// Sets the loop's timer for what is due first.
    pub(crate) fn arm_timer(&self, py: Python<'_>) -> PyResult<()> {
        let due_ns = borrow(py, &self.timers)?.rearm();
        let (Some(due_ns), Some(arm)) = (due_ns, self.arm.get()) else { return Ok(()) };
        let left_ns = due_ns.saturating_sub(now_ns());
        arm.get(py).call([&py.number(left_ns as i64)?]).map(drop)
    }

    /// Takes the numbers of requests for which something is due, after the loop's timer has fired.
    pub(crate) fn take_due(&self, py: Python<'_>, now_ns: u64) -> PyResult<Vec<u64>> {
        Ok(borrow(py, &self.timers)?.take_due(now_ns))
    }

    /// Writes `bytes` from the index `at` on, which moves. Returns whether all of them are written; otherwise a waker is
    /// left for the request with this number.
    pub(crate) fn write(
        &self,
        exchange: &mut Exchange,
        number: u64,
        bytes: &[u8],
        at: &mut usize,
    ) -> worker_api::Result<bool> {
        while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
            let mut polled = exchange.poll_write(rest, None);
            if matches!(polled, Step::Pending) {
                polled = exchange.poll_write(rest, Some(self.waker(number)));
            }
            match polled {
                Step::Ready(n) => *at += n,
                Step::Pending => return Ok(false),
                Step::Failed(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Returns a waker after which the request's operations are tried again.
    pub(crate) fn waker(&self, number: u64) -> Waker {
        waker(&self.woken, number)
    }

    /// Returns a waker for the disconnect of the client, or the deadline.
    pub(crate) fn gone_waker(&self, number: u64) -> Waker {
        waker(&self.gone, number)
    }

    /// Does what a waker does, except that it does not cause a turn: there is one each second.
    pub(crate) fn wake_in_next_turn(&self, number: u64) {
        locked(&self.woken).push(number);
    }

    /// Takes the numbers of requests whose wakers have fired.
    pub(crate) fn take_woken(&self) -> Vec<u64> {
        std::mem::take(&mut *locked(&self.woken))
    }

    /// Takes the numbers of requests whose client has disconnected or whose deadline has passed.
    pub(crate) fn take_gone(&self) -> Vec<u64> {
        std::mem::take(&mut *locked(&self.gone))
    }
}

fn borrow<'a, T>(py: Python<'_>, cell: &'a Cell<T>) -> PyResult<RefMut<'a, T>> {
    cell.borrow(py).ok_or_else(|| {
        PyErrSet::new(py, Exception::Runtime, "the server is in use by another thread")
    })
}

fn waker(numbers: &Numbers, number: u64) -> Waker {
    let numbers = Arc::clone(numbers);
    Waker::new(move || locked(&numbers).push(number))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A ping is late by at most this part of the interval ...
const INTERVAL_PARTS: u64 = 20;
/// ... but loops are not woken up more often than this ...
const GRANULARITY_MIN_NS: u64 = 1_000_000;
/// ... and times are exact to this.
const GRANULARITY_MAX_NS: u64 = 100_000_000;
/// Longest part of a request's body in one message.
const BUFFER: usize = 64 << 10;
