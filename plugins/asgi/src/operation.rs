//! Operations of an application that may have to wait.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use python::descriptor::duplicate;
use python::{GlobalRef, Object, PyResult, Python};

/// What an attempt at an operation has led to.
pub(crate) enum Step<'py> {
    /// It is complete, without a result.
    Done,
    /// It is complete, and this is the message received.
    Message(Object<'py>),
    /// It has to wait until a waker of the exchange fires.
    Wait,
}

/// What a request is, HTTP or WebSocket: the side that does not depend on its type. What is awaited refers to it, and so do
/// the requests whose task waits.
pub(crate) trait Subject: Sync {
    /// Tries an operation of this request.
    fn step<'py>(
        &self,
        py: Python<'py>,
        request: &Object<'py>,
        operation: &mut Operation,
    ) -> PyResult<Step<'py>>;

    /// Creates a future that is resolved when an operation of this request can be tried again.
    fn future<'py>(&self, py: Python<'py>, request: &Object<'py>) -> PyResult<Object<'py>>;

    /// See [`Request::wake`](crate::request::Request::wake).
    fn wake(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<bool>;

    /// See [`Request::set_gone`](crate::request::Request::set_gone).
    fn set_gone(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<Option<bool>>;

    /// See [`Request::drain`](crate::request::Request::drain).
    fn drain(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<()>;

    /// See [`Request::is_late`](crate::request::Request::is_late).
    fn is_late(&self, py: Python<'_>, request: &Object<'_>) -> PyResult<bool>;

    /// See [`Request::tick`](crate::request::Request::tick).
    fn tick(&self, py: Python<'_>, request: &Object<'_>, now_ns: u64) -> PyResult<()>;
}

/// An operation that may have to wait.
pub(crate) enum Operation {
    /// Returns the next message.
    Receive,
    /// Sends `data` from the index `at` on, and then ends the response if it `ends` with that.
    Send { data: GlobalRef, at: usize, ends: bool },
    /// Sends a part of a file, and then ends the response if it `ends` with that.
    SendFile { file: Span, ends: bool },
    /// Ends the response with these trailers.
    SendTrailers(Vec<(String, Vec<u8>)>),
    /// Sends what was begun before: the frames of a WebSocket, or what is unsent.
    Flush,
}

/// A part of a file.
pub(crate) struct Span {
    /// Keeps the descriptor open.
    pub(crate) file: Source,
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

/// Where a file comes from.
pub(crate) enum Source {
    /// Opened by the server.
    File(File),
    /// The application's.
    Descriptor(RawFd),
}

impl Source {
    /// Returns the descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Self::File(file) => file.as_raw_fd(),
            Self::Descriptor(fd) => *fd,
        }
    }

    /// Duplicates the application's descriptor: it may close that one when it gives up the operation.
    pub(crate) fn own(&mut self) -> io::Result<()> {
        if let Self::Descriptor(fd) = self {
            *self = Self::File(duplicate(*fd)?);
        }
        Ok(())
    }
}

impl Operation {
    /// Drops the references that it holds.
    pub(crate) fn release(&mut self, py: Python<'_>) {
        if let Self::Send { data, .. } = std::mem::replace(self, Self::Receive) {
            drop(data.take(py));
        }
    }
}
