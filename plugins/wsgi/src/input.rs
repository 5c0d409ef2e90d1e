//! `wsgi.input`: the request body as a file. It releases the interpreter's lock while it waits. Under a guest
//! loop, `read` and `readline` return `None` instead of waiting; the driver's `wsgi.input` waits and calls them
//! again.

use worker_api::{Exchange, Interest, Result, Step, Waker};

use crate::python::{Arguments, Object, PyResult, Python};
use crate::request::State;
use crate::runtime::PythonRuntime;

/// Bytes read from the exchange and not yet returned: `buffer[given..filled]`. The memory after `filled` stays
/// initialized, so that it is not cleared repeatedly.
#[derive(Default)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    given: usize,
    filled: usize,
    ended: bool,
    /// Number of bytes still to come from the exchange, if known.
    to_come: Option<u64>,
}

impl Input {
    /// Resets the state for another request.
    pub(crate) fn begin(&mut self, length: Option<u64>) {
        if self.buffer.len() > KEPT_MAX {
            self.buffer.truncate(KEPT_MAX);
            self.buffer.shrink_to_fit();
        }
        (self.given, self.filled) = (0, 0);
        self.ended = false;
        self.to_come = length;
    }

    fn ready(&self) -> &[u8] {
        &self.buffer[self.given..self.filled]
    }

    /// Returns `n` bytes that are available.
    fn give<'py>(&mut self, py: Python<'py>, n: usize) -> PyResult<Object<'py>> {
        let given = py.bytes(&self.buffer[self.given..self.given + n])?;
        self.given += n;
        if self.given == self.filled {
            (self.given, self.filled) = (0, 0);
        }
        Ok(given)
    }

    /// Reads one more part of at most `want` bytes. With a waker it returns [`Filled::Pending`] instead of
    /// waiting.
    fn fill(
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

/// Result of reading one more part.
enum Filled {
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

impl State {
    /// Returns up to `size` bytes; fewer only at the end of the body.
    fn take<'py>(&mut self, py: Python<'py>, size: usize) -> PyResult<Option<Object<'py>>> {
        self.collect(py, |input, _| if input.ready().len() >= size { Ok(size) } else { Err(size) })
    }

    /// Returns a line with its line end, or `limit` bytes of it; empty at the end of the body.
    pub(crate) fn line<'py>(
        &mut self,
        py: Python<'py>,
        limit: usize,
    ) -> PyResult<Option<Object<'py>>> {
        self.collect(py, |input, searched| {
            let ready = input.ready();
            let searched = searched.min(ready.len());
            match memchr::memchr(b'\n', &ready[searched..]) {
                Some(at) => Ok((searched + at + 1).min(limit)),
                None if ready.len() >= limit => Ok(limit),
                None => Err(limit),
            }
        })
    }

    /// Fills the buffer until `enough` returns how much of it to return; at the end of the body, everything.
    /// If the buffer is too short, `enough` returns as an error how long it should be. It receives the length
    /// that it has already searched. Returns `None` under a guest loop that must wait first; what has been
    /// read is kept.
    fn collect<'py>(
        &mut self,
        py: Python<'py>,
        enough: impl Fn(&Input, usize) -> std::result::Result<usize, usize>,
    ) -> PyResult<Option<Object<'py>>> {
        let mut seen = 0;
        loop {
            let want = match enough(&self.input, seen) {
                Ok(n) => return self.input.give(py, n).map(Some),
                Err(want) => want - self.input.ready().len(),
            };
            seen = self.input.ready().len();
            self.open(py)?;
            let waker = PythonRuntime::get().guest.as_ref().map(|guest| guest.waker(self.number));
            let Self { exchange: Some(exchange), input, .. } = self else {
                return Ok(None);
            };
            match input.fill(py, exchange, want, waker) {
                Ok(Filled::More) => {}
                Ok(Filled::Pending) => return Ok(None),
                Ok(Filled::End) => {
                    let n = self.input.ready().len();
                    return self.input.give(py, n).map(Some);
                }
                Err(failure) => return Err(self.raise(py, failure)),
            }
        }
    }
}

/// `read(size=-1)`
pub(crate) fn read<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [size] = arguments.take(["size"])?;
    let size = limit(size)?;
    let request = PythonRuntime::get().types.request.value(me)?;
    Ok(request.state(py)?.take(py, size)?.unwrap_or_else(|| py.none()))
}

/// `readline(size=-1)`
pub(crate) fn readline<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [size] = arguments.take(["size"])?;
    let size = limit(size)?;
    let request = PythonRuntime::get().types.request.value(me)?;
    Ok(request.state(py)?.line(py, size)?.unwrap_or_else(|| py.none()))
}

/// `readlines(hint=-1)`: whole lines, until their total length is at least `hint`.
pub(crate) fn readlines<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [hint] = arguments.take(["hint"])?;
    let hint = Some(limit(hint)?).filter(|hint| *hint > 0).unwrap_or(usize::MAX);
    let request = PythonRuntime::get().types.request.value(me)?;
    let (mut lines, mut sum) = (Vec::new(), 0);
    while sum < hint {
        let Some(line) = request.state(py)?.line(py, usize::MAX)? else { break };
        let len = line.len()?;
        if len == 0 {
            break;
        }
        sum += len;
        lines.push(line);
    }
    py.list(lines)
}

/// Converts a size as Python's files do: `None` and negative mean "all".
fn limit(size: Option<Object<'_>>) -> PyResult<usize> {
    match size.filter(|size| !size.is_none()) {
        Some(size) => Ok(usize::try_from(size.as_number()?).unwrap_or(usize::MAX)),
        None => Ok(usize::MAX),
    }
}

/// Number of bytes requested from the exchange at a time.
const PART_MIN: usize = 8 * 1024;
/// Limits what a client can make the server allocate by announcing a body that it does not send.
const PART_MAX: usize = 256 * 1024;
/// Capacity of a buffer that is kept for the next request.
const KEPT_MAX: usize = 64 * 1024;
