//! The state of a request: what it receives and sends through its exchange.

use python::fault::is_outside;
use python::{Exception, PyErrSet, PyResult, Python};
use worker_api::{Exchange, Failure, FailureKind, Step as Polled};

use super::{Http, Incoming, Response, State};
use crate::operation::{Operation, Span, Step};
use crate::request::Request as _;
use crate::runtime::AsgiRuntime;

impl State {
    pub(super) fn receive<'py>(&mut self, py: Python<'py>, http: &Http) -> PyResult<Step<'py>> {
        let runtime = http.runtime();
        let Some(exchange) = self.exchange.as_mut().filter(|_| !self.is_gone && !self.is_drained)
        else {
            return disconnect(py, runtime);
        };
        let Incoming::Body { left, waits } = &mut self.incoming else { return Ok(Step::Wait) };
        let mut buffer = runtime.buffer(py)?;
        let mut filled = 0;
        while *left != Some(0) && filled < buffer.len() {
            let part = &mut buffer[filled..];
            let mut polled = if std::mem::take(waits) {
                Polled::Pending
            } else {
                exchange.poll_read(part, None)
            };
            if matches!(polled, Polled::Pending) && filled == 0 {
                polled = exchange.poll_read(part, Some(runtime.waker(http.number)));
            }
            match polled {
                Polled::Ready(0) => *left = Some(0),
                Polled::Ready(n) => {
                    filled += n;
                    *left = left.map(|left| left.saturating_sub(n as u64));
                }
                Polled::Pending if filled == 0 => return Ok(Step::Wait),
                Polled::Pending => {
                    *waits = true;
                    break;
                }
                Polled::Failed(failure) => {
                    self.is_gone = true;
                    self.failure.get_or_insert(failure);
                    return disconnect(py, runtime);
                }
            }
        }
        let more = *left != Some(0);
        let names = &runtime.names;
        let message = py.dict()?;
        message.set_item(&names.kind.get(py), &names.http_request.get(py))?;
        message.set_item(&names.body.get(py), &py.bytes(&buffer[..filled])?)?;
        message.set_item(&names.more_body.get(py), &py.truth(more)?)?;
        if !more {
            self.incoming = Incoming::Disconnect;
        }
        Ok(Step::Message(message))
    }

    /// Starts the response with its first part of `length` bytes, which is the whole body unless `more`.
    pub(super) fn begin_body(
        &mut self,
        py: Python<'_>,
        http: &Http,
        length: usize,
        more: bool,
    ) -> PyResult<()> {
        let response = std::mem::replace(&mut self.response, Response::Nothing);
        let Response::FirstBody { head, has_trailers } = response else {
            self.response = response;
            return if more { self.check_not_drained(py) } else { Ok(()) };
        };
        let omitted = self.is_head_method || head.has_no_body();
        let is_event_stream = head.is_event_stream;
        let whole = (!more && !has_trailers).then_some(length);
        let started = head.start(self.open(py)?, whole);
        self.response = Response::Body { omitted, has_trailers, is_event_stream };
        started.map_err(|failure| self.raise(py, failure))?;
        if is_event_stream && http.runtime().interpreter.drain.has_begun() {
            self.is_drained = true;
            self.waiting.take().resolve(py, http.runtime())?;
        }
        Ok(())
    }

    /// Fails if the worker drains: more of a stream of events would delay it.
    pub(super) fn check_not_drained(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.is_drained {
            return Ok(());
        }
        self.failure.get_or_insert_with(|| {
            Failure::new(FailureKind::GONE, "the worker drains: the stream of events has to end")
        });
        Err(gone(py))
    }

    /// Sends what operations before have left. Returns whether that is all of it.
    pub(super) fn send_unsent(&mut self, py: Python<'_>, http: &Http) -> PyResult<bool> {
        while let Some(mut operation) = self.unsent.pop_front() {
            let sent = self.send(py, http, &mut operation);
            if let Ok(false) = sent {
                self.unsent.push_front(operation);
                return Ok(false);
            }
            operation.release(py);
            if sent.is_err() {
                self.drop_unsent(py);
                return sent;
            }
        }
        Ok(true)
    }

    /// Sends a part of the body, and then what follows it. Returns whether all of it is sent.
    pub(super) fn send(
        &mut self,
        py: Python<'_>,
        http: &Http,
        operation: &mut Operation,
    ) -> PyResult<bool> {
        let (sent, more) = match operation {
            Operation::Send { data, at, more } => {
                let data = data.get(py);
                (self.write(py, http, data.as_bytes().unwrap_or_default(), at)?, *more)
            }
            Operation::SendFile { file, more } => (self.write_file(py, http, file)?, *more),
            Operation::Receive | Operation::Flush => return Ok(true),
        };
        if sent {
            self.after_body(py, http, more)?;
        }
        Ok(sent)
    }

    /// Keeps an operation for [`State::send_unsent`].
    pub(super) fn keep_unsent(&mut self, py: Python<'_>, mut operation: Operation) -> PyResult<()> {
        match &mut operation {
            Operation::Receive | Operation::Flush => return Ok(()),
            Operation::Send { .. } => {}
            Operation::SendFile { file, .. } => file.file.own().map_err(|error| {
                PyErrSet::new(py, Exception::Os, &format!("cannot keep the file open: {error}"))
            })?,
        }
        self.unsent.push_back(operation);
        Ok(())
    }

    /// Drops what is unsent.
    pub(super) fn drop_unsent(&mut self, py: Python<'_>) {
        self.unsent.drain(..).for_each(|mut operation| operation.release(py));
    }

    /// Writes `bytes` from the index `at` on, which moves. Returns whether all of them are written.
    fn write(
        &mut self,
        py: Python<'_>,
        http: &Http,
        bytes: &[u8],
        at: &mut usize,
    ) -> PyResult<bool> {
        self.check_open(py)?;
        if let Response::Body { omitted: true, .. } = self.response {
            return Ok(true);
        }
        let Some(exchange) = self.exchange.as_mut() else { return Ok(true) };
        let written = http.runtime().write(exchange, http.number, bytes, at);
        written.map_err(|failure| self.raise(py, failure))
    }

    /// Writes a part of a file. Returns whether all of it is written.
    fn write_file(&mut self, py: Python<'_>, http: &Http, span: &mut Span) -> PyResult<bool> {
        self.check_open(py)?;
        if let Response::Body { omitted: true, .. } = self.response {
            return Ok(true);
        }
        let fd = span.file.fd();
        let Some(exchange) = self.exchange.as_mut() else { return Ok(true) };
        while span.left > 0 {
            let waker = http.runtime().waker(http.number);
            match exchange.poll_send_file(fd, span.offset, span.left, Some(waker)) {
                Polled::Ready(n) => {
                    span.offset += n as u64;
                    span.left = span.left.saturating_sub(n as u64);
                }
                Polled::Pending => return Ok(false),
                Polled::Failed(failure) => return Err(self.raise(py, failure)),
            }
        }
        Ok(true)
    }

    /// What follows a part of the body: nothing if there is `more`, otherwise the trailers or the end.
    fn after_body(&mut self, py: Python<'_>, http: &Http, more: bool) -> PyResult<()> {
        if more {
            return Ok(());
        }
        if let Response::Body { has_trailers: true, .. } = self.response {
            self.response = Response::Trailers(Vec::new());
            return Ok(());
        }
        self.complete(py, http)
    }

    /// Ends a complete response. The task may go on. It is no error that the client has disconnected: many do so behind
    /// the last event of a stream, and the application has nothing more to send that it should give up.
    pub(super) fn complete(&mut self, py: Python<'_>, http: &Http) -> PyResult<()> {
        self.response = Response::Nothing;
        let Some(mut exchange) = self.exchange.take() else { return Ok(()) };
        let ended = match self.failure.take() {
            Some(failure) if self.is_gone => Err(failure),
            _ => exchange.finish(),
        };
        if let Err(failure) = ended {
            let raised =
                (failure.kind != FailureKind::GONE).then(|| self.raise(py, failure.clone()));
            exchange.fail(failure);
            if let Some(raised) = raised {
                return Err(raised);
            }
        }
        self.waiting.take().resolve(py, http.runtime())
    }

    /// Returns whether the client has disconnected within the body.
    pub(super) fn is_cut(&self) -> bool {
        self.is_gone && matches!(self.response, Response::Body { has_trailers: false, .. })
    }

    /// Returns the exchange; the error of a disconnected client if there is none.
    pub(super) fn open(&mut self, py: Python<'_>) -> PyResult<&mut Exchange> {
        self.check_open(py)?;
        self.exchange.as_mut().ok_or_else(|| gone(py))
    }

    /// Fails if the client has disconnected: `send` raises an `OSError` then (HTTP specification 2.4).
    pub(super) fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_gone || self.exchange.is_none() { Err(gone(py)) } else { Ok(()) }
    }

    /// Records a failure of the exchange and sets the corresponding exception.
    #[cold]
    pub(super) fn raise(&mut self, py: Python<'_>, failure: Failure) -> PyErrSet {
        let kind = match failure.kind {
            FailureKind::GONE => Exception::ConnectionReset,
            FailureKind::TIMEOUT => Exception::Timeout,
            FailureKind::APPLICATION => Exception::Runtime,
            _ => Exception::Os,
        };
        let raised = PyErrSet::new(py, kind, &failure.to_string());
        self.is_gone |= is_outside(&failure);
        self.failure.get_or_insert(failure);
        raised
    }
}

#[cold]
pub(super) fn gone(py: Python<'_>) -> PyErrSet {
    PyErrSet::new(py, Exception::ConnectionReset, "the client has disconnected")
}

/// Creates the message `http.disconnect`.
fn disconnect<'py>(py: Python<'py>, runtime: &AsgiRuntime) -> PyResult<Step<'py>> {
    let message = py.dict()?;
    message.set_item(&runtime.names.kind.get(py), &py.name(b"http.disconnect")?)?;
    Ok(Step::Message(message))
}
