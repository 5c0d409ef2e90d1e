//! What `receive()` and `send()` return: objects that a task awaits. They have the methods of a coroutine, so that they can
//! also become a task, as the coroutines of other servers can.

use std::ffi::CStr;

use python::{
    Arguments, Cell, Exception, GlobalRef, Method, Native, Object, PyErrSet, PyResult, Python,
    method, required,
};

use crate::operation::{Operation, Step, Subject};

/// An operation that has completed without a result: there is one such object.
pub(crate) struct Completed;

/// An operation that may have to wait.
pub(crate) struct Pending {
    /// What the request is.
    pub(crate) subject: &'static dyn Subject,
    /// The object of the request.
    pub(crate) request: GlobalRef,
    pub(crate) operation: Cell<Operation>,
    /// The iterator of the future that the task waits for.
    pub(crate) future: Cell<Option<GlobalRef>>,
}

impl Native for Completed {
    const NAME: &'static CStr = c"jimu.Completed";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"send", entry: method!(send_to_completed) },
        Method { name: c"throw", entry: method!(throw::<Completed>) },
        Method { name: c"close", entry: method!(close::<Completed>) },
    ]];
    const ITERATES: bool = true;
    const AWAITS: bool = true;
}

impl Native for Pending {
    const NAME: &'static CStr = c"jimu.Pending";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"send", entry: method!(send_to_pending) },
        Method { name: c"throw", entry: method!(throw::<Pending>) },
        Method { name: c"close", entry: method!(close::<Pending>) },
    ]];
    const ITERATES: bool = true;
    const AWAITS: bool = true;

    fn end(self, py: Python<'_>) {
        drop(self.request.take(py));
        if let Some(future) = self.future.borrow(py).and_then(|mut future| future.take()) {
            drop(future.take(py));
        }
        if let Some(mut operation) = self.operation.borrow(py) {
            operation.release(py);
        }
    }

    fn next<'py>(&self, me: &Object<'py>) -> PyResult<Option<Object<'py>>> {
        let py = me.py();
        loop {
            let future = borrow(py, &self.future)?.take();
            if let Some(future) = future {
                let future = future.take(py);
                if let Some(yielded) = future.next()? {
                    *borrow(py, &self.future)? = Some(future.store());
                    return Ok(Some(yielded));
                }
            }
            let request = self.request.get(py);
            let step = self.subject.step(py, &request, &mut *borrow(py, &self.operation)?)?;
            match step {
                Step::Done => return Ok(None),
                Step::Message(message) => return Err(PyErrSet::stop(&message)),
                Step::Wait => {
                    let future = self.subject.future(py, &request)?;
                    *borrow(py, &self.future)? = Some(future.iterator()?.store());
                }
            }
        }
    }
}

fn borrow<'a, T>(py: Python<'_>, cell: &'a Cell<T>) -> PyResult<std::cell::RefMut<'a, T>> {
    cell.borrow(py).ok_or_else(|| {
        PyErrSet::new(py, Exception::Runtime, "the operation is awaited by another task")
    })
}

impl Pending {
    /// Creates the value for an operation of a request.
    pub(crate) fn new(
        subject: &'static dyn Subject,
        request: &Object<'_>,
        operation: Operation,
    ) -> Self {
        let request = request.clone().store();
        Self { subject, request, operation: Cell::new(operation), future: Cell::new(None) }
    }
}

/// `send(value)`: what a task calls if it does not iterate.
fn send_to_completed<'py>(
    py: Python<'py>,
    _: &Completed,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    Err(PyErrSet::stop(&py.none()))
}

/// `send(value)`: what a task calls if it does not iterate.
fn send_to_pending<'py>(
    py: Python<'py>,
    pending: &Pending,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    // The object is needed only for its token.
    let token = py.none();
    pending.next(&token)?.map_or_else(|| Err(PyErrSet::stop(&py.none())), Ok)
}

/// `throw(exception)`: raises it where the object is awaited. Also in the older form with type, value and traceback.
fn throw<'py, T>(py: Python<'py>, _: &T, arguments: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    let [kind, value, _trace] = arguments.take(["type", "value", "traceback"])?;
    let kind = required(py, kind, "type")?;
    let exception = match value.filter(|value| !value.is_none()) {
        Some(value) => value,
        None if kind.is_type() => kind.call([])?,
        None => kind,
    };
    Err(PyErrSet::restore(&exception))
}

/// `close()`
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn close<'py, T>(py: Python<'py>, _: &T, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    Ok(py.none())
}
