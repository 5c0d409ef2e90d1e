//! Buffering a request's body before the application is called, for classes whose threads block: a slow client
//! does not occupy a thread.
//!
//! A body that arrives together with its head stays in the input buffer. Other bodies are read into a [`Spool`]
//! while the connection is parked, and the exchange reads from there. The request is also ready once the spool is
//! full: the exchange then reads the rest from the connection. So it is, if the class replaces a thread that waits, once
//! the client has proved so fast that the thread hardly waits for the rest, which saves a copy of it, and a file. Further long
//! bodies on that connection need only begin to arrive, until one is slow.

use std::io::{self, ErrorKind};

use worker_api::{Failure, Interest};

use crate::active_request::ActiveRequest;
use crate::buffer::READ_MAX;
use crate::clock::now_ns;
use crate::io::Io;
use crate::request::refused;
use crate::spool::{Buffering, Spool};
use crate::state::{Step, Then};
use jimu_http1::Reject;

impl ActiveRequest {
    /// Returns whether the body is buffered first: not if the client waits for a response before it sends the
    /// body, or if the announced length exceeds the limit.
    pub(crate) fn has_intake(&self, io: &Io) -> bool {
        let Some(buffers) = &io.context.buffers else { return false };
        if self.expects_continue || self.wants_upgrade || self.is_connect {
            return false;
        }
        let length = self.head().content_length.into_option();
        length.is_none_or(|length| length <= buffers.max) && self.has_body_to_come(io)
    }

    /// Returns whether a part of the body has not been received yet.
    pub(crate) fn has_body_to_come(&self, io: &Io) -> bool {
        if self.body.is_done() {
            return false;
        }
        let received = io.input.unused();
        match self.known_rest() {
            Some(rest) => (received.len() as u64) < rest,
            // The application is called for a malformed body and receives the error.
            None => !self.body.ends_within(received).unwrap_or(true),
        }
    }

    /// Returns the number of bytes of the body that have not been decoded yet, if its length was announced.
    fn known_rest(&self) -> Option<u64> {
        self.head().content_length.into_option().and(self.body.remaining_hint())
    }

    /// Reads as much of the body as possible without waiting.
    pub(crate) fn take_in(&mut self, io: &mut Io) -> Step {
        let mut taken = 0;
        let mut is_readable = true;
        loop {
            match self.spool_input(io) {
                Ok(false) if !self.is_fast(io) => {}
                Ok(_) => {
                    self.ready_ns = now_ns();
                    return Step::Ready;
                }
                Err(reject) => return self.fail_intake(io, &refused(&reject)),
            }
            if !is_readable || taken >= INTAKE_MAX && !io.stream.may_hold_input() {
                io.is_yielding = is_readable;
                return self.wait_for_body(io);
            }
            let read = match self.fill_spool(io) {
                Ok(Some(read)) => read,
                Ok(None) => io.fill(),
                Err(reject) => return self.fail_intake(io, &refused(&reject)),
            };
            match read {
                Ok(0) => {
                    let cut = Reject::new(400, "the connection ended inside the request's body");
                    return self.fail_intake(io, &refused(&cut));
                }
                Ok(count) => {
                    taken += count;
                    is_readable = !io.emptied;
                    self.reading.moved(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.wait_for_body(io);
                }
                Err(error) => return self.fail_intake(io, &Failure::from(error)),
            }
        }
    }

    /// Ends a request whose deadline has passed before its body was complete. Returns what follows.
    pub(crate) fn expire_intake(&mut self, io: &mut Io) -> Then {
        let failure = self.timeout_failure(Interest::READ);
        self.fail(io, &failure)
    }

    /// Puts the buffered and unread part of the body back in front of the connection's input, as one chunk if
    /// it was chunked: for an application that takes over the connection.
    pub(crate) fn restore_body(&mut self, io: &mut Io) -> Result<(), Failure> {
        self.check_unbroken()?;
        let is_chunked = self.head().chunked;
        let Some(spool) = self.spool.as_deref_mut() else { return Ok(()) };
        if is_chunked && !self.body.is_done() {
            return Err(Failure::application(
                "cannot take over the connection before the body is read: a part of it is buffered",
            ));
        }
        let mut unread = spool
            .take_unread()
            .map_err(|error| Failure::io("cannot read the buffered body", &error))?;
        self.spool = None;
        if is_chunked {
            let head = format!("{:x}\r\n", unread.len());
            unread.splice(..0, head.bytes());
            unread.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        io.input.prepend(unread);
        Ok(())
    }

    /// Moves input to the spool; returns whether the request is ready.
    fn spool_input(&mut self, io: &mut Io) -> Result<bool, Reject> {
        let Io { context, input, .. } = io;
        let Some(buffers) = &context.buffers else { return Ok(true) };
        let spool = self.spool.get_or_insert_with(|| Box::new(Spool::new(buffers)));
        while !input.is_empty() && !self.body.is_done() && !spool.is_full() {
            let unused = input.unused();
            let decoded = self.body.decode(unused)?;
            spool.append(&unused[decoded.data]);
            input.consume(decoded.consumed);
        }
        Ok(self.body.is_done() || spool.is_full())
    }

    /// Returns whether the rest of the body arrives within [`REST_NS`]: at the rate of what has been received, or because the
    /// body has begun to arrive, and the last long one on this connection was fast.
    fn is_fast(&self, io: &Io) -> bool {
        let Some((lacking, rest)) = self.lacks_for_sample(io).zip(self.known_rest()) else {
            return false;
        };
        let has_begun = || self.spool.as_ref().is_some_and(|spool| spool.in_memory() > 0);
        let was_fast = io.sends_fast && rest >= SAMPLE as u64 && has_begun();
        was_fast || lacking == 0 && self.reading.expected_ns(rest) <= REST_NS
    }

    /// Notes for the next request of the connection whether its client sends bodies fast, if this one was long enough.
    pub(crate) fn note_rate(&self, io: &mut Io) {
        let bytes = self.reading.bytes();
        if bytes >= SAMPLE as u64 {
            io.sends_fast = self.body.is_done() && self.reading.expected_ns(bytes) <= REST_NS;
        }
    }

    /// Returns how many bytes are missing to judge the client's rate; `None` if it makes no difference.
    fn lacks_for_sample(&self, io: &Io) -> Option<usize> {
        let buffers = io.context.buffers.as_ref();
        buffers.filter(|buffers| buffers.buffering == Buffering::Slow)?;
        Some(SAMPLE.saturating_sub(usize::try_from(self.reading.bytes()).unwrap_or(usize::MAX)))
    }

    /// Reads from the connection straight into the spool's memory, if that has room and the bytes are certain to be data.
    /// Returns `None` if the input is to be filled instead.
    fn fill_spool(&mut self, io: &mut Io) -> Result<Option<io::Result<usize>>, Reject> {
        let most = match self.lacks_for_sample(io) {
            // Of what a fast client sends, only what shows that it is fast.
            Some(lacking @ 1..) => lacking,
            // As much as it holds, so that what is reserved stays in proportion to what the client has sent.
            _ => self.spool.as_ref().map_or(0, |spool| spool.in_memory()).min(PART_MAX),
        };
        let most = self.direct_len(most.max(READ_MAX));
        let Some(spool) = self.spool.as_deref_mut().filter(|_| most > 0) else { return Ok(None) };
        Ok(match spool.fill(most, |memory| io.read_more(memory, most)) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(data)) => {
                self.body.pass(data)?;
                Some(Ok(data.len()))
            }
        })
    }

    fn wait_for_body(&mut self, io: &mut Io) -> Step {
        let config = &io.context.config;
        let slow = self.reading.deadline(config.body_timeout, config.min_rate);
        io.deadline = self.deadline.min(slow);
        io.input.release();
        Step::Wait(io.stream.read_interest())
    }

    fn fail_intake(&mut self, io: &mut Io, failure: &Failure) -> Step {
        Step::End(self.fail(io, failure))
    }
}

/// The bytes by which a client's rate is judged: more than the 64 KiB that a receiving window usually holds at first,
/// which may have arrived before anyone looked.
const SAMPLE: usize = 96 << 10;
/// How long a thread may wait for the rest of a body.
const REST_NS: u64 = 100_000_000;
/// The most bytes that one read into the memory of a spool takes.
const PART_MAX: usize = 256 << 10;
/// The most bytes that are read before other connections are served.
const INTAKE_MAX: usize = 1 << 20;
