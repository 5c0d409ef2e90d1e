//! Head, body and trailers of a response.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Buf;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body;
use worker_api::{Failure, Header, Result, Step};

use crate::BoxError;
use crate::shared::Shared;

/// Sends a response to a request with this method, except its end.
///
/// # Errors
/// The client has disconnected, the head is invalid, or the body fails.
pub(crate) async fn send<B>(exchange: &Shared, method: &Method, response: Response<B>) -> Result<()>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let length = body.size_hint().exact().filter(|_| has_length(method, head.status));
    start(exchange, head.status, &head.headers, length)?;
    let mut body = pin!(body);
    let failed = |error| cause("the body of the response", error);
    // The error is converted before anything waits: it need not be `Send`.
    while let Some(frame) = poll_fn(|cx| {
        body.as_mut().poll_frame(cx).map(|next| next.map(|frame| frame.map_err(failed)))
    })
    .await
    {
        match frame?.into_data() {
            Ok(data) => write(exchange, data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    exchange.lock().trailers(&lines(&trailers))?;
                }
            }
        }
    }
    Ok(())
}

/// Converts an error of the service or its body. A failure of the exchange that is in it, such as a body that is too large,
/// keeps its status.
pub(crate) fn cause(what: &str, error: impl Into<BoxError>) -> Failure {
    let error: BoxError = error.into();
    let mut source: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = source {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        source = error.source();
    }
    Failure::application(format!("{what} failed")).caused_by(&*error)
}

fn start(
    exchange: &Shared,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<()> {
    let mut lines = lines(headers);
    let digits = length.filter(|_| !headers.contains_key(CONTENT_LENGTH)).map(|n| n.to_string());
    lines.extend(digits.as_ref().map(|digits| Header::new("content-length", digits)));
    exchange.lock().start(status.as_u16(), "", &lines)
}

fn lines(headers: &HeaderMap) -> Vec<Header<'_>> {
    // One more, for the length.
    let mut lines = Vec::with_capacity(headers.len() + 1);
    lines.extend(headers.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())));
    lines
}

/// Returns whether the size of the body is the length of the response (RFC 9110 8.6).
fn has_length(method: &Method, status: StatusCode) -> bool {
    let is_tunnel = *method == Method::CONNECT && status.is_success();
    let has_body = !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED;
    *method != Method::HEAD && has_body && !is_tunnel
}

async fn write(exchange: &Shared, mut data: impl Buf) -> Result<()> {
    while data.has_remaining() {
        let count = write_some(exchange, data.chunk()).await?;
        data.advance(count);
    }
    Ok(())
}

async fn write_some(exchange: &Shared, bytes: &[u8]) -> Result<usize> {
    poll_fn(|cx| {
        let waker = cx.waker().clone().into();
        match exchange.lock().poll_write(bytes, Some(waker)) {
            Step::Ready(count) => Poll::Ready(Ok(count)),
            Step::Pending => Poll::Pending,
            Step::Failed(failure) => Poll::Ready(Err(failure)),
        }
    })
    .await
}
