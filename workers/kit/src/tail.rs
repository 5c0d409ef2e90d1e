//! The end of a response that the application has written completely: the connection sends it while it is parked,
//! and the thread serves the next request.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use worker_api::Interest;

use crate::active_request::ActiveRequest;
use crate::clock::{deadline_after, earlier, now_ns};
use crate::io::Io;
use crate::spool::{Buffers, CountedFile, Spool};
use crate::state::Step;
use crate::transfer_rate::TransferRate;
use http1::BodyKind;

/// Bytes to send after the output.
pub(crate) struct Tail {
    source: Source,
    rate: TransferRate,
    /// The deadline of the response, in monotonic nanoseconds; 0 for none.
    deadline_ns: u64,
}

enum Source {
    Spool(Spool),
    /// A range of the application's file.
    File {
        file: CountedFile,
        offset: u64,
        left: u64,
    },
}

impl ActiveRequest {
    /// Keeps the last part of a body, which the client does not accept now; returns whether there is room for
    /// it.
    pub(crate) fn keep_rest(&mut self, io: &mut Io, bytes: &[u8]) -> bool {
        let length = bytes.len() as u64;
        self.keep(io, length, |buffers| {
            let mut spool = Spool::new(buffers);
            (length <= buffers.max && spool.take(bytes)).then_some(Source::Spool(spool))
        })
    }

    /// Keeps the range of a file that is the last part of a body; returns whether it can be kept.
    pub(crate) fn keep_file(&mut self, io: &mut Io, file: RawFd, offset: u64, left: u64) -> bool {
        self.keep(io, left, |buffers| {
            buffers.share(file).map(|file| Source::File { file, offset, left })
        })
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
        let (rate, deadline_ns) = (self.writing, self.deadline_ns);
        io.tail = Some(Box::new(Tail { source, rate, deadline_ns }));
        true
    }
}

impl Io {
    /// Sends the rest of a response; returns what to wait for if the client does not accept all of it.
    pub(crate) fn send_rest(&mut self) -> io::Result<Option<Interest>> {
        match self.try_send_rest() {
            Ok(true) => {
                self.tail = None;
                Ok(None)
            }
            Ok(false) => Ok(Some(Interest::WRITE)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
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
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => self.moved(count),
                }
            }
            if sent >= SEND_MAX {
                self.is_yielding = true;
                return Ok(false);
            }
            match self.send_tail()? {
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

    /// Sends a part of the tail, or moves it to the output; returns its length, 0 at the end.
    fn send_tail(&mut self) -> io::Result<usize> {
        let sendfile = self.context.config.sendfile && self.stream.can_send_file();
        let Self { stream, output, tail, .. } = self;
        let Some(Tail { source, rate, .. }) = tail.as_deref_mut() else { return Ok(0) };
        let (file, offset, left) = match source {
            Source::Spool(spool) => {
                return fill(output.append(), READ_PART, |part| spool.read(part));
            }
            Source::File { left: 0, .. } => return Ok(0),
            Source::File { file, offset, left } => (file, offset, left),
        };
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let sent = sendfile
            .then(|| stream.send_file(file.file.as_raw_fd(), *offset, most.min(SEND_FILE_PART)));
        let count = match sent {
            Some(Ok(count)) => {
                rate.moved(count);
                count
            }
            Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            // The kernel cannot send from this file: read it instead.
            _ => {
                fill(output.append(), most.min(READ_PART), |part| file.file.read_at(part, *offset))?
            }
        };
        if count == 0 {
            tracing::error!("the file to send is shorter than the range to send");
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *offset += count as u64;
        *left -= count as u64;
        Ok(count)
    }

    /// Records that the client accepted bytes of a response that the application has finished.
    fn moved(&mut self, count: usize) {
        match self.tail.as_deref_mut() {
            Some(tail) => tail.rate.moved(count),
            None => self.deadline_ns = deadline_after(now_ns(), self.context.config.write_timeout),
        }
    }

    /// Waits for the client to accept more of the response.
    pub(crate) fn wait_to_send(&mut self, interest: Interest) -> Step {
        let config = &self.context.config;
        if let Some(tail) = self.tail.as_deref_mut() {
            let slow = tail.rate.deadline(config.write_timeout, config.min_rate);
            self.deadline_ns = earlier(tail.deadline_ns, slow);
        }
        Step::Wait(interest)
    }

    /// Logs that a response is cut because its deadline has passed, if it has a tail.
    pub(crate) fn log_slow_reader(&self) {
        let Some(tail) = self.tail.as_deref() else { return };
        let limits = if tail.is_slow() { "write_timeout, min_rate" } else { "request_timeout" };
        tracing::warn!(
            "response to {} cut: the client reads it too slowly ({limits})",
            self.peer.host
        );
    }
}

impl Tail {
    /// Returns whether the client is too slow, as opposed to the request being too old.
    fn is_slow(&self) -> bool {
        self.deadline_ns == 0 || now_ns() < self.deadline_ns
    }
}

/// Appends the result of one call of `read` to `buffer`.
fn fill(
    buffer: &mut Vec<u8>,
    most: usize,
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let length = buffer.len();
    buffer.resize(length + most, 0);
    let outcome = read(&mut buffer[length..]);
    let count = *outcome.as_ref().unwrap_or(&0);
    buffer.truncate(length + count);
    outcome
}

/// The number of bytes read into memory at a time.
const READ_PART: usize = 64 << 10;
/// The most bytes that one `sendfile` takes.
const SEND_FILE_PART: usize = 1 << 20;
/// The most bytes of a tail that are sent before other connections are served.
const SEND_MAX: usize = 4 << 20;
