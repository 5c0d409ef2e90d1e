//! `wsgi.input`: the request's body as a file. What has to be waited for is waited for without the interpreter; under a
//! guest loop `read` and `readline` answer `None` instead, and the driver's own `wsgi.input` waits and asks again.

use worker_api::{Exchange, Interest, Result, Step, Waker};

use crate::bridge::Bridge;
use crate::python::{Arguments, Object, PyResult, Python};
use crate::request::State;

/// What has been read from the exchange and not been given out yet: `buffer[given..filled]`. The memory behind that is
/// kept as it is, so that nothing is cleared again and again.
#[derive(Default)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    given: usize,
    filled: usize,
    ended: bool,
    /// How much of the body is still to come from the exchange, where that is known.
    to_come: Option<u64>,
}

impl Input {
    /// Begins anew, for another request.
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

    /// Gives out `n` octets that are ready.
    fn give<'py>(&mut self, py: Python<'py>, n: usize) -> PyResult<Object<'py>> {
        let given = py.octets(&self.buffer[self.given..self.given + n])?;
        self.given += n;
        if self.given == self.filled {
            (self.given, self.filled) = (0, 0);
        }
        Ok(given)
    }

    /// Reads one part more, of at most `want` octets. With a waker it does not wait, but says that it would have to.
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
            // Doubled, so that a body that is read at once is moved seldom.
            self.buffer.resize((self.filled + want).max(self.filled * 2), 0);
        }
        let place = &mut self.buffer[self.filled..];
        let Some(n) = read_some(py, exchange, place, waker)? else { return Ok(Filled::NotYet) };
        self.filled += n;
        self.ended = n == 0;
        self.to_come = self.to_come.map(|rest| rest.saturating_sub(n as u64));
        Ok(if self.ended { Filled::End } else { Filled::More })
    }
}

/// How reading one part more went.
enum Filled {
    More,
    End,
    NotYet,
}

/// Reads what there is. Where there is nothing yet, it waits without the interpreter; with a waker it gives that to the
/// exchange instead, and answers nothing.
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
        Step::NotYet if patient => py.detach(|| {
            exchange.wait(Interest::READ)?;
            exchange.read(place).map(Some)
        }),
        Step::NotYet => Ok(None),
    }
}

impl State {
    /// At most `size` octets; fewer only at the end of the body.
    fn take<'py>(&mut self, py: Python<'py>, size: usize) -> PyResult<Option<Object<'py>>> {
        self.collect(py, |input, _| if input.ready().len() >= size { Ok(size) } else { Err(size) })
    }

    /// A line with its end, or `limit` octets of it; empty at the end of the body.
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

    /// Fills the buffer until `enough` says how much of it to give out; everything at the end of the body. Where it is
    /// not enough it says how much there should be. It is told how much it has seen before. Nothing under a guest loop
    /// that has to wait first: what has been read stays for the next time.
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
            let waker = Bridge::get().guest.as_ref().map(|guest| guest.waker(self.number));
            let Self { exchange: Some(exchange), input, .. } = self else {
                return Ok(None);
            };
            match input.fill(py, exchange, want, waker) {
                Ok(Filled::More) => {}
                Ok(Filled::NotYet) => return Ok(None),
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
    let request = Bridge::get().types.request.value(me)?;
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
    let request = Bridge::get().types.request.value(me)?;
    Ok(request.state(py)?.line(py, size)?.unwrap_or_else(|| py.none()))
}

/// `readlines(hint=-1)`: whole lines, until they are `hint` octets or more in sum.
pub(crate) fn readlines<'py>(
    py: Python<'py>,
    me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [hint] = arguments.take(["hint"])?;
    let hint = Some(limit(hint)?).filter(|hint| *hint > 0).unwrap_or(usize::MAX);
    let request = Bridge::get().types.request.value(me)?;
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

/// A size as Python's files take it: none and negative mean "all".
fn limit(size: Option<Object<'_>>) -> PyResult<usize> {
    match size.filter(|size| !size.is_none()) {
        Some(size) => Ok(usize::try_from(size.as_number()?).unwrap_or(usize::MAX)),
        None => Ok(usize::MAX),
    }
}

/// How much is asked of the exchange at once.
const PART_MIN: usize = 8 * 1024;
/// Bounds what a client can make us allocate by announcing a body that it does not send.
const PART_MAX: usize = 256 * 1024;
/// How much of a buffer is kept for the next request.
const KEPT_MAX: usize = 64 * 1024;
