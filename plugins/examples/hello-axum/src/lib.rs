//! A router of axum as an application of Jimu: the example to copy for a `tower::Service`.
//!
//! | path | response |
//! | --- | --- |
//! | `/` | a greeting |
//! | `/echo` | the request's body, as it arrives |
//! | `/sleep?ms=` | a text, after a sleep of tokio |
//! | `/stream?n=&size=` | `n` parts of `size` bytes, without a `Content-Length` |
//! | `/whole?size=` | `size` bytes in one part |
//! | `/headers` | the request's headers |
//! | `/client` | the client's address |
//! | `/trailers` | a body with a trailer |
//! | `/pid` | the worker's process ID |
//! | `/until-gone` | a first part; the client's disconnect is logged |
//! | `/panic` | status 500: an example of what not to do, which the server survives |

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use jimu_tower::{AppContext, BoxError, Connection};

jimu_tower::export!(create);

async fn create(_: AppContext) -> Result<Router, BoxError> {
    // What each worker needs for itself, such as a pool of connections, is opened here.
    if let Ok(reason) = std::env::var("HELLO_AXUM_REFUSES") {
        return Err(reason.into());
    }
    Ok(Router::new()
        .route("/", get(|| async { "Hello, world!\n" }))
        .route("/echo", post(|body: Body| async { body }))
        .route("/sleep", get(sleep))
        .route("/stream", get(stream))
        .route("/whole", get(whole))
        .route("/headers", get(headers))
        .route("/client", get(client))
        .route("/trailers", get(trailers))
        .route("/pid", get(|| async { format!("{}\n", std::process::id()) }))
        .route("/until-gone", get(until_gone))
        .route("/panic", get(panic)))
}

type Numbers = Query<HashMap<String, usize>>;

async fn sleep(Query(numbers): Numbers) -> String {
    let ms = numbers.get("ms").copied().unwrap_or(1000).min(SLEEP_MS_MAX);
    // Not std::thread::sleep, which would stop all requests of the worker.
    tokio::time::sleep(Duration::from_millis(ms as u64)).await;
    format!("Slept for {ms} ms.\n")
}

async fn stream(Query(numbers): Numbers) -> Body {
    let part = part_of(&numbers);
    let count = numbers.get("n").copied().unwrap_or(10);
    let parts = stream::iter(std::iter::repeat_n(part, count));
    Body::from_stream(parts.map(Ok::<_, Infallible>))
}

async fn whole(Query(numbers): Numbers) -> Bytes {
    part_of(&numbers)
}

async fn headers(headers: HeaderMap) -> String {
    let mut lines = String::new();
    for (name, value) in &headers {
        let _ = writeln!(lines, "{name}: {}", value.as_bytes().escape_ascii());
    }
    lines
}

async fn client(Extension(connection): Extension<Connection>) -> String {
    format!("{} {:?}\n", connection.scheme, connection.peer)
}

async fn trailers() -> Body {
    let trailers = HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("1"))]);
    let chunks = Body::from_stream(stream::iter([Ok::<_, Infallible>("a body\n")]));
    Body::new(chunks.with_trailers(async { Some(Ok(trailers)) }))
}

/// Sends a part, and then nothing until the client disconnects: the body is dropped, and with it the guard.
async fn until_gone() -> Body {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            eprintln!("hello-axum: the client has disconnected");
        }
    }
    let guard = Guard;
    let first = stream::iter([Ok::<_, Infallible>("waiting\n")]);
    Body::from_stream(first.chain(stream::once(async move {
        let _guard = guard;
        std::future::pending().await
    })))
}

async fn panic() {
    panic!("a client asked for a panic");
}

fn part_of(numbers: &HashMap<String, usize>) -> Bytes {
    vec![b'.'; numbers.get("size").copied().unwrap_or(1024).min(PART_MAX)].into()
}

/// The trailer of `/trailers`.
const TRAILER: HeaderName = HeaderName::from_static("x-parts");
/// The longest sleep, so that a client cannot occupy a request for longer.
const SLEEP_MS_MAX: usize = 600_000;
/// The longest part, in bytes.
const PART_MAX: usize = 64 << 20;
