//! Buffers of a connection: bytes that were read and not used yet, and bytes that have still to be sent.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::RawFd;

use crate::batches::{Batches, Lent, Unsent};
use crate::vec_pool::VecPool;

/// Bytes that were read from the socket and not used yet. Holds no memory while it is empty and released.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    /// Returns the unused bytes.
    pub(crate) fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Returns whether all bytes are used.
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

    /// Appends the result of one call of `read`, up to [`READ_MAX`] bytes; 0 means end of file.
    ///
    /// The call reads into memory shared by the thread's connections, so that a connection holds only the
    /// bytes it received.
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

    /// Takes the unused bytes, usually without copying them.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = mem::take(&mut self.bytes);
        let used = mem::take(&mut self.used);
        if used > 0 {
            bytes.drain(..used);
        }
        bytes
    }

    /// Inserts bytes in front of the unused ones.
    pub(crate) fn prepend(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.unused());
        *self = Self { bytes, used: 0 };
    }

    /// Frees the memory if the buffer is empty.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            *self = Self::default();
        }
    }
}

/// Bytes that the socket has not taken yet. Holds no memory before the first one, and after it was released.
#[derive(Debug, Default)]
pub(crate) struct Output(Option<Box<Pending>>);

/// The memory of an output: in one allocation with its length, because most connections never have one.
#[derive(Debug, Default)]
struct Pending {
    unsent: Unsent,
    /// Whether all of it is complete responses that wait for the next one.
    is_held: bool,
    /// Has what is unsent, if it is lent.
    lent: Option<Lent>,
}

impl Output {
    /// Returns the number of unsent bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.as_deref().map_or(0, |pending| match &pending.lent {
            Some(lent) => lent.len(),
            None => pending.unsent.len(),
        })
    }

    /// Returns whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether all of it is complete responses that wait for the next one.
    pub(crate) fn is_held(&self) -> bool {
        self.0.as_deref().is_some_and(|pending| pending.is_held)
    }

    /// Returns the buffer to append to.
    pub(crate) fn append(&mut self) -> &mut Vec<u8> {
        let pending = self.recalled();
        pending.is_held = false;
        &mut pending.unsent.bytes
    }

    /// Appends the end of a response that waits for the next one; returns whether it may: not if that would be too much, or
    /// if the socket has not taken all of an earlier one.
    pub(crate) fn hold(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let before = self.len();
        if before + length > HELD_MAX || (before > 0 && !self.is_held()) {
            return false;
        }
        let pending = self.recalled();
        pending.is_held = true;
        let bytes = &mut pending.unsent.bytes;
        if bytes.capacity() == 0 {
            *bytes = Vec::with_capacity(HELD_CAPACITY);
        }
        for part in parts {
            bytes.extend_from_slice(part);
        }
        true
    }

    /// Lends what is unsent for the time in which the application serves the next request.
    pub(crate) fn lend(&mut self, batches: &Batches, fd: RawFd) {
        if let Some(pending) = self.0.as_deref_mut()
            && pending.lent.is_none()
            && pending.unsent.len() > 0
        {
            pending.lent = Some(batches.lend(fd, mem::take(&mut pending.unsent)));
        }
    }

    /// Discards the unsent bytes.
    pub(crate) fn clear(&mut self) {
        if self.0.is_some() {
            let Pending { unsent, is_held, .. } = self.recalled();
            unsent.bytes.clear();
            unsent.sent = 0;
            *is_held = false;
        }
    }

    /// Frees the memory if everything was sent.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Sends the unsent bytes followed by `parts` with one call of `write`. Keeps what was not accepted, so
    /// that all of `parts` counts as written. Returns the number of bytes that the socket accepted.
    pub(crate) fn send(
        &mut self,
        parts: &[&[u8]],
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let earlier = match &mut self.0 {
            Some(_) => self.recalled().unsent.rest(),
            None => &[],
        };
        let mut slices = [IoSlice::new(&[]); PARTS_MAX + 1];
        slices[0] = IoSlice::new(earlier);
        for (slot, part) in slices[1..].iter_mut().zip(parts) {
            *slot = IoSlice::new(part);
        }
        let first = usize::from(earlier.is_empty());
        let outcome = write(&slices[first..=parts.len()]);
        let taken = match &outcome {
            Ok(taken) => *taken,
            Err(_) => 0,
        };
        self.keep_rest(taken, parts);
        outcome
    }

    fn keep_rest(&mut self, taken: usize, parts: &[&[u8]]) {
        let earlier = self.len().min(taken);
        if let Some(pending) = &mut self.0 {
            pending.unsent.sent += earlier;
            pending.is_held = false;
        }
        let mut skip = taken - earlier;
        if self.is_empty() {
            self.clear();
        }
        for part in parts {
            let here = skip.min(part.len());
            skip -= here;
            if here < part.len() {
                self.append().extend_from_slice(&part[here..]);
            }
        }
    }

    /// Returns the memory, with all that is unsent.
    fn recalled(&mut self) -> &mut Pending {
        let pending = self.0.get_or_insert_default();
        if let Some(lent) = pending.lent.take() {
            pending.unsent = lent.recall();
        }
        pending
    }
}

/// Returns an empty buffer for a head or a short response, from the thread's pool if possible.
pub(crate) fn spare() -> Vec<u8> {
    VecPool::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(SPARE_CAPACITY))
}

/// Returns a buffer to the pool of [`spare`], unless the pool is full or the buffer has grown too large.
pub(crate) fn recycle(bytes: Vec<u8>) {
    VecPool::keep(&SPARES, bytes, SPARE_CAPACITY..=SPARE_CAPACITY_MAX);
}

/// The most bytes that one read takes: about what a loopback socket delivers at once, and small enough to be fair
/// to other connections.
pub(crate) const READ_MAX: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<[u8; READ_MAX]> = const { RefCell::new([0; READ_MAX]) };
}

thread_local! {
    static SPARES: VecPool<u8> = const { VecPool::new() };
}

/// The capacity of a spare buffer: most heads fit, and a connection that waits for the rest of its head holds
/// little.
const SPARE_CAPACITY: usize = 512;
/// Buffers that have grown beyond this are not kept.
const SPARE_CAPACITY_MAX: usize = 1024;
/// The most bytes of responses that wait for the next one.
const HELD_MAX: usize = 16 << 10;
/// The capacity for them: some sixteen short responses.
const HELD_CAPACITY: usize = 4 << 10;
/// The maximum number of parts for [`Output::send`]: a chunk's head, data and end.
const PARTS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_taken_and_the_following_bytes_stay() {
        let mut input = Input::default();
        input
            .fill(|slot| {
                slot[..9].copy_from_slice(b"xHEADbody");
                Ok(9)
            })
            .unwrap();
        input.consume(1);
        let taken = input.take();
        assert_eq!(taken, b"HEADbody");
        assert!(input.is_empty());
        input.prepend(taken[4..].to_vec());
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
        /// However few bytes a socket accepts at a time, all bytes come out complete and in order.
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
