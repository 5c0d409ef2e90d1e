//! Taking in a request's body before the application is called, for classes whose threads block: a client that is slow
//! with it costs no thread.
//!
//! A body that has come whole with its head stays where it is. Others are read into a [`Spool`] while the connection is
//! parked, and from there by the exchange. The request is also ready once the spool is full: the exchange reads what is
//! left from the connection.

use std::io;

use worker_api::{Failure, Interest};

use crate::active_request::ActiveRequest;
use crate::clock::{earlier, now_ns};
use crate::connection::{Advance, Connection};
use crate::request::refused;
use crate::spool::Spool;
use http1::Reject;

impl Connection {
    /// Whether the body is to be taken in: not where the client waits for a response first, or where more is announced
    /// than is buffered.
    pub(crate) fn has_intake(&self) -> bool {
        let (Some(buffers), Some(turn)) = (&self.context.buffers, self.turn.as_deref()) else {
            return false;
        };
        let has_none = turn.body.is_done();
        if has_none || turn.expects_continue || turn.wants_upgrade || turn.is_connect {
            return false;
        }
        let behind = self.input.unused();
        match turn.request().content_length.into_option() {
            Some(length) => length <= buffers.max && (behind.len() as u64) < length,
            None => !is_whole(turn, behind),
        }
    }

    /// Reads the body as far as possible without waiting.
    pub(crate) fn take_in(&mut self) -> Option<Advance> {
        let mut taken = 0;
        let mut is_readable = true;
        loop {
            match self.spool_input() {
                Ok(true) => return Some(self.end_intake()),
                Ok(false) => {}
                Err(reject) => return self.fail_intake(&refused(&reject)),
            }
            if !is_readable || taken >= INTAKE_MAX && !self.stream.may_hold_input() {
                self.is_yielding = is_readable;
                return Some(self.wait_for_body());
            }
            match self.fill() {
                Ok(0) => {
                    let cut = Reject::new(400, "the connection ended inside the request's body");
                    return self.fail_intake(&refused(&cut));
                }
                Ok(count) => {
                    taken += count;
                    is_readable = !self.emptied;
                    if let Some(turn) = self.turn.as_deref_mut() {
                        turn.reading.moved(count);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Some(self.wait_for_body());
                }
                Err(error) => return self.fail_intake(&Failure::from(error)),
            }
        }
    }

    /// The deadline has passed before the body was whole.
    pub(crate) fn expire_intake(&mut self) -> Advance {
        let failure = self.out_of_time(Interest::READ);
        self.fail(&failure);
        self.advance()
    }

    /// Puts what was taken in of the body and was not read back before what was read from the connection, as one chunk
    /// where it came in chunks: for an application that takes the connection over.
    pub(crate) fn restore_body(&mut self) -> Result<(), Failure> {
        let turn = self.turn()?;
        let is_chunked = turn.request().chunked;
        let Some(spool) = turn.spool.as_deref_mut() else { return Ok(()) };
        if is_chunked && !turn.body.is_done() {
            return Err(Failure::application(
                "a part of the request's body is buffered: its connection cannot be taken over before the body is read",
            ));
        }
        let mut unread = spool
            .take_unread()
            .map_err(|error| Failure::io("cannot read the buffered body", &error))?;
        turn.spool = None;
        if is_chunked {
            let head = format!("{:x}\r\n", unread.len());
            unread.splice(..0, head.bytes());
            unread.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        self.input.prepend(unread);
        Ok(())
    }

    /// Moves what was read of the body to the spool; whether the request is ready.
    fn spool_input(&mut self) -> Result<bool, Reject> {
        let Self { context, turn, input, .. } = self;
        let (Some(buffers), Some(turn)) = (&context.buffers, turn.as_deref_mut()) else {
            return Ok(true);
        };
        let spool = turn.spool.get_or_insert_with(|| Box::new(Spool::new(buffers)));
        while !input.is_empty() && !turn.body.is_done() && !spool.is_full() {
            let unused = input.unused();
            let decoded = turn.body.decode(unused)?;
            spool.append(&unused[decoded.data]);
            input.consume(decoded.consumed);
        }
        Ok(turn.body.is_done() || spool.is_full())
    }

    fn wait_for_body(&mut self) -> Advance {
        let Self { context, turn, .. } = self;
        if let Some(turn) = turn.as_deref_mut() {
            let slow = turn.reading.deadline(context.config.body_timeout, context.config.min_rate);
            self.deadline_ns = earlier(turn.deadline_ns, slow);
        }
        self.input.release();
        Advance::Wait(self.stream.read_interest())
    }

    fn end_intake(&mut self) -> Advance {
        if let Some(turn) = self.turn.as_deref_mut() {
            turn.ready_ns = now_ns();
        }
        self.hold_for_exchange();
        Advance::Request
    }

    fn fail_intake(&mut self, failure: &Failure) -> Option<Advance> {
        self.fail(failure);
        None
    }
}

/// Whether the body is at its end in what was read behind the head.
fn is_whole(turn: &ActiveRequest, mut behind: &[u8]) -> bool {
    let mut body = turn.body.clone();
    while !body.is_done() && !behind.is_empty() {
        match body.decode(behind) {
            Ok(decoded) => behind = &behind[decoded.consumed..],
            // The application is to see what is wrong with it.
            Err(_) => return true,
        }
    }
    body.is_done()
}

/// How much is read before others are served, bytes.
const INTAKE_MAX: usize = 1 << 20;
