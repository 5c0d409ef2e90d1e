//! Reading a request's body on a connection, and waiting for the client in either direction.

use std::io;
use std::ops::ControlFlow;

use worker_api::raw::{Hijacked, Interest, Step};
use worker_api::{Failure, FailureKind, RequestHead, Waker};

use crate::active_request::ActiveRequest;
use crate::clock::{earlier, now_ns};
use crate::connection::{Connection, Then};
use crate::driver::ConnectionDriver;
use http1::Reject;

impl Connection {
    /// The head of the request that is being served.
    pub(crate) fn request_head(&self) -> Option<&RequestHead<'_>> {
        self.turn.as_deref().map(ActiveRequest::request)
    }

    /// Until when the response is to be over; 0 for ever.
    pub(crate) fn request_deadline_ns(&self) -> u64 {
        self.turn.as_deref().map_or(0, |turn| turn.deadline_ns)
    }

    /// Gives the request more time.
    pub(crate) fn extend_deadline(&mut self, by_ns: u64) {
        if let Some(turn) = self.turn.as_deref_mut()
            && turn.deadline_ns != 0
        {
            turn.deadline_ns = turn.deadline_ns.max(now_ns()).saturating_add(by_ns);
        }
    }

    /// Reads from the body into `buf`.
    pub(crate) fn poll_read(
        &mut self,
        buf: &mut [u8],
        waker: Option<Waker>,
        home: &dyn ConnectionDriver,
    ) -> Step {
        let waker = match self.after_streak(waker, home) {
            ControlFlow::Continue(waker) => waker,
            ControlFlow::Break(step) => return step,
        };
        match self.try_read(buf) {
            Ok(Some(count)) => Step::Ready(count),
            Ok(None) => self.not_yet(Interest::READ, waker, home),
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Blocks until the direction of `interest` is worth trying again.
    pub(crate) fn wait(
        &mut self,
        interest: Interest,
        home: &dyn ConnectionDriver,
    ) -> Result<(), Failure> {
        let streak = self.turn.as_deref_mut().map(|turn| std::mem::take(&mut turn.streak));
        if streak.is_some_and(|streak| streak > STREAK_MAX) {
            return home.yield_now().map_err(|failure| self.break_with(failure));
        }
        let (polled, deadline_ns) = self.what_to_wait_for(interest)?;
        match home.wait(self.fd(), polled, deadline_ns) {
            Err(failure) if failure.kind == FailureKind::TIMEOUT => Err(self.out_of_time(interest)),
            Err(failure) => Err(self.break_with(failure)),
            Ok(()) => Ok(()),
        }
    }

    /// Counts an operation. After [`STREAK_MAX`] of them without a wait, reports "not yet" once, so that the caller
    /// yields: a client that is always ready would leave the thread to no one else. A blocking caller yields in
    /// [`Connection::wait`], and one that tries again instead is not stopped a second time; a caller with a waker is
    /// woken as soon as others have run.
    pub(crate) fn after_streak(
        &mut self,
        waker: Option<Waker>,
        home: &dyn ConnectionDriver,
    ) -> ControlFlow<Step, Option<Waker>> {
        let Some(turn) = self.turn.as_deref_mut() else { return ControlFlow::Continue(waker) };
        turn.streak += 1;
        match waker {
            None if turn.streak == STREAK_MAX + 1 => ControlFlow::Break(Step::Pending),
            Some(waker) if turn.streak > STREAK_MAX => {
                turn.streak = 0;
                home.wake_soon(waker);
                ControlFlow::Break(Step::Pending)
            }
            waker => ControlFlow::Continue(waker),
        }
    }

    /// "Not yet", after the waker was set, where there is one.
    pub(crate) fn not_yet(
        &mut self,
        interest: Interest,
        waker: Option<Waker>,
        home: &dyn ConnectionDriver,
    ) -> Step {
        let Some(waker) = waker else { return Step::Pending };
        if let Some(turn) = self.turn.as_deref_mut() {
            turn.streak = 0;
        }
        let armed = self.what_to_wait_for(interest).and_then(|(polled, deadline_ns)| {
            if deadline_ns != 0 && now_ns() >= deadline_ns {
                return Err(self.out_of_time(interest));
            }
            home.register_waker(self.fd(), polled, deadline_ns, waker)
        });
        match armed {
            Ok(()) => Step::Pending,
            Err(failure) => Step::Failed(self.break_with(failure)),
        }
    }

    /// Takes the connection out of the server: before the response is begun, or after the head of a 101.
    pub(crate) fn hijack(&mut self) -> Result<Hijacked, Failure> {
        let response = &self.turn()?.response;
        if response.on_wire && !response.plan.upgrade {
            return Err(Failure::application(
                "the response is begun: its connection cannot be taken over",
            ));
        }
        if !self.output.is_empty() {
            self.push(&[])?;
        }
        if !self.output.is_empty() {
            return Err(Failure::application(
                "the client has not read what was sent before: its connection cannot be taken over",
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
        self.context.background.take_over(self.fd());
        self.end_request(Then::Forget);
        Ok(hijacked)
    }

    /// The request's turn; a failure where it is over or broken.
    #[inline]
    pub(crate) fn turn(&mut self) -> Result<&mut ActiveRequest, Failure> {
        whole(self.turn.as_deref_mut())
    }

    /// Makes a failure final: whatever is tried later fails in the same way.
    pub(crate) fn break_with(&mut self, failure: Failure) -> Failure {
        if let Some(turn) = self.turn.as_deref_mut() {
            return turn.broken.get_or_insert(failure).clone();
        }
        failure
    }

    fn try_read(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        let turn = self.turn()?;
        if let Some(spool) = &mut turn.spool {
            turn.body_begun = true;
            let read = spool.read(buf);
            if spool.is_empty() {
                turn.spool = None;
            }
            match read {
                Ok(0) => {}
                Ok(count) => return Ok(Some(count)),
                Err(error) => return Err(Failure::io("cannot read the buffered body", &error)),
            }
        }
        if buf.is_empty() || turn.body.is_done() {
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
                    let eof = self.turn()?.body.eof().err();
                    return Err(refused(
                        &eof.unwrap_or_else(|| Reject::new(400, "the body is cut")),
                    ));
                }
                Ok(count) => self.turn()?.reading.moved(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(Failure::from(error)),
            }
        }
    }

    /// Decodes what was read; nothing where that was framing alone. The decoder is shown no more than fits into `buf`,
    /// so that it never gives more.
    fn decode_into(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Failure> {
        let Some(turn) = self.turn.as_deref_mut() else { return Ok(Some(0)) };
        turn.expects_continue = false;
        turn.body_begun = true;
        let unused = self.input.unused();
        let shown = &unused[..unused.len().min(buf.len())];
        let decoded = turn.body.decode(shown).map_err(|reject| refused(&reject))?;
        let data = &shown[decoded.data.clone()];
        buf[..data.len()].copy_from_slice(data);
        let count = data.len();
        self.input.consume(decoded.consumed);
        Ok((count > 0 || decoded.done).then_some(count))
    }

    /// The client that waits for leave to send its body gets it when the application first reads (RFC 9110 10.1.1).
    fn send_continue(&mut self) -> Result<(), Failure> {
        let turn = self.turn()?;
        if std::mem::take(&mut turn.expects_continue) && !turn.response.on_wire {
            self.output.append().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.push_interim()?;
        }
        Ok(())
    }

    /// What the socket is to be ready for, and until when.
    fn what_to_wait_for(&mut self, interest: Interest) -> Result<(Interest, u64), Failure> {
        let config = &self.context.config;
        let (body, write, rate) = (config.body_timeout, config.write_timeout, config.min_rate);
        let polled = match interest {
            Interest::READ => self.stream.read_interest(),
            _ => self.stream.write_interest(),
        };
        let turn = self.turn()?;
        let slow = match interest {
            Interest::READ => turn.reading.deadline(body, rate),
            _ => turn.writing.deadline(write, rate),
        };
        Ok((polled, earlier(turn.deadline_ns, slow)))
    }

    /// The failure for a deadline that passed: the request's own, or the client's slowness.
    pub(crate) fn out_of_time(&mut self, interest: Interest) -> Failure {
        let request_ns = self.request_deadline_ns();
        let failure = if request_ns != 0 && now_ns() >= request_ns {
            ran_over()
        } else if interest == Interest::READ {
            Failure::new(
                FailureKind::TIMEOUT,
                "the client sends its body too slowly (body_timeout, min_rate)",
            )
            .with_status(408)
        } else {
            Failure::new(
                FailureKind::TIMEOUT,
                "the client takes its answer too slowly (write_timeout, min_rate)",
            )
        };
        self.break_with(failure)
    }
}

/// The failure of a request whose time is up.
pub(crate) fn ran_over() -> Failure {
    Failure::new(FailureKind::TIMEOUT, "the request ran over its time (request_timeout)")
}

/// The turn of a request; a failure where it is over or broken.
#[inline]
pub(crate) fn whole(turn: Option<&mut ActiveRequest>) -> Result<&mut ActiveRequest, Failure> {
    match turn {
        Some(ActiveRequest { broken: Some(failure), .. }) => Err(failure.clone()),
        Some(turn) => Ok(turn),
        None => Err(Failure::application("the exchange is over")),
    }
}

/// A body that cannot be read, as the application sees it.
pub(crate) fn refused(reject: &Reject) -> Failure {
    let kind = if reject.status == 413 { FailureKind::TOO_LARGE } else { FailureKind::PROTOCOL };
    Failure::new(kind, reject.reason.clone()).with_status(reject.status)
}

/// How many operations in a row an exchange has before others have their turn.
const STREAK_MAX: u32 = 64;
