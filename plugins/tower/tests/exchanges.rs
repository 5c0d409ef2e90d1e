//! A service as an application, with exchanges in memory.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Version;
use http_body::Body as _;
use jimu_tower::{AppContext, Application, Body, BoxError};
use tower_service::Service;
use worker_api::testing::{Request, Response, TestEngine, TestHost};
use worker_api::{App, AppHandle, Exchange, FailureKind, Requirements};

#[test]
fn a_body_comes_back_whatever_its_length() {
    let app = application();
    for request in [Request::post("/", &BODY), Request::post("/", &BODY).chunked()] {
        let response = serve(&app, request);
        assert!(response.is_complete(), "{response:?}");
        assert_eq!((response.status, &response.body[..]), (200, &BODY[..]));
    }
    app.stop();
}

#[test]
fn a_failure_of_the_exchange_keeps_its_kind() {
    let app = application();
    let failure = serve(&app, Request::post("/", &BODY).received_until(70)).failed.unwrap();
    assert_eq!(failure.kind, FailureKind::GONE, "{failure}");
    app.stop();
}

#[test]
fn a_target_that_is_no_uri_gets_status_400() {
    let app = application();
    let (mut exchange, _) = Request::get("/a\"b<").exchange();
    let failure = app.call(&mut exchange).unwrap_err();
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

/// The service, as the macro exports it.
struct Called(Arc<Application>);

impl App for Called {
    fn requirements(&self) -> Requirements {
        Requirements::DEFERRED
    }

    fn call(&self, exchange: &mut Exchange) -> worker_api::Result<()> {
        self.0.call(exchange)
    }
}

fn serve(app: &Arc<Application>, request: Request) -> Response {
    let engine = TestEngine::default();
    let recorded = engine.add(request);
    engine.serve(&AppHandle::from_app(Called(Arc::clone(app)))).unwrap();
    recorded.response()
}

fn application() -> Arc<Application> {
    let app = Application::new(context(), |_| ready(Ok::<_, Infallible>(Echo)));
    app.start().unwrap();
    Arc::new(app)
}

fn context() -> AppContext {
    let (spec, class, guest_loop) = (String::new(), String::new(), String::new());
    AppContext { host: TestHost::default().services(), spec, class, guest_loop }
}

const BODY: [u8; 100] = [b'x'; 100];
