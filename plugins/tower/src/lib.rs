//! Serves a [`tower_service::Service`] of HTTP requests, such as a router of axum, as an application of Jimu, under every
//! worker class that drives detached exchanges: gthread, eventlet, gevent, pywsgi and asgi. Under `sync` it is refused at
//! the start.
//!
//! A `cdylib` with this is an application:
//!
//! ```ignore
//! use std::convert::Infallible;
//!
//! use axum::{Router, routing::get};
//!
//! jimu_tower::export!(create);
//!
//! async fn create(_: jimu_tower::AppContext) -> Result<Router, Infallible> {
//!     Ok(Router::new().route("/", get(|| async { "Hello, world!\n" })))
//! }
//! ```
//!
//! Each worker runs one tokio runtime with one thread, from `init_worker`, after the fork, until the worker has served its
//! last request. `create` runs on it, so that pools of connections can be opened there. Each request is a task of it: it
//! occupies neither a thread nor a greenlet of the worker class.
//!
//! | module | contents |
//! | --- | --- |
//! | [`application`] | the runtime of a worker, and what [`export!`] exports |
//! | `task` | one request: the handler, its panic, the client's disconnect |
//! | `request` | the head of a request |
//! | `body` | the body of a request, as it arrives |
//! | `response` | head, body and trailers of a response |
//! | `shared` | the exchange, which the body of the request and the response use alternately |

pub mod application;

mod body;
mod request;
mod response;
mod shared;
mod task;

pub use application::Application;
pub use body::Body;
pub use request::Connection;
pub use worker_api;
pub use worker_api::AppContext;

/// Any error of a service, of the body of a response or of a constructor.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Exports the service that an `async` function creates as this library's application, with the name and the version of
/// the package. Use it once in a `cdylib`.
///
/// The function receives an [`AppContext`] and returns a `Result` with the service. Its error refuses the worker: the server
/// does not start, and a reload leaves the previous generation in service.
#[macro_export]
macro_rules! export {
    ($create:path) => {
        $crate::worker_api::export_app!(ExportedApplication);

        #[doc(hidden)]
        pub struct ExportedApplication($crate::Application);

        impl $crate::worker_api::AppFactory for ExportedApplication {
            const NAME: &'static str = env!("CARGO_PKG_NAME");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");

            fn new(context: $crate::AppContext) -> $crate::worker_api::Result<Self> {
                Ok(Self($crate::Application::new(context, $create)))
            }
        }

        impl $crate::worker_api::App for ExportedApplication {
            fn requirements(&self) -> $crate::worker_api::Requirements {
                $crate::worker_api::Requirements::DEFERRED
            }

            fn init_worker(
                &self,
                _: $crate::worker_api::Runtime,
            ) -> $crate::worker_api::Result<()> {
                self.0.start()
            }

            fn call(
                &self,
                exchange: &mut $crate::worker_api::Exchange,
            ) -> $crate::worker_api::Result<()> {
                self.0.call(exchange)
            }

            fn shutdown(&self) {
                self.0.stop();
            }
        }
    };
}
