//! Buffering a request's body before the application is called, for classes whose threads block: a slow client
//! does not occupy a thread.
//!
//! A body that arrives together with its head stays in the input buffer. Other bodies are read into a [`Spool`]
//! while the connection is parked, and the exchange reads from there. The request is also ready once the spool is
//! full: the exchange then reads the rest from the connection.

use std::io;

use worker_api::{Failure, Interest};

use crate::clock::{earlier, now_ns};
use crate::connection::{Advance, Connection};
use crate::request::refused;
use crate::spool::Spool;
use http1::Reject;

impl Connection {
    /// Returns whether the body is buffered first: not if the client waits for a response before it sends the
    /// body, or if the announced length exceeds the limit.
    pub(crate) fn has_intake(&self) -> bool {
        let (Some(buffers), Some(active)) = (&self.context.buffers, self.active.as_deref()) else {
            return false;
        };
        let has_none = active.body.is_done();
        if has_none || active.expects_continue || active.wants_upgrade || active.is_connect {
            return false;
        }
        let following = self.input.unused();
        match active.head().content_length.into_option() {
            Some(length) => length <= buffers.max && (following.len() as u64) < length,
            // The application is called for a malformed body and receives the error.
            None => !active.body.ends_within(following).unwrap_or(true),
        }
    }

    /// Reads as much of the body as possible without waiting.
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
                    if let Some(active) = self.active.as_deref_mut() {
                        active.reading.moved(count);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Some(self.wait_for_body());
                }
                Err(error) => return self.fail_intake(&Failure::from(error)),
            }
        }
    }

    /// Ends a request whose deadline has passed before its body was complete.
    pub(crate) fn expire_intake(&mut self) -> Advance {
        let failure = self.timeout_failure(Interest::READ);
        self.fail(&failure);
        self.advance()
    }

    /// Puts the buffered and unread part of the body back in front of the connection's input, as one chunk if
    /// it was chunked: for an application that takes over the connection.
    pub(crate) fn restore_body(&mut self) -> Result<(), Failure> {
        let active = self.active()?;
        let is_chunked = active.head().chunked;
        let Some(spool) = active.spool.as_deref_mut() else { return Ok(()) };
        if is_chunked && !active.body.is_done() {
            return Err(Failure::application(
                "cannot take over the connection before the body is read: a part of it is buffered",
            ));
        }
        let mut unread = spool
            .take_unread()
            .map_err(|error| Failure::io("cannot read the buffered body", &error))?;
        active.spool = None;
        if is_chunked {
            let head = format!("{:x}\r\n", unread.len());
            unread.splice(..0, head.bytes());
            unread.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        self.input.prepend(unread);
        Ok(())
    }

    /// Moves input to the spool; returns whether the request is ready.
    fn spool_input(&mut self) -> Result<bool, Reject> {
        let Self { context, active, input, .. } = self;
        let (Some(buffers), Some(active)) = (&context.buffers, active.as_deref_mut()) else {
            return Ok(true);
        };
        let spool = active.spool.get_or_insert_with(|| Box::new(Spool::new(buffers)));
        while !input.is_empty() && !active.body.is_done() && !spool.is_full() {
            let unused = input.unused();
            let decoded = active.body.decode(unused)?;
            spool.append(&unused[decoded.data]);
            input.consume(decoded.consumed);
        }
        Ok(active.body.is_done() || spool.is_full())
    }

    fn wait_for_body(&mut self) -> Advance {
        let Self { context, active, .. } = self;
        if let Some(active) = active.as_deref_mut() {
            let slow =
                active.reading.deadline(context.config.body_timeout, context.config.min_rate);
            self.deadline_ns = earlier(active.deadline_ns, slow);
        }
        self.input.release();
        Advance::Wait(self.stream.read_interest())
    }

    fn end_intake(&mut self) -> Advance {
        if let Some(active) = self.active.as_deref_mut() {
            active.ready_ns = now_ns();
        }
        self.hold_for_exchange();
        Advance::Request
    }

    fn fail_intake(&mut self, failure: &Failure) -> Option<Advance> {
        self.fail(failure);
        None
    }
}

/// The most bytes that are read before other connections are served.
const INTAKE_MAX: usize = 1 << 20;
