//! The state of a request: what it receives and sends through its exchange.

use python::fault::is_outside;
use python::{Exception, PyErrSet, PyResult, Python};
use worker_api::{Exchange, Failure, FailureKind, Header, Step as Polled};

use super::{Http, Incoming, Response, State};
use crate::head::Head;
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

    /// Accepts a part of the body, and starts the response with the first one, of `length` bytes. Returns whether the
    /// response ends with it.
    pub(super) fn begin_body(
        &mut self,
        py: Python<'_>,
        http: &Http,
        length: usize,
        more: bool,
    ) -> PyResult<bool> {
        match std::mem::replace(&mut self.response, Response::Nothing) {
            Response::FirstBody { head, has_trailers } => {
                let whole = (!more && !has_trailers).then_some(length);
                self.start(py, http, &head, has_trailers, whole)?;
            }
            response => {
                self.response = response;
                if more {
                    self.check_not_drained(py)?;
                }
            }
        }
        let Response::Body { has_trailers, .. } = self.response else { return Ok(false) };
        if more {
            return Ok(false);
        }
        self.response =
            if has_trailers { Response::Trailers(Vec::new()) } else { Response::Nothing };
        Ok(!has_trailers)
    }

    /// Starts the response. `whole` is the length of a body in one piece.
    fn start(
        &mut self,
        py: Python<'_>,
        http: &Http,
        head: &Head,
        has_trailers: bool,
        whole: Option<usize>,
    ) -> PyResult<()> {
        let is_event_stream = head.is_event_stream;
        self.omits_body |= head.has_no_body();
        let started = head.start(self.open(py)?, whole);
        self.response = Response::Body { has_trailers, is_event_stream };
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

    /// Sends what is unsent, as far as there is room. Returns whether that is all of it.
    pub(super) fn send_unsent(&mut self, py: Python<'_>, http: &Http) -> PyResult<bool> {
        if self.unsent.has_failed() {
            return Err(self.failure.as_ref().map_or_else(|| gone(py), |known| error(py, known)));
        }
        if self.unsent.is_empty() {
            return Ok(true);
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let sent = unsent.continue_with(py, |operation| self.send(py, http, operation));
        self.unsent = unsent;
        sent
    }

    /// After a waker has fired: sends what is unsent, whether a task waits for it or not.
    pub(super) fn wake(&mut self, py: Python<'_>, http: &Http) {
        self.unsent.wake();
        if let Err(raised) = self.send_unsent(py, http) {
            // Tasks that wait for it receive the error.
            raised.clear(py);
            if self.has_returned
                && let Some(mut exchange) = self.exchange.take()
                && let Some(failure) = self.failure.take()
            {
                exchange.fail(failure);
            }
        }
    }

    /// Sends a part of the body or the trailers, and then ends the response if that is its end. Returns whether all of it
    /// is sent.
    pub(super) fn send(
        &mut self,
        py: Python<'_>,
        http: &Http,
        operation: &mut Operation,
    ) -> PyResult<bool> {
        let (sent, ends) = match operation {
            Operation::Send { data, at, ends } => {
                let data = data.get(py);
                (self.write(py, http, data.as_bytes().unwrap_or_default(), at)?, *ends)
            }
            Operation::SendFile { file, ends } => (self.write_file(py, http, file)?, *ends),
            Operation::SendTrailers(all) => {
                self.set_trailers(py, all)?;
                (true, true)
            }
            Operation::Receive | Operation::Flush => (true, false),
        };
        if sent && ends {
            self.complete(py, http)?;
        }
        Ok(sent)
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
        if self.omits_body {
            return Ok(true);
        }
        let Some(exchange) = self.exchange.as_mut() else { return Ok(true) };
        let written = http.runtime().write(exchange, http.number, bytes, at);
        written.map_err(|failure| self.raise(py, failure))
    }

    /// Writes a part of a file. Returns whether all of it is written.
    fn write_file(&mut self, py: Python<'_>, http: &Http, span: &mut Span) -> PyResult<bool> {
        self.check_open(py)?;
        if self.omits_body {
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

    /// Passes the trailers to the exchange.
    fn set_trailers(&mut self, py: Python<'_>, all: &[(String, Vec<u8>)]) -> PyResult<()> {
        let headers: Vec<Header<'_>> =
            all.iter().map(|(name, value)| Header::new(name, value)).collect();
        let set = self.open(py)?.trailers(&headers);
        set.map_err(|failure| self.raise(py, failure))
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
        let raised = error(py, &failure);
        self.is_gone |= is_outside(&failure);
        self.failure.get_or_insert(failure);
        raised
    }
}

/// Sets the exception for a failure of the exchange.
#[cold]
fn error(py: Python<'_>, failure: &Failure) -> PyErrSet {
    let kind = match failure.kind {
        FailureKind::GONE => Exception::ConnectionReset,
        FailureKind::TIMEOUT => Exception::Timeout,
        FailureKind::APPLICATION => Exception::Runtime,
        _ => Exception::Os,
    };
    PyErrSet::new(py, kind, &failure.to_string())
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
