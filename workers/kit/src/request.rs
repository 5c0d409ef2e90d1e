//! Reading a request's body, and waiting for the client in either direction.

use std::io::ErrorKind;
use std::ops::ControlFlow;

use worker_api::raw::{Hijacked, Interest, Step};
use worker_api::{Failure, FailureKind, Waker};

use crate::active_request::ActiveRequest;
use crate::buffer::READ_MAX;
use crate::clock::now_ns;
use crate::deadline::Deadline;
use crate::driver::ConnectionDriver;
use crate::io::Io;
use jimu_http1::Reject;
use jimu_http1::response::CONTINUE;

impl ActiveRequest {
    /// Extends the deadline of the request.
    pub(crate) fn extend_deadline(&mut self, by_ns: u64) {
        if !self.deadline.is_never() {
            self.deadline = self.deadline.max(Deadline::at_ns(now_ns())).later_by(by_ns);
        }
    }

    /// Reads a part of the body into `buf`.
    pub(crate) fn poll_read(
        &mut self,
        io: &mut Io,
        buf: &mut [u8],
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, driver) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_read(io, buf) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(io, Interest::READ, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Blocks until the direction of `interest` is worth trying again.
    pub(crate) fn wait(
        &mut self,
        io: &mut Io,
        interest: Interest,
        driver: &dyn ConnectionDriver,
    ) -> Result<(), Failure> {
        if std::mem::take(&mut self.streak) > STREAK_MAX {
            return driver.yield_now().map_err(|failure| self.break_with(failure));
        }
        let (polled, deadline) = self.wait_target(io, interest)?;
        match driver.wait(io.stream.fd(), polled, deadline) {
            Err(failure) if failure.kind == FailureKind::TIMEOUT => {
                Err(self.timeout_failure(interest))
            }
            Err(failure) => Err(self.break_with(failure)),
            Ok(()) => Ok(()),
        }
    }

    /// Counts an operation. After [`STREAK_MAX`] operations without blocking, reports `Pending` once so that
    /// the caller yields: a client that is always ready would otherwise occupy the thread. A blocking caller
    /// yields in [`ActiveRequest::wait`], and one that retries instead is not stopped again; a caller with a
    /// waker is woken as soon as other work has run.
    pub(crate) fn after_streak(
        &mut self,
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> ControlFlow<Step, Option<Waker>> {
        self.streak += 1;
        match waker {
            None if self.streak == STREAK_MAX + 1 => ControlFlow::Break(Step::Pending),
            Some(waker) if self.streak > STREAK_MAX => {
                self.streak = 0;
                driver.wake_soon(waker);
                ControlFlow::Break(Step::Pending)
            }
            waker => ControlFlow::Continue(waker),
        }
    }

    /// Returns `Pending` after registering the waker, if any.
    pub(crate) fn pending(
        &mut self,
        io: &mut Io,
        interest: Interest,
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let Some(waker) = waker else { return Step::Pending };
        self.streak = 0;
        let registered = self.wait_target(io, interest).and_then(|(polled, deadline)| {
            if deadline.is_past() {
                return Err(self.timeout_failure(interest));
            }
            driver.register_waker(io.stream.as_fd(), polled, deadline, waker)
        });
        match registered {
            Ok(()) => Step::Pending,
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Removes the connection from the server: before the response is started, or after the head of a 101.
    pub(crate) fn hijack(&mut self, io: &mut Io) -> Result<Hijacked, Failure> {
        self.check_unbroken()?;
        if self.response.on_wire && !self.response.plan.upgrade {
            return Err(Failure::application(
                "cannot take over the connection: the response has started",
            ));
        }
        if !io.output.is_empty() {
            self.push(io, &[])?;
        }
        if !io.output.is_empty() {
            return Err(Failure::application(
                "cannot take over the connection: the client has not read an earlier response yet",
            ));
        }
        self.restore_body(io)?;
        self.take_wire(io)?;
        let Io { context, stream, input, .. } = io;
        let (fd, unread) = stream
            .hand_over(input.unused(), || context.relay())
            .map_err(|error| Failure::io("cannot hand over the connection", &error))?;
        let hijacked = Hijacked { fd, already_read: unread.to_vec().into() };
        io.duplicated = true;
        io.context.background.take_over(io.stream.as_fd());
        Ok(hijacked)
    }

    /// Fails if nothing more can be done with the exchange.
    #[inline]
    pub(crate) fn check_unbroken(&self) -> Result<(), Failure> {
        self.broken.as_ref().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Makes a failure final: later operations fail in the same way.
    pub(crate) fn break_with(&mut self, failure: Failure) -> Failure {
        self.broken.get_or_insert(failure).clone()
    }

    fn try_read(&mut self, io: &mut Io, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        self.check_unbroken()?;
        if let Some(spool) = &mut self.spool {
            self.body_begun = true;
            let read = spool.read(buf);
            if spool.is_empty() {
                self.spool = None;
            }
            match read {
                Ok(0) => {}
                Ok(count) => return Ok(Some(count)),
                Err(error) => return Err(Failure::io("cannot read the buffered body", &error)),
            }
        }
        if buf.is_empty() || self.body.is_done() {
            return if self.is_upgraded() { self.read_raw(io, buf) } else { Ok(Some(0)) };
        }
        loop {
            if !io.input.is_empty() {
                if let Some(count) = self.decode_into(io, buf)? {
                    return Ok(Some(count));
                }
                continue;
            }
            self.send_continue(io)?;
            let direct = self.direct_len(buf.len());
            let read = if direct == 0 { io.fill() } else { io.read_into(&mut buf[..direct]) };
            match read {
                Ok(0) => {
                    let eof = self.body.eof().err();
                    return Err(refused(
                        &eof.unwrap_or_else(|| Reject::new(400, "the request's body is truncated")),
                    ));
                }
                Ok(count) => {
                    self.reading.moved(count);
                    if direct > 0 {
                        self.body.pass(&buf[..count]).map_err(|reject| refused(&reject))?;
                        self.body_begun = true;
                        return Ok(Some(count));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(Failure::from(error)),
            }
        }
    }

    /// Returns how many bytes to read from the connection straight into a buffer for `room` bytes of data: those that
    /// are certain to be data, if they are at least as many as a read into the input takes. Returns 0 to read into the
    /// input.
    pub(crate) fn direct_len(&self, room: usize) -> usize {
        let certain = self.body.remaining_hint().unwrap_or_default();
        let len = room.min(usize::try_from(certain).unwrap_or(usize::MAX));
        if len >= READ_MAX { len } else { 0 }
    }

    /// Decodes input into `buf`; returns `None` if it held framing only. The decoder sees no more bytes than
    /// fit into `buf`, so that it never produces more.
    fn decode_into(&mut self, io: &mut Io, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        self.expects_continue = false;
        self.body_begun = true;
        let unused = io.input.unused();
        let visible = &unused[..unused.len().min(buf.len())];
        let decoded = self.body.decode(visible).map_err(|reject| refused(&reject))?;
        let data = &visible[decoded.data.clone()];
        buf[..data.len()].copy_from_slice(data);
        let count = data.len();
        io.input.consume(decoded.consumed);
        Ok((count > 0 || decoded.done).then_some(count))
    }

    /// Sends `100 Continue` when the application first reads, if the client waits for it (RFC 9110 10.1.1).
    fn send_continue(&mut self, io: &mut Io) -> Result<(), Failure> {
        if std::mem::take(&mut self.expects_continue) && !self.response.on_wire {
            io.output.append().extend_from_slice(CONTINUE);
            self.push_interim(io)?;
        }
        Ok(())
    }

    /// Returns what the socket has to be ready for, and the deadline.
    fn wait_target(
        &mut self,
        io: &mut Io,
        interest: Interest,
    ) -> Result<(Interest, Deadline), Failure> {
        self.check_unbroken()?;
        if self.is_upgraded() {
            return Ok(self.raw_wait_target(io, interest));
        }
        let config = &io.context.config;
        let (body, write, rate) = (config.body_timeout, config.write_timeout, config.min_rate);
        let (polled, slow) = match interest {
            Interest::READ => (io.stream.read_interest(), self.reading.deadline(body, rate)),
            Interest::READ_WRITE => {
                let slow = self.reading.deadline(body, rate);
                (interest, slow.min(self.writing.deadline(write, rate)))
            }
            _ => (io.stream.write_interest(), self.writing.deadline(write, rate)),
        };
        Ok((polled, self.deadline.min(slow)))
    }

    /// Returns the failure for a deadline that passed: the request's, or that of a slow client.
    pub(crate) fn timeout_failure(&mut self, interest: Interest) -> Failure {
        let failure = if self.deadline.is_past() {
            request_timed_out()
        } else if interest == Interest::READ {
            Failure::new(
                FailureKind::TIMEOUT,
                "the client sends its body too slowly (body_timeout, min_rate)",
            )
            .with_status(408)
        } else {
            Failure::new(
                FailureKind::TIMEOUT,
                "the client reads the response too slowly (write_timeout, min_rate)",
            )
        };
        self.break_with(failure)
    }
}

/// The failure of a request whose time is up.
pub(crate) fn request_timed_out() -> Failure {
    Failure::new(FailureKind::TIMEOUT, "the request timed out (request_timeout)")
}

/// Converts a rejected body to a failure for the application.
pub(crate) fn refused(reject: &Reject) -> Failure {
    let kind = if reject.status == 413 { FailureKind::TOO_LARGE } else { FailureKind::PROTOCOL };
    Failure::new(kind, reject.reason.clone()).with_status(reject.status)
}

/// The number of operations in a row after which an exchange yields.
const STREAK_MAX: u32 = 64;
