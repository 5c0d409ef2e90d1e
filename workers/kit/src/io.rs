//! The bytes of a connection in both directions, with what reading and writing them needs. A connection keeps it for
//! its whole life; a request borrows it for each operation.

use std::io;
use std::sync::Arc;

use worker_api::raw::TlsProperties;

use crate::buffer::{Input, Output, READ_MAX};
use crate::context::ServerContext;
use crate::deadline::Deadline;
use crate::ends::Ends;
use crate::stream::Stream;
use crate::tail::Tail;
use crate::wire::Wire;

/// The bytes of a connection, and its ends.
pub(crate) struct Io {
    pub(crate) context: Arc<ServerContext>,
    pub(crate) stream: Stream,
    pub(crate) tls: Option<Arc<TlsProperties>>,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// What it shares with other threads: its ends, and which thread responds to the request.
    pub(crate) wire: Arc<Wire>,
    /// The end of a response, sent after the output.
    pub(crate) tail: Option<Box<Tail>>,
    /// The deadline of the current wait.
    pub(crate) deadline: Deadline,
    /// Whether the peer's forwarding headers are trusted.
    pub(crate) trusts_peer: bool,
    /// Whether another descriptor of the same connection exists.
    pub(crate) duplicated: bool,
    /// Whether the last read emptied the socket, so that the poller reports new data.
    pub(crate) emptied: bool,
    /// Whether the last long body arrived without a notable wait.
    pub(crate) sends_fast: bool,
    /// Whether the last wait was requested although more data may be available.
    pub(crate) is_yielding: bool,
}

impl Io {
    /// Reads once into the input; returns the number of bytes, 0 at the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let Self { input, stream, .. } = self;
        let read = input.fill(|place| stream.read(place));
        self.note(read, READ_MAX)
    }

    /// Like [`Io::fill`], but reads into `place`, which is not empty. The input must be empty.
    pub(crate) fn read_into(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(place);
        self.note(read, place.len())
    }

    /// Like [`Io::fill`], but appends up to `most` bytes to `into`. The input must be empty.
    pub(crate) fn read_more(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let read = self.stream.read_more(into, most);
        self.note(read, most)
    }

    /// Notes whether a read of up to `asked` bytes has emptied the socket, as a short one has: the poller reports new data.
    fn note(&mut self, read: io::Result<usize>, asked: usize) -> io::Result<usize> {
        self.emptied = !matches!(&read, Ok(count) if self.stream.may_have_more(*count, asked));
        read
    }

    /// Returns the connection's ends.
    pub(crate) fn ends(&self) -> &Ends {
        &self.wire.ends
    }

    /// Returns whether everything was handed to the kernel.
    pub(crate) fn all_sent(&self) -> bool {
        self.output.is_empty() && self.tail.is_none() && !self.stream.has_unsent()
    }

    /// Sends the responses that wait for the next one, as far as the client accepts them now: for a connection that ends.
    pub(crate) fn send_held(&mut self) {
        let Self { stream, output, .. } = self;
        if output.is_held() {
            // The client has disconnected, or reads too slowly for a server that ends.
            let _ = output.send(&[], |parts| stream.write(parts));
        }
    }

    /// Frees the buffers while the connection is idle.
    pub(crate) fn release(&mut self) {
        self.input.release();
        self.output.release();
    }
}
