//! The body of a request, as it arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use worker_api::{Failure, Step};

use crate::shared::Shared;

/// The body of a request. Each part is read from the connection when it is asked for: a service that reads slowly slows its
/// client down, and an upload of any size takes one buffer.
pub struct Body {
    exchange: Shared,
    length: Length,
    /// Room for a part, from the first read on.
    buffer: Vec<u8>,
}

/// What is still to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// This number of bytes.
    Known(u64),
    /// As many as the client sends.
    Unknown,
    /// Nothing: the end was read, or reading has failed.
    Ended,
}

impl Body {
    pub(crate) fn new(exchange: Shared, length: Length) -> Self {
        Self { exchange, length, buffer: Vec::new() }
    }

    fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Result<usize, Failure>> {
        if self.buffer.is_empty() {
            let room = match self.length {
                Length::Known(bytes) => usize::try_from(bytes).unwrap_or(PART_MAX).min(PART_MAX),
                Length::Unknown | Length::Ended => PART_MAX,
            };
            self.buffer.resize(room, 0);
        }
        let waker = cx.waker().clone().into();
        match self.exchange.lock().poll_read(&mut self.buffer, Some(waker)) {
            Step::Ready(count) => Poll::Ready(Ok(count)),
            Step::Pending => Poll::Pending,
            Step::Failed(failure) => Poll::Ready(Err(failure)),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let read = ready!(self.poll_read(cx));
        self.length = match (&read, self.length) {
            (Ok(1..), Length::Unknown) => Length::Unknown,
            (Ok(count @ 1..), Length::Known(rest)) => {
                Length::Known(rest.saturating_sub(*count as u64))
            }
            _ => Length::Ended,
        };
        Poll::Ready(match read {
            Ok(0) => None,
            Ok(count) => Some(Ok(Frame::data(Bytes::copy_from_slice(&self.buffer[..count])))),
            Err(failure) => Some(Err(failure)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.length, Length::Known(0) | Length::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Length::Known(bytes) => SizeHint::with_exact(bytes),
            Length::Unknown => SizeHint::default(),
            Length::Ended => SizeHint::with_exact(0),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// The longest part, in bytes.
const PART_MAX: usize = 16 * 1024;
