//! One request and its response, as an application sees it.
//!
//! The primitive operations (`poll_*`) never block: they answer [`Step::NotYet`] and take a waker. The blocking forms
//! are made of these and of [`Exchange::wait`], which each worker class brings: a system call under a sync worker, a
//! switch to other greenlets under a cooperative one. An application written with either runs under every class.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use abi_stable::std_types::{RSlice, RSliceMut, RStr};

use crate::failure::{Failure, FailureKind, Result};
use crate::head::{Header, RequestHead};
use crate::raw::{ExchangeBox, Interest, Step};
use crate::waker::Waker;

/// One request and its response.
///
/// Made by a worker class, handed to [`crate::App::call`] in a worker process, on the thread that serves it. It may be
/// moved to another thread of that process, but has one user at a time. Dropped before it is finished, it is ended as
/// [`Exchange::fail`] ends it.
pub struct Exchange {
    raw: Option<ExchangeBox>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Finished,
    Hijacked,
}

/// A connection that the application took over with [`Exchange::hijack`].
#[derive(Debug)]
pub struct HijackedStream {
    /// The connection, non-blocking.
    pub fd: OwnedFd,
    /// What the client had sent behind the request's head and body so far.
    pub already_read: Vec<u8>,
}

impl Exchange {
    /// Wraps what a worker class made.
    pub fn from_raw(raw: ExchangeBox) -> Self {
        Self { raw: Some(raw), state: State::Open }
    }

    /// Takes the exchange out of a call, to finish it later from another place: [`crate::App::call`] then returns
    /// without an answer, which needs [`crate::Needs::LATER`]. Every later use of `self` is a failure.
    #[must_use]
    pub fn keep(&mut self) -> Self {
        Self { raw: self.raw.take(), state: self.state }
    }

    /// Reads from the request's body into `buf`; 0 octets mean that it has ended.
    pub fn poll_read(&mut self, buf: &mut [u8], waker: Option<Waker>) -> Step {
        match self.raw() {
            Ok(raw) => raw.poll_read(RSliceMut::from_mut_slice(buf), waker.into()),
            Err(failure) => Step::Failed(failure),
        }
    }

    /// Begins the response. Nothing is sent before the first write or the end, and until then a second call
    /// replaces the first (PEP 3333 asks this of `start_response` with `exc_info`). The head of a 101 is sent at once: the
    /// client waits for it.
    ///
    /// The server adds Date, Server, Connection and the framing; `Content-Length` is the application's to set where
    /// it knows the length. Hop-by-hop headers are left out; `Connection: close` closes the connection after the response.
    /// Fails with [`FailureKind::APPLICATION`] on a header that may not be sent: a name that is no token, CR, LF or NUL in
    /// a value, two lengths.
    pub fn start(&mut self, status: u16, reason: &str, headers: &[Header<'_>]) -> Result<()> {
        let raw = self.raw()?;
        raw.start(status, RStr::from_str(reason), RSlice::from_slice(headers)).into_result()
    }

    /// Writes a part of the response's body; answers how much of it was taken, and "not yet" above the high-water mark.
    pub fn poll_write(&mut self, bytes: &[u8], waker: Option<Waker>) -> Step {
        match self.raw() {
            Ok(raw) => raw.poll_write(RSlice::from_slice(bytes), waker.into()),
            Err(failure) => Step::Failed(failure),
        }
    }

    /// Sends `len` octets of a file from `offset` as a part of the body; answers how many went, at least one.
    pub fn poll_send_file(
        &mut self,
        fd: RawFd,
        offset: u64,
        len: u64,
        waker: Option<Waker>,
    ) -> Step {
        match self.raw() {
            Ok(raw) => raw.poll_send_file(fd, offset, len, waker.into()),
            Err(failure) => Step::Failed(failure),
        }
    }

    /// Sends an informational response, 103 Early Hints for example; left out where the client is too old for it.
    pub fn informational(&mut self, status: u16, headers: &[Header<'_>]) -> Result<()> {
        self.raw()?.informational(status, RSlice::from_slice(headers)).into_result()
    }

    /// Sets the trailer fields that follow a chunked body; left out where the framing has no place for them.
    pub fn trailers(&mut self, headers: &[Header<'_>]) -> Result<()> {
        self.raw()?.trailers(RSlice::from_slice(headers)).into_result()
    }

    /// Ends the response. Does not block: what is not yet sent is sent by the worker class. The second call does
    /// nothing.
    pub fn finish(&mut self) -> Result<()> {
        if self.state != State::Open {
            return Ok(());
        }
        let raw = self.raw()?;
        let result = raw.finish().into_result();
        self.state = State::Finished;
        result
    }

    /// Ends the response for a failure: it is answered where nothing is on the wire yet, with the failure's status or
    /// 500, and otherwise the connection is cut so that the client can tell.
    pub fn fail(&mut self, failure: Failure) {
        if self.state != State::Open {
            return;
        }
        if let Some(raw) = self.raw.as_mut() {
            raw.fail(failure);
            self.state = State::Finished;
        }
    }

    /// Whether the head's `peer` and `local` are the ends that a PROXY header named, and not the connection's.
    pub fn is_proxied(&self) -> bool {
        self.raw.as_ref().is_some_and(ExchangeBox::is_proxied)
    }

    /// Takes over the connection: the server forgets it ("already handled"). Only before the response is begun, or after the
    /// head of a `101 Switching Protocols`.
    pub fn hijack(&mut self) -> Result<HijackedStream> {
        let hijacked = self.raw()?.hijack().into_result()?;
        if hijacked.fd < 0 {
            return Err(Failure::unsupported(
                "this connection has no descriptor of its own to take over",
            ));
        }
        self.state = State::Hijacked;
        // SAFETY: `RawExchange::hijack` gives a descriptor that belongs to its receiver alone.
        let fd = unsafe { OwnedFd::from_raw_fd(hijacked.fd) };
        Ok(HijackedStream { fd, already_read: hijacked.already_read.into_vec() })
    }

    /// Blocks in the worker class's way until the last operation that answered [`Step::NotYet`] is worth trying
    /// again. Fails when the request's deadline passes, the client is gone, or the process is being ended.
    pub fn wait(&mut self, interest: Interest) -> Result<()> {
        self.raw()?.wait(interest).into_result()
    }

    /// Gives the request more time than `request_timeout` allows.
    pub fn extend_deadline(&mut self, by: std::time::Duration) -> Result<()> {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.raw()?.extend_deadline(ns);
        Ok(())
    }

    /// Has `waker` fire when the client is gone or the request's time is up, while the exchange is open.
    pub fn on_gone(&mut self, waker: Waker) -> Result<()> {
        self.raw()?.on_gone(waker);
        Ok(())
    }

    /// Reads from the body, blocking in the class's way; 0 octets mean that it has ended.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.poll_read(buf, None) {
                Step::Ready(n) => return Ok(n),
                Step::NotYet => self.wait(Interest::READ)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Reads the whole body, up to `limit` octets; fails with [`FailureKind::TOO_LARGE`] beyond.
    pub fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let n = self.read(&mut part)?;
            if n == 0 {
                return Ok(body);
            }
            if body.len() + n > limit {
                let words = format!("the body is larger than {limit} octets");
                return Err(Failure::new(FailureKind::TOO_LARGE, words).with_status(413));
            }
            body.extend_from_slice(&part[..n]);
        }
    }

    /// Writes a part of the body, blocking in the class's way.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.poll_write(rest, None) {
                Step::Ready(n) => rest = rest.get(n..).unwrap_or_default(),
                Step::NotYet => self.wait(Interest::WRITE)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Sends `len` octets of a file from `offset`, blocking in the class's way.
    pub fn send_file(&mut self, fd: RawFd, mut offset: u64, mut len: u64) -> Result<()> {
        while len > 0 {
            match self.poll_send_file(fd, offset, len, None) {
                Step::Ready(n) => {
                    offset += n as u64;
                    len = len.saturating_sub(n as u64);
                }
                Step::NotYet => self.wait(Interest::WRITE)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// A whole response with its length: `start`, `write`, `finish`.
    pub fn respond(&mut self, status: u16, headers: &[Header<'_>], body: &[u8]) -> Result<()> {
        let mut digits = [0; 20];
        let length = decimal(body.len() as u64, &mut digits);
        let mut all = [Header::new("", ""); HEADERS_INLINE];
        if let Some(place) = all.get_mut(..=headers.len()) {
            place[..headers.len()].copy_from_slice(headers);
            place[headers.len()] = Header::new("Content-Length", length);
            self.start(status, "", place)?;
        } else {
            let mut all = headers.to_vec();
            all.push(Header::new("Content-Length", length));
            self.start(status, "", &all)?;
        }
        self.write(body)?;
        self.finish()
    }

    /// The request's head. Valid until the exchange is used again.
    ///
    /// # Panics
    /// After [`Exchange::keep`] took the exchange away.
    pub fn head(&self) -> &RequestHead<'_> {
        self.raw.as_ref().expect("head() is not asked of an exchange that was kept").head()
    }

    /// The connection's descriptor, to look at and not to read, write or close; -1 where there is none.
    pub fn descriptor(&self) -> RawFd {
        self.raw.as_ref().map_or(-1, super::raw::RawExchange_TO::descriptor)
    }

    /// When the request's time is up, `CLOCK_MONOTONIC` in nanoseconds; nothing where it has no limit.
    pub fn deadline_ns(&self) -> Option<u64> {
        let ns = self.raw.as_ref()?.deadline_ns();
        (ns != 0).then_some(ns)
    }

    /// Ends what an application left open: with `outcome`'s failure, or by finishing.
    pub(crate) fn close(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) if self.raw.is_none() => {}
            Ok(()) => {
                if let Err(failure) = self.finish() {
                    self.fail(failure);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    fn raw(&mut self) -> Result<&mut ExchangeBox> {
        self.raw.as_mut().ok_or_else(|| {
            Failure::application("the exchange was kept by somebody else before this call")
        })
    }
}

impl io::Read for Exchange {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(Self::read(self, buf)?)
    }
}

impl io::Write for Exchange {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::write(self, buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("state", &self.state).finish_non_exhaustive()
    }
}

/// `number` in decimal digits, without an allocation.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// How many headers [`Exchange::respond`] handles without an allocation.
const HEADERS_INLINE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        assert_eq!(decimal(0, &mut [0; 20]), b"0");
        assert_eq!(decimal(1_020, &mut [0; 20]), b"1020");
        assert_eq!(decimal(u64::MAX, &mut [0; 20]), u64::MAX.to_string().as_bytes());
    }
}
