//! The runtime of a worker and the service that it serves.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::runtime::{Builder, Handle, Runtime};
use tower_service::Service;
use worker_api::{AppContext, Exchange, Failure, FailureKind, Result};

use crate::request::{self, RequestParts};
use crate::{Body, BoxError, task};

/// An application that serves the service of a constructor: what [`crate::export!`] exports.
pub struct Application {
    create: Create,
    running: OnceLock<Running>,
    runtime: Mutex<Option<Runtime>>,
}

type Create = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Created>>> + Send + Sync>;
type Created = Result<Box<dyn Handler>, BoxError>;

struct Running {
    tasks: Handle,
    handler: Box<dyn Handler>,
}

impl Application {
    /// Keeps the constructor, which [`Application::start`] calls.
    pub fn new<C, F, S, B, E>(context: AppContext, create: C) -> Self
    where
        C: Fn(AppContext) -> F + Send + Sync + 'static,
        F: Future<Output = Result<S, E>> + 'static,
        E: Into<BoxError>,
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let create = move || {
            let created = create(context.clone());
            let erased = async move {
                let service = created.await.map_err(Into::into)?;
                Ok(Box::new(Served(service)) as Box<dyn Handler>)
            };
            Box::pin(erased) as Pin<Box<dyn Future<Output = Created>>>
        };
        Self { create: Box::new(create), running: OnceLock::new(), runtime: Mutex::new(None) }
    }

    /// Starts the runtime and creates the service. Called in a worker.
    ///
    /// # Errors
    /// No thread can be started, or the constructor fails.
    pub fn start(&self) -> Result<()> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("tokio").enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("cannot start tokio", &error))?;
        let handler = runtime.block_on((self.create)()).map_err(|error| {
            Failure::new(FailureKind::LOAD, "the service cannot be created").caused_by(&*error)
        })?;
        self.running.get_or_init(|| Running { tasks: runtime.handle().clone(), handler });
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        Ok(())
    }

    /// Starts a task that serves the request.
    ///
    /// # Errors
    /// The worker has not been started, or the request cannot be expressed in the types of the crate `http`.
    pub fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let running = self.running.get();
        let running = running.ok_or_else(|| Failure::application("tokio was not started"))?;
        let parts = request::parts(exchange.head())?;
        running.handler.handle(&running.tasks, parts, exchange.detach());
        Ok(())
    }

    /// Stops the runtime. Called in a worker that exits, after its last request.
    pub fn stop(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(SHUTDOWN_MAX);
        }
    }
}

/// A service whose type is erased where requests begin, so that nothing is erased within them.
trait Handler: Send + Sync {
    /// Starts a task that serves the request.
    fn handle(&self, tasks: &Handle, parts: RequestParts, exchange: Exchange);
}

struct Served<S>(S);

impl<S, B> Handler for Served<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn handle(&self, tasks: &Handle, parts: RequestParts, exchange: Exchange) {
        tasks.spawn(task::serve(self.0.clone(), parts, exchange));
    }
}

/// A worker is one process of several: more threads would compete with those of the others.
const THREADS: usize = 1;
/// Time that blocking work which a request has left behind may take at the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);
