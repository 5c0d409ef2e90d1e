//! Reading a request's body, and waiting for the client in either direction.

use std::io;
use std::ops::ControlFlow;

use worker_api::raw::{Hijacked, Interest, Step};
use worker_api::{Failure, FailureKind, RequestHead, Waker};

use crate::active_request::ActiveRequest;
use crate::clock::{earlier, now_ns};
use crate::connection::{Connection, Then};
use crate::driver::ConnectionDriver;
use http1::Reject;
use http1::response::CONTINUE;

impl Connection {
    /// Returns the head of the request that is being served.
    pub(crate) fn request_head(&self) -> Option<&RequestHead<'_>> {
        self.active.as_deref().map(ActiveRequest::head)
    }

    /// Returns the deadline of the response; 0 for none.
    pub(crate) fn request_deadline_ns(&self) -> u64 {
        self.active.as_deref().map_or(0, |active| active.deadline_ns)
    }

    /// Extends the deadline of the request.
    pub(crate) fn extend_deadline(&mut self, by_ns: u64) {
        if let Some(active) = self.active.as_deref_mut()
            && active.deadline_ns != 0
        {
            active.deadline_ns = active.deadline_ns.max(now_ns()).saturating_add(by_ns);
        }
    }

    /// Reads a part of the body into `buf`.
    pub(crate) fn poll_read(
        &mut self,
        buf: &mut [u8],
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, driver) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_read(buf) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.pending(Interest::READ, waker, driver),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Blocks until the direction of `interest` is worth trying again.
    pub(crate) fn wait(
        &mut self,
        interest: Interest,
        driver: &dyn ConnectionDriver,
    ) -> Result<(), Failure> {
        let streak = self.active.as_deref_mut().map(|active| std::mem::take(&mut active.streak));
        if streak.is_some_and(|streak| streak > STREAK_MAX) {
            return driver.yield_now().map_err(|failure| self.break_with(failure));
        }
        let (polled, deadline_ns) = self.wait_target(interest)?;
        match driver.wait(self.fd(), polled, deadline_ns) {
            Err(failure) if failure.kind == FailureKind::TIMEOUT => {
                Err(self.timeout_failure(interest))
            }
            Err(failure) => Err(self.break_with(failure)),
            Ok(()) => Ok(()),
        }
    }

    /// Counts an operation. After [`STREAK_MAX`] operations without blocking, reports `Pending` once so that
    /// the caller yields: a client that is always ready would otherwise occupy the thread. A blocking caller
    /// yields in [`Connection::wait`], and one that retries instead is not stopped again; a caller with a
    /// waker is woken as soon as other work has run.
    pub(crate) fn after_streak(
        &mut self,
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> ControlFlow<Step, Option<Waker>> {
        let Some(active) = self.active.as_deref_mut() else { return ControlFlow::Continue(waker) };
        active.streak += 1;
        match waker {
            None if active.streak == STREAK_MAX + 1 => ControlFlow::Break(Step::Pending),
            Some(waker) if active.streak > STREAK_MAX => {
                active.streak = 0;
                driver.wake_soon(waker);
                ControlFlow::Break(Step::Pending)
            }
            waker => ControlFlow::Continue(waker),
        }
    }

    /// Returns `Pending` after registering the waker, if any.
    pub(crate) fn pending(
        &mut self,
        interest: Interest,
        waker: Option<Waker>,
        driver: &dyn ConnectionDriver,
    ) -> Step {
        let Some(waker) = waker else { return Step::Pending };
        if let Some(active) = self.active.as_deref_mut() {
            active.streak = 0;
        }
        let registered = self.wait_target(interest).and_then(|(polled, deadline_ns)| {
            if deadline_ns != 0 && now_ns() >= deadline_ns {
                return Err(self.timeout_failure(interest));
            }
            driver.register_waker(self.stream.as_fd(), polled, deadline_ns, waker)
        });
        match registered {
            Ok(()) => Step::Pending,
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Removes the connection from the server: before the response is started, or after the head of a 101.
    pub(crate) fn hijack(&mut self) -> Result<Hijacked, Failure> {
        let response = &self.active()?.response;
        if response.on_wire && !response.plan.upgrade {
            return Err(Failure::application(
                "cannot take over the connection: the response has started",
            ));
        }
        if !self.output.is_empty() {
            self.push(&[])?;
        }
        if !self.output.is_empty() {
            return Err(Failure::application(
                "cannot take over the connection: the client has not read an earlier response yet",
            ));
        }
        self.restore_body()?;
        self.take_wire()?;
        let Self { context, stream, input, .. } = self;
        let (fd, unread) = stream
            .hand_over(input.unused(), || context.relay())
            .map_err(|error| Failure::io("cannot hand over the connection", &error))?;
        let hijacked = Hijacked { fd, already_read: unread.to_vec().into() };
        self.duplicated = true;
        self.context.background.take_over(self.stream.as_fd());
        self.end_request(Then::Detach);
        Ok(hijacked)
    }

    /// Returns the active request; fails if it is over or broken.
    #[inline]
    pub(crate) fn active(&mut self) -> Result<&mut ActiveRequest, Failure> {
        unbroken(self.active.as_deref_mut())
    }

    /// Makes a failure final: later operations fail in the same way.
    pub(crate) fn break_with(&mut self, failure: Failure) -> Failure {
        if let Some(active) = self.active.as_deref_mut() {
            return active.broken.get_or_insert(failure).clone();
        }
        failure
    }

    fn try_read(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        let active = self.active()?;
        if let Some(spool) = &mut active.spool {
            active.body_begun = true;
            let read = spool.read(buf);
            if spool.is_empty() {
                active.spool = None;
            }
            match read {
                Ok(0) => {}
                Ok(count) => return Ok(Some(count)),
                Err(error) => return Err(Failure::io("cannot read the buffered body", &error)),
            }
        }
        if buf.is_empty() || active.body.is_done() {
            return Ok(Some(0));
        }
        loop {
            if !self.input.is_empty() {
                if let Some(count) = self.decode_into(buf)? {
                    return Ok(Some(count));
                }
                continue;
            }
            self.send_continue()?;
            match self.fill() {
                Ok(0) => {
                    let eof = self.active()?.body.eof().err();
                    return Err(refused(
                        &eof.unwrap_or_else(|| Reject::new(400, "the request's body is truncated")),
                    ));
                }
                Ok(count) => self.active()?.reading.moved(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(Failure::from(error)),
            }
        }
    }

    /// Decodes input into `buf`; returns `None` if it held framing only. The decoder sees no more bytes than
    /// fit into `buf`, so that it never produces more.
    fn decode_into(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        let Some(active) = self.active.as_deref_mut() else { return Ok(Some(0)) };
        active.expects_continue = false;
        active.body_begun = true;
        let unused = self.input.unused();
        let visible = &unused[..unused.len().min(buf.len())];
        let decoded = active.body.decode(visible).map_err(|reject| refused(&reject))?;
        let data = &visible[decoded.data.clone()];
        buf[..data.len()].copy_from_slice(data);
        let count = data.len();
        self.input.consume(decoded.consumed);
        Ok((count > 0 || decoded.done).then_some(count))
    }

    /// Sends `100 Continue` when the application first reads, if the client waits for it (RFC 9110 10.1.1).
    fn send_continue(&mut self) -> Result<(), Failure> {
        let active = self.active()?;
        if std::mem::take(&mut active.expects_continue) && !active.response.on_wire {
            self.output.append().extend_from_slice(CONTINUE);
            self.push_interim()?;
        }
        Ok(())
    }

    /// Returns what the socket has to be ready for, and the deadline.
    fn wait_target(&mut self, interest: Interest) -> Result<(Interest, u64), Failure> {
        let config = &self.context.config;
        let (body, write, rate) = (config.body_timeout, config.write_timeout, config.min_rate);
        let polled = match interest {
            Interest::READ => self.stream.read_interest(),
            _ => self.stream.write_interest(),
        };
        let active = self.active()?;
        let slow = match interest {
            Interest::READ => active.reading.deadline(body, rate),
            _ => active.writing.deadline(write, rate),
        };
        Ok((polled, earlier(active.deadline_ns, slow)))
    }

    /// Returns the failure for a deadline that passed: the request's, or that of a slow client.
    pub(crate) fn timeout_failure(&mut self, interest: Interest) -> Failure {
        let request_ns = self.request_deadline_ns();
        let failure = if request_ns != 0 && now_ns() >= request_ns {
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

/// Returns the active request; fails if it is over or broken.
#[inline]
pub(crate) fn unbroken(active: Option<&mut ActiveRequest>) -> Result<&mut ActiveRequest, Failure> {
    match active {
        Some(ActiveRequest { broken: Some(failure), .. }) => Err(failure.clone()),
        Some(active) => Ok(active),
        None => Err(Failure::application("the exchange is over")),
    }
}

/// Converts a rejected body to a failure for the application.
pub(crate) fn refused(reject: &Reject) -> Failure {
    let kind = if reject.status == 413 { FailureKind::TOO_LARGE } else { FailureKind::PROTOCOL };
    Failure::new(kind, reject.reason.clone()).with_status(reject.status)
}

/// The number of operations in a row after which an exchange yields.
const STREAK_MAX: u32 = 64;
