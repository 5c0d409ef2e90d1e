//! One request and its response, as seen by an application.
//!
//! The primitive operations (`poll_*`) never block: they return [`Step::Pending`] and take a waker. The blocking
//! operations are built on these and on [`Exchange::wait`], which each worker class implements: a system call under sync,
//! a switch to another greenlet under a cooperative class. An application that uses either runs under every class.
//!
//! After a switch of protocols the same operations carry raw bytes: see [`Exchange::start`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use abi_stable::std_types::{ROption, RSlice, RSliceMut, RStr};

use crate::failure::{Failure, FailureKind, Result};
use crate::head::{Header, RequestHead};
use crate::raw::{ExchangeBox, Interest, Step};
use crate::waker::Waker;

/// One request and its response.
///
/// Created by a worker class and passed to [`crate::App::call`] in a worker process, on the thread that serves the
/// request. It may be moved to another thread of that process, but only one thread uses it at a time. Dropping an
/// unfinished exchange fails it, as [`Exchange::fail`] does.
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

/// A connection taken over with [`Exchange::hijack`].
#[derive(Debug)]
pub struct HijackedStream {
    /// The connection. Non-blocking.
    pub fd: OwnedFd,
    /// Bytes that were already received after the request's head and body.
    pub already_read: Vec<u8>,
}

impl Exchange {
    /// Wraps the object that a worker class created.
    pub fn from_raw(raw: ExchangeBox) -> Self {
        Self { raw: Some(raw), state: State::Open }
    }

    /// Detaches the exchange from [`crate::App::call`], so that it can be finished after the call has returned. Requires
    /// [`crate::Requirements::DEFERRED`]. Using `self` afterwards fails.
    #[must_use]
    pub fn detach(&mut self) -> Self {
        Self { raw: self.raw.take(), state: self.state }
    }

    /// Reads from the request body into `buf`. [`Step::Ready`] with 0 means the end of the body, or, after a switch of
    /// protocols, that the client has shut down its side.
    #[inline]
    pub fn poll_read(&mut self, buf: &mut [u8], waker: Option<Waker>) -> Step {
        let Some(raw) = self.raw.as_mut() else { return Step::Failed(detached()) };
        with_waker(waker, |waker| raw.poll_read(RSliceMut::from_mut_slice(buf), waker))
    }

    /// Starts the response.
    ///
    /// The head is sent with the first write or with [`Exchange::finish`]; until then another call replaces it, as
    /// PEP 3333 requires of `start_response` with `exc_info`.
    ///
    /// The server adds Date, Server, Connection and the framing. Set `Content-Length` if the length is known. Hop-by-hop
    /// headers are dropped; `Connection: close` closes the connection after the response.
    ///
    /// # Switching protocols
    ///
    /// A 101 in response to a request that asks for an upgrade (RFC 9110 7.8), and a 2xx to a CONNECT (RFC 9110 9.3.6),
    /// are sent at once, because the client waits for them. From then on the exchange carries another protocol:
    ///
    /// - [`Exchange::poll_read`] and [`Exchange::read`] return the client's bytes, those that it sent together with the
    ///   request first, and 0 once it has shut down its side; writing is still possible then. [`Exchange::poll_write`]
    ///   and [`Exchange::write`] send bytes without framing. A connection that the client has reset fails with
    ///   [`FailureKind::GONE`].
    /// - There is no deadline (`request_timeout`), no limit on the number of bytes, and no minimum rate. A client that does
    ///   not read fails a write after `write_timeout`.
    /// - [`Exchange::finish`] sends what is buffered and closes the connection; it is never used for another request.
    ///   [`Exchange::fail`] resets it.
    /// - A worker that drains waits for the end of the exchange, up to `graceful_timeout`: [`crate::App::drain`] is where
    ///   an application learns of it.
    /// - The access log has one line, at the end, with the number of bytes written.
    ///
    /// The request's body must have been read before. [`Exchange::hijack`] takes over the connection instead, for code that
    /// needs a descriptor.
    ///
    /// # Errors
    /// [`FailureKind::APPLICATION`] for a header that must not be sent: a name that is not a token, CR, LF or NUL in a
    /// value, conflicting lengths; and for a 101 that the request did not ask for, or before its body has been read.
    pub fn start(&mut self, status: u16, reason: &str, headers: &[Header<'_>]) -> Result<()> {
        let raw = self.raw()?;
        raw.start(status, RStr::from_str(reason), RSlice::from_slice(headers)).into_result()
    }

    /// Writes a part of the response body and returns the number of bytes accepted, or [`Step::Pending`] while the output
    /// buffer is above its high-water mark. After a switch of protocols, it accepts only what the client has room for, and
    /// returns [`Step::Pending`] while earlier bytes are unsent, also for a write of no bytes.
    #[inline]
    pub fn poll_write(&mut self, bytes: &[u8], waker: Option<Waker>) -> Step {
        let Some(raw) = self.raw.as_mut() else { return Step::Failed(detached()) };
        with_waker(waker, |waker| raw.poll_write(RSlice::from_slice(bytes), waker))
    }

    /// Sends up to `len` bytes of a file from `offset` as a part of the body and returns the number of bytes sent, at least
    /// one.
    #[inline]
    pub fn poll_send_file(
        &mut self,
        fd: RawFd,
        offset: u64,
        len: u64,
        waker: Option<Waker>,
    ) -> Step {
        let Some(raw) = self.raw.as_mut() else { return Step::Failed(detached()) };
        with_waker(waker, |waker| raw.poll_send_file(fd, offset, len, waker))
    }

    /// Sends an informational response (1xx), 103 Early Hints for example. Does nothing for an HTTP/1.0 client.
    pub fn informational(&mut self, status: u16, headers: &[Header<'_>]) -> Result<()> {
        self.raw()?.informational(status, RSlice::from_slice(headers)).into_result()
    }

    /// Sets the trailer fields of a chunked body. They are dropped if the response is not chunked.
    pub fn trailers(&mut self, headers: &[Header<'_>]) -> Result<()> {
        self.raw()?.trailers(RSlice::from_slice(headers)).into_result()
    }

    /// Finishes the response without blocking; the worker class sends what is still buffered. Calling it again has no
    /// effect.
    ///
    /// # Errors
    /// The response is incomplete or cannot be sent. The exchange stays open, and [`Exchange::fail`] reports the failure.
    pub fn finish(&mut self) -> Result<()> {
        if self.state != State::Open {
            return Ok(());
        }
        self.raw()?.finish().into_result()?;
        self.state = State::Finished;
        Ok(())
    }

    /// Fails the exchange. If no part of the response has been sent, the client receives the failure's status (500 by
    /// default); otherwise the connection is closed so that the client detects the truncation.
    pub fn fail(&mut self, failure: Failure) {
        if self.state != State::Open {
            return;
        }
        if let Some(raw) = self.raw.as_mut() {
            raw.fail(failure);
            self.state = State::Finished;
        }
    }

    /// Returns whether the head's `peer` and `local` come from a PROXY header instead of the socket.
    pub fn is_proxied(&self) -> bool {
        self.raw.as_ref().is_some_and(ExchangeBox::is_proxied)
    }

    /// Takes over the connection: the server no longer uses it. Allowed before the response is started, or after the head
    /// of a `101 Switching Protocols`.
    pub fn hijack(&mut self) -> Result<HijackedStream> {
        let hijacked = self.raw()?.hijack().into_result()?;
        if hijacked.fd < 0 {
            return Err(Failure::unsupported(
                "this connection has no private descriptor to take over",
            ));
        }
        self.state = State::Hijacked;
        // SAFETY: `RawExchange::hijack` transfers ownership of the descriptor to the caller.
        let fd = unsafe { OwnedFd::from_raw_fd(hijacked.fd) };
        Ok(HijackedStream { fd, already_read: hijacked.already_read.into_vec() })
    }

    /// Blocks, as the worker class does, until the last operation that returned [`Step::Pending`] can be retried; with
    /// [`Interest::READ_WRITE`], until one of the two directions can be.
    ///
    /// # Errors
    /// The request's deadline has passed, the client has disconnected, or the process is being terminated.
    pub fn wait(&mut self, interest: Interest) -> Result<()> {
        self.raw()?.wait(interest).into_result()
    }

    /// Extends the request's deadline (`request_timeout`).
    pub fn extend_deadline(&mut self, by: std::time::Duration) -> Result<()> {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.raw()?.extend_deadline(ns);
        Ok(())
    }

    /// Registers a waker that fires when the client disconnects or the deadline passes while the exchange is open. A client
    /// that has only shut down its side counts as disconnected.
    pub fn on_disconnect(&mut self, waker: Waker) -> Result<()> {
        self.raw()?.on_disconnect(waker);
        Ok(())
    }

    /// Reads from the body, blocking as the worker class does. Returns 0 at the end of the body.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.poll_read(buf, None) {
                Step::Ready(n) => return Ok(n),
                Step::Pending => self.wait(Interest::READ)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`FailureKind::TOO_LARGE`] if the body is longer than `limit` bytes.
    pub fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let n = self.read(&mut part)?;
            if n == 0 {
                return Ok(body);
            }
            if body.len() + n > limit {
                let words = format!("the request body is larger than {limit} bytes");
                return Err(Failure::new(FailureKind::TOO_LARGE, words).with_status(413));
            }
            body.extend_from_slice(&part[..n]);
        }
    }

    /// Writes a part of the body, blocking as the worker class does.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.poll_write(rest, None) {
                Step::Ready(n) => rest = rest.get(n..).unwrap_or_default(),
                Step::Pending => self.wait(Interest::WRITE)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Sends `len` bytes of a file from `offset`, blocking as the worker class does.
    pub fn send_file(&mut self, fd: RawFd, mut offset: u64, mut len: u64) -> Result<()> {
        while len > 0 {
            match self.poll_send_file(fd, offset, len, None) {
                Step::Ready(n) => {
                    offset += n as u64;
                    len = len.saturating_sub(n as u64);
                }
                Step::Pending => self.wait(Interest::WRITE)?,
                Step::Failed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Sends a complete response with a `Content-Length`: `start`, `write`, `finish`.
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

    /// Returns the request head. Valid until the exchange is used again.
    ///
    /// # Panics
    /// After [`Exchange::detach`].
    pub fn head(&self) -> &RequestHead<'_> {
        self.raw.as_ref().expect("head() is not called after the exchange was detached").head()
    }

    /// Returns the connection's descriptor, for inspection only: do not read, write or close it. -1 if there is none.
    pub fn descriptor(&self) -> RawFd {
        self.raw.as_ref().map_or(-1, super::raw::RawExchange_TO::descriptor)
    }

    /// Returns the request's deadline on `CLOCK_MONOTONIC` in nanoseconds, or `None` without a limit.
    pub fn deadline_ns(&self) -> Option<u64> {
        let ns = self.raw.as_ref()?.deadline_ns();
        (ns != 0).then_some(ns)
    }

    /// Closes an exchange after the application returned: fails it with the error, or finishes it if it is open.
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
        self.raw.as_mut().ok_or_else(detached)
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

#[cold]
fn detached() -> Failure {
    Failure::application("the exchange was detached before this call")
}

/// Passes `waker` to `call`.
///
/// The absent waker is copied from a constant. Of one that is built for the call, only the tag is written, by a store of one
/// byte; the wider loads that copy it wait for that store: 4 ns of the 10 ns of a call.
#[inline]
fn with_waker(waker: Option<Waker>, call: impl FnOnce(ROption<Waker>) -> Step) -> Step {
    const ABSENT: ROption<Waker> = ROption::RNone;
    match waker {
        None => call(ABSENT),
        Some(waker) => call(ROption::RSome(waker)),
    }
}

/// Formats `number` in decimal without an allocation.
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

/// Number of headers that [`Exchange::respond`] handles without an allocation.
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
