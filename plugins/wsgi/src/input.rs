//! What `wsgi.input` has read of the request body. It releases the interpreter's lock while it waits; under a guest
//! loop, its caller waits instead.

use worker_api::{Exchange, Interest, Result, Step, Waker};

use python::{NewBytes, Object, PyResult, Python};

/// Bytes read from the exchange and not yet returned: `buffer[given..filled]`. The memory after `filled` stays
/// initialized, so that it is not cleared repeatedly.
#[derive(Default)]
pub(crate) struct Input {
    /// The object that a call of `read` returns, while a part of it is missing. The buffer is empty then.
    partial: Option<Partial>,
    buffer: Vec<u8>,
    given: usize,
    filled: usize,
    ended: bool,
    /// Number of bytes still to come from the exchange, if known.
    to_come: Option<u64>,
}

impl Input {
    /// Resets the state for another request.
    pub(crate) fn begin(&mut self, py: Python<'_>, length: Option<u64>) {
        self.drop_references(py);
        if self.buffer.len() > KEPT_MAX {
            self.buffer.truncate(KEPT_MAX);
            self.buffer.shrink_to_fit();
        }
        (self.given, self.filled) = (0, 0);
        self.ended = false;
        self.to_come = length;
    }

    /// Drops the references that it holds.
    pub(crate) fn drop_references(&mut self, py: Python<'_>) {
        drop(self.partial.take().map(|partial| partial.bytes.finish(py)));
    }

    /// Creates the object that `read(size)` returns, or keeps the one begun, to be filled by [`Input::fill_partial`].
    /// Returns `false` if the bytes go through the buffer: if that holds some already, if their number is not certain, if
    /// they are few, and at the end.
    pub(crate) fn begin_partial(&mut self, py: Python<'_>, size: usize) -> PyResult<bool> {
        let begun = self.partial.as_ref().map(|partial| (partial.filled, partial.len));
        let certain = self.to_come.map_or(0, |rest| usize::try_from(rest).unwrap_or(usize::MAX));
        let len = size.min(certain.saturating_add(begun.map_or(0, |(filled, _)| filled)));
        if begun.is_some_and(|(_, begun)| begun == len) {
            self.make_room(py)?;
            return Ok(true);
        }
        self.buffer_partial(py);
        if self.ended || self.given < self.filled || len < PART_MIN {
            return Ok(false);
        }
        let bytes = NewBytes::new(py, len.min(PART_MAX))?;
        self.partial = Some(Partial { bytes, filled: 0, len });
        Ok(true)
    }

    /// Doubles the object if it is full. If memory is lacking, the body ends here.
    fn make_room(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(mut partial) = self.partial.take() else { return Ok(()) };
        let room = partial.bytes.content().len();
        if partial.filled == room {
            let grown = partial.bytes.grow(py, partial.len.min(room * 2));
            self.ended |= grown.is_err();
            partial.bytes = grown?;
        }
        self.partial = Some(partial);
        Ok(())
    }

    /// Reads one more part into the object, and returns it once it is complete. If the body ends before, what was read
    /// moves to the buffer.
    pub(crate) fn fill_partial<'py>(
        &mut self,
        py: Python<'py>,
        exchange: &mut Exchange,
        waker: Option<Waker>,
    ) -> Result<Part<'py>> {
        let Some(mut partial) = self.partial.take() else { return Ok(Part::Incomplete) };
        let place = &mut partial.bytes.content()[partial.filled..];
        let read = read_some(py, exchange, place, waker);
        if let Ok(Some(n)) = read {
            partial.filled += n;
            self.to_come = self.to_come.map(|rest| rest.saturating_sub(n as u64));
            if partial.filled == partial.len {
                return Ok(Part::Complete(partial.bytes.finish(py)));
            }
        }
        self.partial = Some(partial);
        match read? {
            None => return Ok(Part::Pending),
            Some(0) => {
                self.buffer_partial(py);
                self.ended = true;
            }
            Some(_) => {}
        }
        Ok(Part::Incomplete)
    }

    /// Moves what was read for a call of `read` to the buffer, for another call.
    pub(crate) fn buffer_partial(&mut self, py: Python<'_>) {
        let Some(mut partial) = self.partial.take() else { return };
        self.buffer.clear();
        self.buffer.extend_from_slice(&partial.bytes.content()[..partial.filled]);
        (self.given, self.filled) = (0, partial.filled);
        drop(partial.bytes.finish(py));
    }

    pub(crate) fn ready(&self) -> &[u8] {
        &self.buffer[self.given..self.filled]
    }

    /// Returns `n` bytes that are available.
    pub(crate) fn give<'py>(&mut self, py: Python<'py>, n: usize) -> PyResult<Object<'py>> {
        let given = py.bytes(&self.buffer[self.given..self.given + n])?;
        self.given += n;
        if self.given == self.filled {
            (self.given, self.filled) = (0, 0);
        }
        Ok(given)
    }

    /// Reads one more part of at most `want` bytes. With a waker it returns [`Filled::Pending`] instead of
    /// waiting.
    pub(crate) fn fill(
        &mut self,
        py: Python<'_>,
        exchange: &mut Exchange,
        want: usize,
        waker: Option<Waker>,
    ) -> Result<Filled> {
        if self.ended || self.to_come == Some(0) {
            return Ok(Filled::End);
        }
        let want = want.clamp(PART_MIN, PART_MAX);
        if self.given > 0 && self.buffer.len() < self.filled + want {
            self.buffer.copy_within(self.given..self.filled, 0);
            (self.given, self.filled) = (0, self.filled - self.given);
        }
        if self.buffer.len() < self.filled + want {
            // Doubled, so that a body that is read in one call is rarely moved.
            self.buffer.resize((self.filled + want).max(self.filled * 2), 0);
        }
        let place = &mut self.buffer[self.filled..];
        let Some(n) = read_some(py, exchange, place, waker)? else { return Ok(Filled::Pending) };
        self.filled += n;
        self.ended = n == 0;
        self.to_come = self.to_come.map(|rest| rest.saturating_sub(n as u64));
        Ok(if self.ended { Filled::End } else { Filled::More })
    }
}

/// An object that is being filled.
struct Partial {
    /// Of the final length, or shorter: it grows with what arrives.
    bytes: NewBytes,
    /// Number of its bytes that have been read.
    filled: usize,
    /// The final length.
    len: usize,
}

/// Result of reading one more part into the object.
pub(crate) enum Part<'py> {
    Complete(Object<'py>),
    Incomplete,
    Pending,
}

/// Result of reading one more part.
pub(crate) enum Filled {
    More,
    End,
    Pending,
}

/// Reads available bytes. If there are none, waits without the interpreter's lock, or, with a waker, registers
/// the waker with the exchange and returns `None`.
fn read_some(
    py: Python<'_>,
    exchange: &mut Exchange,
    place: &mut [u8],
    waker: Option<Waker>,
) -> Result<Option<usize>> {
    let patient = waker.is_none();
    match exchange.poll_read(place, waker) {
        Step::Ready(n) => Ok(Some(n)),
        Step::Failed(failure) => Err(failure),
        Step::Pending if patient => py.detach(|| {
            exchange.wait(Interest::READ)?;
            exchange.read(place).map(Some)
        }),
        Step::Pending => Ok(None),
    }
}

/// Number of bytes requested from the exchange at a time.
const PART_MIN: usize = 8 * 1024;
/// Limits what a client can make the server allocate by announcing a body that it does not send.
const PART_MAX: usize = 256 * 1024;
/// Capacity of a buffer that is kept for the next request.
const KEPT_MAX: usize = 64 * 1024;
