//! A service as an application, with exchanges in memory.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use doubles::exchange::Turn;
use doubles::{Request, Response, TestHost, locked};
use http::Version;
use http_body::Body as _;
use jimu_tower::{AppContext, Application, Body, BoxError};
use support::wait;
use tower_service::Service;
use worker_api::{Exchange, FailureKind, Waker};

#[test]
fn a_body_comes_back_whatever_its_length() {
    let app = application();
    for request in [Request::get("/").body(&BODY), Request::get("/").body(&BODY).chunked()] {
        let seen = serve(&app, request);
        assert!(seen.is_good(), "{seen:?}");
        assert_eq!((seen.status, &seen.body[..]), (200, &BODY[..]));
    }
    app.stop();
}

#[test]
fn a_failure_of_the_exchange_keeps_its_kind() {
    let app = application();
    let mut request = Request::get("/").body(&BODY);
    request.gone_after = Some(70);
    let failure = serve(&app, request).failed.unwrap();
    assert_eq!(failure.kind, FailureKind::GONE, "{failure}");
    app.stop();
}

#[test]
fn a_target_that_is_no_uri_gets_status_400() {
    let app = application();
    let (exchange, _) = Request::get("/a\"b<").exchange();
    let failure = app.call(&mut Exchange::from_raw(exchange)).unwrap_err();
    assert_eq!((failure.kind, failure.status), (FailureKind::PROTOCOL, 400), "{failure}");
    app.stop();
}

#[test]
fn an_error_of_the_constructor_is_the_reason() {
    let create = |_| ready(Err::<Echo, BoxError>("no database".into()));
    let failure = Application::new(context(), create).start().unwrap_err();
    assert_eq!(failure.to_string(), "the service cannot be created: no database");
    assert_eq!(failure.kind, FailureKind::LOAD);
}

/// Sends the body of a request back.
#[derive(Clone)]
struct Echo;

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.version(), Version::HTTP_11);
        assert!(!Pin::new(request.body()).is_end_stream());
        ready(Ok(http::Response::new(request.into_body())))
    }
}

/// Completes what is pending from another thread, as a worker class does.
struct OtherThread;

impl Turn for OtherThread {
    fn wake_later(&self, waker: Waker) {
        thread::spawn(move || waker.wake());
    }
}

fn serve(app: &Application, mut request: Request) -> Response {
    request.engine = Some(Arc::new(OtherThread));
    let (exchange, seen) = request.exchange();
    app.call(&mut Exchange::from_raw(exchange)).unwrap();
    wait::until("the end of the exchange", Duration::from_secs(10), || {
        let seen = locked(&seen).clone();
        if seen.finished || seen.failed.is_some() { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
}

fn application() -> Application {
    let app = Application::new(context(), |_| ready(Ok::<_, Infallible>(Echo)));
    app.start().unwrap();
    app
}

fn context() -> AppContext {
    let (spec, class, guest_loop) = (String::new(), String::new(), String::new());
    AppContext { host: TestHost::default().services(), spec, class, guest_loop }
}

const BODY: [u8; 100] = [b'x'; 100];
