//! An upgraded exchange: after a 101, or a 2xx to a CONNECT, the connection carries another protocol (RFC 9110 7.8,
//! 9.3.6), whose bytes the exchange reads and writes without framing.
//!
//! A write takes no more than the socket or the TLS session accepts, and keeps nothing: the application may wait for the
//! client's reply next, and no later write would send the rest. A session may still hold back encrypted bytes, which
//! every later operation sends; a read that has to wait also waits for the client to accept them.
//!
//! An upgraded exchange has no limits on time and size, except that a write waits for the client no longer than
//! `write_timeout`.

use std::io::{self, ErrorKind, IoSlice};

use worker_api::{Counter, Failure, Interest};

use crate::active_request::ActiveRequest;
use crate::buffer;
use crate::deadline::Deadline;
use crate::io::Io;
use crate::transfer_rate::TransferRate;

impl ActiveRequest {
    /// Returns whether the connection carries another protocol, or is about to.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.response.plan.upgrade
    }

    /// Switches protocols after a response was started: sends its head, for which the client waits. The connection counts
    /// as upgraded until the request is recorded.
    #[cold]
    pub(crate) fn upgrade(&mut self, io: &mut Io) -> Result<(), Failure> {
        io.context.host.count(Counter::UPGRADED, 1);
        let head = self.take_head(io)?;
        self.push(io, &[&head])?;
        buffer::recycle(head);
        self.deadline = Deadline::NEVER;
        self.writing = TransferRate::default();
        Ok(())
    }

    /// Reads bytes of the other protocol, the ones that followed the request first. Returns 0 once the client has shut
    /// down its side, `None` if nothing has arrived.
    pub(crate) fn read_raw(
        &mut self,
        io: &mut Io,
        buf: &mut [u8],
    ) -> Result<Option<usize>, Failure> {
        let early = io.input.unused();
        if !early.is_empty() {
            let count = early.len().min(buf.len());
            buf[..count].copy_from_slice(&early[..count]);
            io.input.consume(count);
            io.input.release();
            return Ok(Some(count));
        }
        // If the client has disconnected, its last bytes are still delivered, and the next write fails.
        let _ = self.send_unsent(io);
        done(io.stream.read(buf))
    }

    /// Writes bytes of the other protocol, and returns the number of bytes accepted; `None` while earlier ones are unsent.
    pub(crate) fn write_raw(
        &mut self,
        io: &mut Io,
        bytes: &[u8],
    ) -> Result<Option<usize>, Failure> {
        self.check_unbroken()?;
        if done(self.send_unsent(io))?.is_none() {
            return Ok(None);
        }
        if bytes.is_empty() {
            return Ok(Some(0));
        }
        let taken = done(io.stream.write(&[IoSlice::new(bytes)]))?;
        if let Some(count) = taken {
            self.response.written += count as u64;
            self.writing.moved(count);
        }
        Ok(taken)
    }

    /// Returns what an upgraded exchange has to wait for if an operation in the direction of `interest` cannot proceed, and
    /// until when. Only a client that does not read what is written to it has a deadline.
    pub(crate) fn raw_wait_target(&mut self, io: &Io, interest: Interest) -> (Interest, Deadline) {
        let limit = io.context.config.write_timeout;
        match interest {
            Interest::READ if has_unsent(io) => (Interest::READ_WRITE, Deadline::NEVER),
            Interest::READ => (Interest::READ, Deadline::NEVER),
            other => (other, self.writing.deadline(limit, 0)),
        }
    }

    /// Sends what was written and not sent yet; `WouldBlock` if some of it is left.
    fn send_unsent(&mut self, io: &mut Io) -> io::Result<()> {
        let Io { stream, output, .. } = io;
        while !output.is_empty() {
            self.writing.moved(output.send(&[], |parts| stream.write(parts))?);
        }
        while stream.has_unsent() {
            self.writing.moved(stream.flush_some()?);
        }
        Ok(())
    }
}

/// Returns whether written bytes have not been handed to the kernel.
fn has_unsent(io: &Io) -> bool {
    !io.output.is_empty() || io.stream.has_unsent()
}

/// Converts the result of an operation on the stream: `None` if it would block.
fn done<T>(outcome: io::Result<T>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(Failure::from(error)),
    }
}
