//! What HTTP requests and WebSockets have in common: the Python type of their objects, the functions that are bound to these,
//! and what the loop does with them.

use python::clock::now_ns;
use python::{
    Arguments, Definition, Method, Native, NativeType, Object, PyErrSet, PyResult, Python, required,
};
use worker_api::{Exchange, fork};

use crate::awaitable::Pending;
use crate::message::to_dict;
use crate::operation::{Operation, Step, Subject};
use crate::runtime::{AsgiRuntime, Open};

/// One request: the value of the Python object to which `receive` and `send` are bound.
pub(crate) trait Request: Native {
    /// `receive`, which is [`receive`].
    const RECEIVE: Method<Self>;
    /// `send`, which is [`send`].
    const SEND: Method<Self>;

    /// Creates the value for an exchange. `number` is unique in this process.
    fn new(types: &'static RequestTypes<Self>, number: u64, exchange: Exchange) -> Self;

    /// Returns the type of its object.
    fn types(&self) -> &'static RequestTypes<Self>;

    /// Returns its number.
    fn number(&self) -> u64;

    /// Runs `work` on the exchange; `None` once the request is over.
    fn with_exchange<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Exchange) -> T,
    ) -> PyResult<Option<T>>;

    /// Builds the scope.
    fn scope<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>>;

    /// Reads a message of the application, and does what it asks for up to the first write. Returns what is to be written.
    fn begin<'py>(&self, py: Python<'py>, message: &Object<'py>) -> PyResult<Option<Operation>>;

    /// Tries an operation.
    fn step<'py>(&self, py: Python<'py>, operation: &mut Operation) -> PyResult<Step<'py>>;

    /// Creates a future that is resolved when an operation can be tried again.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>>;

    /// After a waker has fired: lets tasks try their operations again. Returns whether the client has ended the connection,
    /// once: the task is cancelled if it does not end soon.
    fn wake(&self, py: Python<'_>) -> PyResult<bool>;

    /// Records that the client has disconnected, or that the deadline has passed; returns whether it is the deadline.
    /// `None` if that does not concern the task.
    fn set_gone(&self, py: Python<'_>) -> PyResult<Option<bool>>;

    /// When the worker drains: ends what would delay it.
    fn drain(&self, py: Python<'_>) -> PyResult<()>;

    /// Does what is due at `now_ns`, when the time has come that the request has scheduled.
    fn tick(&self, py: Python<'_>, now_ns: u64) -> PyResult<()> {
        let _ = (py, now_ns);
        Ok(())
    }

    /// Returns whether the deadline of the request has passed.
    fn is_late(&self, py: Python<'_>) -> PyResult<bool> {
        let is_past = |exchange: &mut Exchange| {
            exchange.deadline_ns().is_some_and(|deadline| deadline <= now_ns())
        };
        Ok(self.with_exchange(py, is_past)?.unwrap_or(false))
    }

    /// Ends the request after the application's task. `exception` is what it raised. Returns whether the exception was
    /// reported.
    fn end_task(&self, py: Python<'_>, exception: Option<&Object<'_>>) -> PyResult<bool>;

    /// Returns the state of this process.
    fn runtime(&self) -> &'static AsgiRuntime {
        self.types().runtime
    }
}

/// The type and the functions of which the objects of requests are made.
pub(crate) struct RequestTypes<R> {
    runtime: &'static AsgiRuntime,
    kind: NativeType<R>,
    receive: Definition<R>,
    send: Definition<R>,
}

impl<R: Request> RequestTypes<R> {
    /// Creates the type. It is never freed: requests refer to it.
    pub(crate) fn new(py: Python<'_>, runtime: &'static AsgiRuntime) -> PyResult<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            runtime,
            kind: NativeType::new(py)?,
            receive: Definition::new(&R::RECEIVE),
            send: Definition::new(&R::SEND),
        })))
    }

    /// Calls `start(request, scope, receive, send)` for an exchange, which returns the task, or `None` if it has ended. A
    /// request that is not over then is kept for its wakers.
    pub(crate) fn serve(
        &'static self,
        py: Python<'_>,
        start: &Object<'_>,
        exchange: Exchange,
    ) -> PyResult<()> {
        let number = self.runtime.next_number();
        let object = self.kind.make(py, R::new(self, number, exchange))?;
        let request = self.kind.value(&object)?;
        let started = || {
            let scope = request.scope(py)?;
            let receive = self.kind.bind(&self.receive, &object)?;
            let send = self.kind.bind(&self.send, &object)?;
            start.call([&object, &scope, &receive, &send])
        };
        let task = match started() {
            Ok(task) => task,
            Err(raised) => {
                let exception = raised.take(py);
                return request.end_task(py, Some(&exception)).map(drop);
            }
        };
        let watch =
            |exchange: &mut Exchange| exchange.on_disconnect(self.runtime.gone_waker(number));
        if request.with_exchange(py, watch)?.is_some() {
            let open = Open {
                subject: self,
                request: object.store(),
                task: task.store(),
                is_traced: false,
            };
            self.runtime.open(py)?.insert(number, open);
        }
        Ok(())
    }

    /// Does `work` between two steps of the task. If the request is over then and the task has ended, nothing refers to it
    /// any more.
    fn then_forget<T>(
        &self,
        py: Python<'_>,
        request: &Object<'_>,
        work: impl FnOnce(&R) -> PyResult<T>,
    ) -> PyResult<T> {
        let request = self.kind.value(request)?;
        let result = work(request)?;
        if is_over(py, request)? && self.runtime.has_task_ended(py, request.number())? {
            self.runtime.forget(py, request.number())?;
        }
        Ok(result)
    }

    fn pending<'py>(
        &'static self,
        request: &Object<'py>,
        operation: Operation,
    ) -> PyResult<Object<'py>> {
        self.runtime.pending.make(request.py(), Pending::new(self, request, operation))
    }
}

impl<R: Request> Subject for RequestTypes<R> {
    fn step<'py>(
        &self,
        py: Python<'py>,
        request: &Object<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>> {
        self.kind.value(request)?.step(py, operation)
    }

    fn future<'py>(&self, py: Python<'py>, request: &Object<'py>) -> PyResult<Object<'py>> {
        self.kind.value(request)?.future(py)
    }

    fn wake(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<bool> {
        self.then_forget(py, request, |request| request.wake(py))
    }

    fn set_gone(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<Option<bool>> {
        self.then_forget(py, request, |request| request.set_gone(py))
    }

    fn drain(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<()> {
        self.then_forget(py, request, |request| request.drain(py))
    }

    fn is_late(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<bool> {
        self.kind.value(request)?.is_late(py)
    }

    fn tick(&self, py: Python<'_>, request: &Object<'_>, now_ns: u64) -> PyResult<()> {
        self.then_forget(py, request, |request| request.tick(py, now_ns))
    }
}

/// `receive()`, bound to a request.
pub(crate) fn receive<'py, R: Request>(
    _: Python<'py>,
    request: &R,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [] = arguments.take([])?;
    request.types().pending(&arguments.bound_to(), Operation::Receive)
}

/// `send(message)`, bound to a request.
pub(crate) fn send<'py, R: Request>(
    py: Python<'py>,
    request: &R,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [message] = arguments.take(["message"])?;
    let message = to_dict(py, required(py, message, "message")?)?;
    let completed = || request.runtime().completed.get(py).clone();
    let Some(mut operation) = request.begin(py, &message)? else { return Ok(completed()) };
    match request.step(py, &mut operation) {
        Ok(Step::Wait) => request.types().pending(&arguments.bound_to(), operation),
        step => {
            operation.release(py);
            step.map(|_| completed())
        }
    }
}

/// `_end(exception)`: ends a request after the application's task. Returns whether an exception was reported.
pub(crate) fn end<'py, R: Request>(
    py: Python<'py>,
    request: &R,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [exception] = arguments.take(["exception"])?;
    let exception = exception.filter(|exception| !exception.is_none());
    if fork::is_child() {
        // The exchange is the parent's.
        request.runtime().interpreter.end_child(py, exception.as_ref().map(PyErrSet::restore));
    }
    let reported = request.end_task(py, exception.as_ref())?;
    if is_over(py, request)? {
        request.runtime().forget(py, request.number())?;
    }
    py.truth(reported)
}

/// Returns whether a request has ended for the client.
fn is_over<R: Request>(py: Python<'_>, request: &R) -> PyResult<bool> {
    Ok(request.with_exchange(py, |_| ())?.is_none())
}
