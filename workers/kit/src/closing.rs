//! From the end of a response to the next head, or to the end of the connection.

use std::io::ErrorKind;
use std::time::Duration;

use crate::buffer::Input;
use crate::clock::{deadline_after, now_ns};
use crate::io::Io;
use crate::state::{Drain, Flush, Linger, State, Step, Then};
use crate::transfer_rate::TransferRate;
use http1::Reject;

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
                io.deadline_ns = deadline_after(now_ns(), io.context.config.body_timeout);
                Step::Enter(State::Drain(Drain { body, rate: TransferRate::default() }))
            }
            (Then::Next, None) => Step::Enter(State::next_head(io, now_ns())),
            (Then::Linger, _) if io.stream.shutdown_write().is_ok() => {
                let waits_since_ns = now_ns();
                io.deadline_ns = deadline_after(waits_since_ns, Some(LINGER_MAX));
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
                        io.peer.host,
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
                    io.deadline_ns = self.rate.deadline(config.body_timeout, config.min_rate);
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
                    io.deadline_ns = self.rate.deadline(Some(LINGER_MAX), LINGER_RATE);
                    return Step::Wait(io.stream.read_interest());
                }
                Err(_) => return Step::CLOSE,
            }
        }
    }
}

impl Io {
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
