//! The end of a response that the application has written completely: where it is kept, and how a part of it is sent.
//! The connection sends it while it is parked, and the thread serves the next request.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::buffer::Output;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::spool::{Buffers, CountedFile, Spool};
use crate::stream::Stream;
use crate::transfer_rate::TransferRate;

/// Bytes to send after the output.
pub(crate) struct Tail {
    source: Source,
    rate: TransferRate,
    /// The deadline of the response.
    deadline: Deadline,
}

/// Where the bytes come from.
pub(crate) enum Source {
    /// A copy of them.
    Spool(Spool),
    /// A range of the application's file.
    File { file: CountedFile, offset: u64, left: u64 },
}

impl Source {
    /// Copies bytes that the client does not accept now; `None` if there is no room for them.
    pub(crate) fn of_bytes(buffers: &Arc<Buffers>, bytes: &[u8]) -> Option<Self> {
        let mut spool = Spool::new(buffers);
        (bytes.len() as u64 <= buffers.max && spool.take(bytes)).then_some(Self::Spool(spool))
    }

    /// Keeps a range of a file; `None` if that is not possible.
    pub(crate) fn of_file(
        buffers: &Arc<Buffers>,
        file: RawFd,
        offset: u64,
        left: u64,
    ) -> Option<Self> {
        buffers.share(file).map(|file| Self::File { file, offset, left })
    }
}

impl Tail {
    /// Creates a tail for a response with this deadline, which is sent at `rate` so far.
    pub(crate) fn new(source: Source, rate: TransferRate, deadline: Deadline) -> Self {
        Self { source, rate, deadline }
    }

    /// Sends a part of the tail, or moves it to the output; returns its length, 0 at the end.
    pub(crate) fn send(
        &mut self,
        stream: &mut Stream,
        output: &mut Output,
        sendfile: bool,
    ) -> io::Result<usize> {
        let (file, offset, left) = match &mut self.source {
            Source::Spool(spool) => {
                return fill(output.append(), READ_PART, |part| spool.read(part));
            }
            Source::File { left: 0, .. } => return Ok(0),
            Source::File { file, offset, left } => (file, offset, left),
        };
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let sent = (sendfile && stream.can_send_file())
            .then(|| stream.send_file(file.file.as_raw_fd(), *offset, most.min(SEND_FILE_PART)));
        let count = match sent {
            Some(Ok(count)) => {
                self.rate.moved(count);
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

    /// Records that the client accepted bytes of the response.
    pub(crate) fn moved(&mut self, count: usize) {
        self.rate.moved(count);
    }

    /// Returns until when to wait for the client: the deadline of the response, or earlier if the client is too
    /// slow.
    pub(crate) fn wait_deadline(&mut self, config: &Config) -> Deadline {
        let slow = self.rate.deadline(config.write_timeout, config.min_rate);
        self.deadline.min(slow)
    }

    /// Returns whether the client is too slow, as opposed to the request being too old.
    pub(crate) fn is_slow(&self) -> bool {
        !self.deadline.is_past()
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
