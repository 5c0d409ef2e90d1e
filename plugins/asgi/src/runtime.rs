//! Per-process state: what requests have in common, and the lists that wakers fill.

use std::cell::RefMut;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ::websocket::handshake::DeflatePolicy;
use python::{Cell, Exception, GlobalRef, Interpreter, NativeType, PyErrSet, PyResult, Python};
use worker_api::{Exchange, Host, Step, Waker};

use crate::awaitable::{Completed, Pending};
use crate::names::Names;
use crate::operation::Subject;
use crate::scope::Scopes;

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
}

impl WebSockets {
    fn new(host: &Host) -> Self {
        let nanoseconds = |name| {
            let time = host.setting_duration(name);
            time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let compresses = host.setting_bool("websocket_compression");
        Self {
            max_message_size: host
                .setting_usize("websocket_max_message_size")
                .unwrap_or(usize::MAX),
            deflate: compresses.then(DeflatePolicy::default),
            ping_interval_ns: nanoseconds("websocket_ping_interval"),
            ping_timeout_ns: nanoseconds("websocket_ping_timeout"),
        }
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

    /// Removes a request that is over.
    pub(crate) fn forget(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        let open = self.open(py)?.remove(&number);
        if let Some(Open { request, task, .. }) = open {
            drop((request.take(py), task.take(py)));
        }
        Ok(())
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

/// Longest part of a request's body in one message.
const BUFFER: usize = 64 << 10;
