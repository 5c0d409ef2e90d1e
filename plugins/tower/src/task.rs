//! The task of a request: its service, its panic, and the disconnect of its client.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};

use http::{Request, Response};
use http_body::Body as HttpBody;
use nix::time::{ClockId, clock_gettime};
use tower_service::Service;
use worker_api::guard::catch;
use worker_api::{Failure, FailureKind, Result, Waker};

use crate::BoxError;
use crate::body::Body;
use crate::request::RequestParts;
use crate::response::{cause, send};
use crate::shared::Shared;

/// Serves one request. When the client disconnects or the deadline passes, the service is dropped where it waits.
pub(crate) async fn serve<S, B>(service: S, parts: RequestParts, exchange: worker_api::Exchange)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let exchange = Shared::new(exchange);
    let outcome = {
        let mut work = pin!(respond(service, parts, &exchange));
        let mut disconnect = None;
        poll_fn(|cx| {
            let disconnect = disconnect.get_or_insert_with(|| Disconnect::of(&exchange, cx));
            if disconnect.has_happened() {
                return Poll::Ready(Err(reason(&exchange)));
            }
            match catch("the service", || work.as_mut().poll(cx)) {
                Ok(poll) => poll,
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await
    };
    let mut exchange = exchange.lock();
    if let Err(failure) = outcome.and_then(|()| exchange.finish()) {
        exchange.fail(failure);
    }
}

async fn respond<S, B>(mut service: S, parts: RequestParts, exchange: &Shared) -> Result<()>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let method = parts.head.method.clone();
    let body = Body::new(exchange.clone(), parts.body);
    let failed = |error| cause("the service", error);
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let response = service.call(Request::from_parts(parts.head, body)).await.map_err(failed)?;
    send(exchange, &method, response).await
}

/// Whether the client has disconnected or the deadline has passed.
struct Disconnect(Arc<AtomicBool>);

impl Disconnect {
    /// Wakes the task when it happens. The waker of a task is the same in each poll.
    fn of(exchange: &Shared, cx: &task::Context<'_>) -> Self {
        let (happened, task) = (Arc::new(AtomicBool::new(false)), cx.waker().clone());
        let flag = Arc::clone(&happened);
        let waker = Waker::new(move || {
            flag.store(true, Ordering::Release);
            task.wake_by_ref();
        });
        // Without an exchange there is nothing to wait for.
        let _ = exchange.lock().on_disconnect(waker);
        Self(happened)
    }

    fn has_happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn reason(exchange: &Shared) -> Failure {
    let is_late = exchange.lock().deadline_ns().is_some_and(|deadline| deadline <= now_ns());
    if is_late {
        let words = "the request timed out (request_timeout)";
        Failure::new(FailureKind::TIMEOUT, words).with_status(504)
    } else {
        Failure::new(FailureKind::GONE, "the client has disconnected")
    }
}

/// Returns the time on the clock of deadlines.
fn now_ns() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
