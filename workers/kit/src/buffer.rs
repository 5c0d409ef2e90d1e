//! The bytes that a connection has read and nobody has used yet, and those that it has still to send.

use std::cell::RefCell;
use std::io::{self, IoSlice};

use crate::vec_pool::VecPool;

/// Bytes between being read from the socket and being used. Holds no memory while it is empty and released.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    /// What has been read and not been used.
    pub(crate) fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Whether all is used.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// Marks the first `count` bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.used = 0;
        }
    }

    /// Appends what one call of `read` gives, at most [`READ_MAX`] bytes; 0 is the end of file.
    ///
    /// The call reads into memory that the thread's connections share, so that a connection holds what it was sent and
    /// no more.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = read(scratch)?;
            if self.bytes.capacity() == 0 {
                self.bytes = spare();
            } else {
                self.bytes.drain(..self.used);
            }
            self.used = 0;
            self.bytes.extend_from_slice(&scratch[..count]);
            Ok(count)
        })
    }

    /// Takes the unused bytes away, without copying them usually.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let used = std::mem::take(&mut self.used);
        if used > 0 {
            bytes.drain(..used);
        }
        bytes
    }

    /// Puts bytes into the empty input: those behind a head that was taken away.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty(), "bytes are put back where none are left");
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes before those that are unused.
    pub(crate) fn prepend(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.unused());
        *self = Self { bytes, used: 0 };
    }

    /// Gives memory back where there is nothing to keep.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            *self = Self::default();
        }
    }
}

/// Bytes that the socket has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// How much is to be sent.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether all is sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    pub(crate) fn append(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Forgets what is unsent.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// Gives memory back where there is nothing to keep.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Sends what is unsent and `parts` behind it with one call of `write`; keeps what was not taken, so that all of
    /// `parts` counts as written. Answers how many bytes the socket took.
    pub(crate) fn send(
        &mut self,
        parts: &[&[u8]],
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PARTS_MAX + 1];
        slices[0] = IoSlice::new(&self.bytes[self.sent..]);
        for (place, part) in slices[1..].iter_mut().zip(parts) {
            *place = IoSlice::new(part);
        }
        let first = usize::from(self.is_empty());
        let outcome = write(&slices[first..=parts.len()]);
        let taken = match &outcome {
            Ok(taken) => *taken,
            Err(_) => 0,
        };
        self.keep_rest(taken, parts);
        outcome
    }

    fn keep_rest(&mut self, taken: usize, parts: &[&[u8]]) {
        let own = self.len().min(taken);
        self.sent += own;
        let mut skip = taken - own;
        if self.is_empty() {
            self.clear();
        }
        for part in parts {
            let here = skip.min(part.len());
            skip -= here;
            self.bytes.extend_from_slice(&part[here..]);
        }
    }
}

/// An empty buffer for a head or a short answer: one that the thread has had in use before, where there is one.
pub(crate) fn spare() -> Vec<u8> {
    VecPool::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(SPARE_OCTETS))
}

/// Keeps a buffer for [`spare`], unless there are enough of them or it has grown.
pub(crate) fn give_back(bytes: Vec<u8>) {
    VecPool::keep(&SPARES, bytes, SPARE_OCTETS..=SPARE_OCTETS_MAX);
}

/// How many bytes one read takes at the most: what a socket of the loopback gives at once, and a fair turn.
pub(crate) const READ_MAX: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<[u8; READ_MAX]> = const { RefCell::new([0; READ_MAX]) };
}

thread_local! {
    static SPARES: VecPool<u8> = const { VecPool::new() };
}

/// The room in a spare buffer: most heads fit, and a connection that waits for the rest of its head holds little.
const SPARE_OCTETS: usize = 512;
/// One that has grown beyond this is not kept.
const SPARE_OCTETS_MAX: usize = 1024;
/// How many parts [`Output::send`] takes at the most: the frame of a chunk around its data.
const PARTS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_taken_and_the_bytes_behind_it_stay() {
        let mut input = Input::default();
        input
            .fill(|place| {
                place[..9].copy_from_slice(b"xHEADbody");
                Ok(9)
            })
            .unwrap();
        input.consume(1);
        let taken = input.take();
        assert_eq!(taken, b"HEADbody");
        assert!(input.is_empty());
        input.put(&taken[4..]);
        assert_eq!(input.unused(), b"body");
        input.consume(4);
        assert!(input.is_empty());
    }

    #[test]
    fn a_failed_read_adds_nothing() {
        let mut input = Input::default();
        let outcome = input.fill(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(outcome.is_err());
        assert!(input.is_empty());
    }

    proptest! {
        /// However little a socket takes at a time, the bytes come out whole and in order.
        #[test]
        fn nothing_is_lost_or_doubled_on_the_way_out(
            writes in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..50), 0usize..80), 0..20),
        ) {
            let mut output = Output::default();
            let mut expected = Vec::new();
            let mut wire = Vec::new();
            for (bytes, accept) in &writes {
                expected.extend_from_slice(bytes);
                let half = bytes.len() / 2;
                let (one, two) = bytes.split_at(half);
                output.send(&[one, two], |slices| Ok(take(&mut wire, slices, *accept))).unwrap();
            }
            while !output.is_empty() {
                output.send(&[], |slices| Ok(take(&mut wire, slices, 7))).unwrap();
            }
            prop_assert_eq!(wire, expected);
        }
    }

    fn take(wire: &mut Vec<u8>, slices: &[IoSlice<'_>], limit: usize) -> usize {
        let before = wire.len();
        for slice in slices {
            let room = limit - (wire.len() - before);
            wire.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        wire.len() - before
    }
}
