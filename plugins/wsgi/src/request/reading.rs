//! Reads the body of a request, as `wsgi.input` does.

use worker_api::Waker;

use super::State;
use crate::input::{Filled, Input, Part};
use crate::runtime::PythonRuntime;
use python::{Object, PyResult, Python};

impl State {
    /// Returns up to `size` bytes; fewer only at the end of the body.
    pub(crate) fn take<'py>(
        &mut self,
        py: Python<'py>,
        runtime: &PythonRuntime,
        size: usize,
    ) -> PyResult<Option<Object<'py>>> {
        while self.input.begin_partial(py, size)? {
            self.open(py)?;
            let waker = self.waker(runtime);
            let Self { exchange: Some(exchange), input, .. } = self else { return Ok(None) };
            match input.fill_partial(py, exchange, waker) {
                Ok(Part::Complete(bytes)) => return Ok(Some(bytes)),
                Ok(Part::Pending) => return Ok(None),
                Ok(Part::Incomplete) => {}
                Err(failure) => return Err(self.raise(py, failure)),
            }
        }
        self.collect(
            py,
            runtime,
            |input, _| if input.ready().len() >= size { Ok(size) } else { Err(size) },
        )
    }

    /// Returns a line with its line end, or `limit` bytes of it; empty at the end of the body.
    pub(crate) fn line<'py>(
        &mut self,
        py: Python<'py>,
        runtime: &PythonRuntime,
        limit: usize,
    ) -> PyResult<Option<Object<'py>>> {
        self.input.buffer_partial(py);
        self.collect(py, runtime, |input, searched| {
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
        runtime: &PythonRuntime,
        enough: impl Fn(&Input, usize) -> Result<usize, usize>,
    ) -> PyResult<Option<Object<'py>>> {
        let mut seen = 0;
        loop {
            let want = match enough(&self.input, seen) {
                Ok(n) => return self.input.give(py, n).map(Some),
                Err(want) => want - self.input.ready().len(),
            };
            seen = self.input.ready().len();
            self.open(py)?;
            let waker = self.waker(runtime);
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

    /// Returns what wakes up the request under a guest loop; `None` for a thread that waits itself.
    fn waker(&self, runtime: &PythonRuntime) -> Option<Waker> {
        runtime.guest.as_ref().map(|guest| guest.waker(self.number))
    }
}
