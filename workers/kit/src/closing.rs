//! From the end of a response to the next head, or to the end of the connection. The end of a response begins when the
//! application has written all of it and the client has not accepted all of it: the rest is kept as a [`Tail`].

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use worker_api::Interest;

use crate::active_request::ActiveRequest;
use crate::buffer::Input;
use crate::clock::now_ns;
use crate::deadline::Deadline;
use crate::io::Io;
use crate::spool::Buffers;
use crate::state::{Drain, Flush, Linger, State, Step, Then};
use crate::tail::{Source, Tail};
use crate::transfer_rate::TransferRate;
use jimu_http1::{BodyKind, Reject};

impl ActiveRequest {
    /// Keeps the last part of a body, which the client does not accept now; returns whether there is room for
    /// it.
    pub(crate) fn keep_rest(&mut self, io: &mut Io, bytes: &[u8]) -> bool {
        self.keep(io, bytes.len() as u64, |buffers| Source::of_bytes(buffers, bytes))
    }

    /// Keeps the range of a file that is the last part of a body; returns whether it can be kept.
    pub(crate) fn keep_file(&mut self, io: &mut Io, file: RawFd, offset: u64, left: u64) -> bool {
        self.keep(io, left, |buffers| Source::of_file(buffers, file, offset, left))
    }

    fn keep(
        &mut self,
        io: &mut Io,
        length: u64,
        source: impl FnOnce(&Arc<Buffers>) -> Option<Source>,
    ) -> bool {
        let Some(buffers) = &io.context.buffers else { return false };
        let response = &mut self.response;
        if !response.on_wire || response.plan.kind != BodyKind::Length(response.written + length) {
            return false;
        }
        let Some(source) = source(buffers) else { return false };
        response.written += length;
        io.tail = Some(Box::new(Tail::new(source, self.writing, self.deadline)));
        true
    }
}

impl Flush {
    /// Sends the rest of the response, then proceeds with what follows.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        match self.then {
            Then::Detach => return Step::CLOSE,
            Then::Abort => return Step::Abort,
            Then::Next | Then::Linger | Then::Close => {}
        }
        match io.send_rest() {
            Ok(None) => {}
            Ok(Some(interest)) => return io.wait_to_send(interest),
            Err(_) => return Step::CLOSE,
        }
        match (self.then, self.body.take()) {
            (Then::Next, Some(body)) => {
                io.deadline = Deadline::after(now_ns(), io.context.config.body_timeout);
                Step::Enter(State::Drain(Drain { body, rate: TransferRate::default() }))
            }
            (Then::Next, None) => Step::Enter(State::next_head(io, now_ns())),
            (Then::Linger, _) if io.stream.shutdown_write().is_ok() => {
                let waits_since_ns = now_ns();
                io.deadline = Deadline::after(waits_since_ns, Some(LINGER_MAX));
                let rate = TransferRate::default();
                Step::Enter(State::Linger(Linger { rate, waits_since_ns }))
            }
            _ => io.close_cleanly(),
        }
    }
}

impl Drain {
    /// Reads the rest of a request's body that the application did not read. All of it is read, as long as
    /// the client sends it in time, because the response announced that the connection is kept.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        loop {
            match self.discard(io) {
                Ok(true) => return Step::Enter(State::next_head(io, now_ns())),
                Ok(false) => {}
                Err(reject) => {
                    tracing::debug!(
                        "invalid request body from {}: {}",
                        io.ends().peer.host,
                        reject.reason
                    );
                    return Step::Enter(State::flush(io, Then::Linger, None));
                }
            }
            match io.fill() {
                Ok(0) => return Step::CLOSE,
                Ok(count) => self.rate.moved(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let config = &io.context.config;
                    io.deadline = self.rate.deadline(config.body_timeout, config.min_rate);
                    return Step::Wait(io.stream.read_interest());
                }
                Err(_) => return Step::CLOSE,
            }
        }
    }

    /// Decodes and discards the input; returns whether the end of the body was reached.
    fn discard(&mut self, io: &mut Io) -> Result<bool, Reject> {
        loop {
            let decoded = self.body.decode(io.input.unused())?;
            io.input.consume(decoded.consumed);
            if decoded.done {
                return Ok(true);
            }
            if io.input.is_empty() {
                return Ok(false);
            }
        }
    }
}

impl Linger {
    /// Reads and discards input until the client closes its side.
    pub(crate) fn advance(&mut self, io: &mut Io) -> Step {
        loop {
            match io.fill() {
                Ok(0) => return Step::CLOSE,
                Ok(count) => {
                    self.rate.moved(count);
                    io.input = Input::default();
                    if self.rate.bytes() > LINGER_BYTES_MAX {
                        return Step::CLOSE;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    io.release();
                    io.deadline = self.rate.deadline(Some(LINGER_MAX), LINGER_RATE);
                    return Step::Wait(io.stream.read_interest());
                }
                Err(_) => return Step::CLOSE,
            }
        }
    }
}

impl Io {
    /// Sends the rest of a response; returns what to wait for if the client does not accept all of it.
    fn send_rest(&mut self) -> io::Result<Option<Interest>> {
        match self.try_send_rest() {
            Ok(true) => {
                self.tail = None;
                Ok(None)
            }
            Ok(false) => Ok(Some(Interest::WRITE)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok(Some(self.stream.write_interest()))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether everything was sent; false if other connections are to be served first.
    fn try_send_rest(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        loop {
            while !self.output.is_empty() {
                let Self { stream, output, .. } = self;
                match output.send(&[], |parts| stream.write(parts))? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    count => self.moved(count),
                }
            }
            if sent >= SEND_MAX {
                self.is_yielding = true;
                return Ok(false);
            }
            let Self { stream, output, tail, .. } = self;
            let Some(tail) = tail else { break };
            match tail.send(stream, output, self.context.config.sendfile)? {
                0 => break,
                count => sent += count,
            }
        }
        while self.stream.has_unsent() {
            let count = self.stream.flush_some()?;
            self.moved(count);
        }
        Ok(true)
    }

    /// Records that the client accepted bytes of a response that the application has finished.
    fn moved(&mut self, count: usize) {
        match self.tail.as_deref_mut() {
            Some(tail) => tail.moved(count),
            None => self.deadline = Deadline::after(now_ns(), self.context.config.write_timeout),
        }
    }

    /// Waits for the client to accept more of the response.
    fn wait_to_send(&mut self, interest: Interest) -> Step {
        if let Some(tail) = self.tail.as_deref_mut() {
            self.deadline = tail.wait_deadline(&self.context.config);
        }
        Step::Wait(interest)
    }

    /// Logs that a response is cut because its deadline has passed, if it has a tail.
    pub(crate) fn log_slow_reader(&self) {
        let Some(tail) = self.tail.as_deref() else { return };
        let limits = if tail.is_slow() { "write_timeout, min_rate" } else { "request_timeout" };
        tracing::warn!(
            "response to {} cut: the client reads it too slowly ({limits})",
            self.ends().peer.host
        );
    }

    /// Closes a connection on which no response is truncated.
    pub(crate) fn close_cleanly(&mut self) -> Step {
        self.stream.send_close_notify();
        Step::CLOSE
    }
}

/// How long a client may send nothing and keep its side open after a response that closes the connection.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// The rate in bytes per second that extends this time: the client is still sending the body of its request.
const LINGER_RATE: u64 = 64 << 10;
/// The most bytes that are read while lingering. A client that sends more without reading the response may lose
/// it.
const LINGER_BYTES_MAX: u64 = 16 << 20;
/// The most bytes of a tail that are sent before other connections are served.
const SEND_MAX: usize = 4 << 20;
