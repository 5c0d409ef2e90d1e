//! Applications: the trait that a native `.so` implements, and the handle through which a worker class calls it.
//!
//! Implement [`App`] and export it with [`crate::export_app!`]. A worker class receives an [`AppHandle`].

use std::sync::Arc;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice, RStr, RString, RVec};

use crate::engine::Engine;
use crate::exchange::Exchange;
use crate::failure::{Failure, Result};
use crate::guard::{catch, catch_flat};
use crate::host::Host;
use crate::raw::{AppBox, EngineBox, ExchangeBox, RawApp, RawApp_TO, RuntimeBox};
use crate::runtime::Runtime;

/// Bit set of the features that an application requires of the worker class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requirements(pub u64);

impl Requirements {
    /// No requirements beyond [`App::call`].
    pub const NONE: Self = Self(0);
    /// The application detaches exchanges and finishes them after [`App::call`] has returned. A class that does not
    /// support this refuses the application at boot.
    pub const DEFERRED: Self = Self(1);
    /// The application brings its own event loop: the class calls [`App::run_loop`] instead of running its own loop.
    pub const LOOP: Self = Self(2);

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Requirements {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Arguments of [`AppFactory::new`].
#[derive(Clone, Debug)]
pub struct AppContext {
    /// Services of the host.
    pub host: Host,
    /// Application as named on the command line: `myproject.wsgi:application`, or the path of this library.
    pub spec: String,
    /// Name of the worker class that serves it.
    pub class: String,
    /// Guest loop that the class is made for (`gevent`, `eventlet`). Empty if the application must not bring a loop.
    pub guest_loop: String,
}

/// An application. All methods except [`App::call`] have defaults.
///
/// Order of calls: `new` (of [`AppFactory`]) in the mold; `load` in the mold with `preload_app`, otherwise in each
/// worker; `before_fork` and `after_fork` around each fork; then in each worker `load` (unless preloaded),
/// `init_worker`, `call` for each request or `run_loop` once, and `shutdown` at the end.
pub trait App: Send + Sync + 'static {
    /// Returns the features that the application requires of the class. Called after `new`, before any other method.
    fn requirements(&self) -> Requirements {
        Requirements::NONE
    }

    /// Loads the application: everything that is slow or can fail. Called in the mold with `preload_app`, otherwise in
    /// each worker before `init_worker`.
    fn load(&self) -> Result<()> {
        Ok(())
    }

    /// Called in the mold, on its main thread, before each fork of a worker.
    fn before_fork(&self) {}

    /// Called after each fork, in the mold and in the child.
    fn after_fork(&self, in_child: bool) {
        let _ = in_child;
    }

    /// Called in a worker before its first request, on its main thread.
    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        let _ = runtime;
        Ok(())
    }

    /// Serves one request. Called in a worker: on several threads at once under a class with threads, in a greenlet
    /// under a cooperative class.
    ///
    /// If the exchange is still open when this returns `Ok`, it is finished. If this returns an error or panics, the
    /// exchange fails: the client receives the failure's status (500 by default) if no part of the response has been
    /// sent, otherwise the connection is closed.
    fn call(&self, exchange: &mut Exchange) -> Result<()>;

    /// Runs the application's own loop around the engine until [`Engine::stopped`]. Called once, on the worker's main
    /// thread, if [`App::requirements`] contains [`Requirements::LOOP`].
    fn run_loop(&self, engine: Engine) -> Result<()> {
        let _ = engine;
        Err(Failure::unsupported("this application has no event loop"))
    }

    /// Runs a server hook, given by its gunicorn name (`post_fork`, `worker_exit`, …), with numbers that describe the
    /// event (process IDs, counts). Events of the arbiter that concern this generation are delivered in the mold, events
    /// of a worker in that worker.
    fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        let _ = (event, facts);
        Ok(())
    }

    /// Describes what each request is doing, a traceback for example. Logged when a request exceeds `request_timeout`.
    /// May be called while other threads serve requests.
    fn trace(&self) -> String {
        String::new()
    }

    /// Returns the files to watch for changes with `--reload`.
    fn files(&self) -> Vec<String> {
        Vec::new()
    }

    /// Called in a worker that exits gracefully, after its last request.
    fn shutdown(&self) {}

    /// Called once when the worker begins to drain (after TERM), on the main thread. Must not block.
    ///
    /// The worker no longer accepts connections. It exits when its requests are finished, the tasks that the application
    /// spawned have ended, and the connections that the application took over are closed, or when `graceful_timeout`
    /// has passed.
    fn drain(&self) {}

    /// Returns the stack size in bytes of the threads that call the application; 0 selects the class's default. Called
    /// after `init_worker`.
    fn stack_size(&self) -> usize {
        0
    }

    /// Runs pending signal handlers, for a runtime that defers them (CPython does). Called in a worker, on its main
    /// thread, after a byte was written to [`Host::signal_descriptor`].
    fn run_signal_handlers(&self) {}

    /// Runs what the application started while it was loaded, such as an event loop with timers, until the descriptor
    /// is readable. Called in the mold, on its main thread, before it reads each message from the descriptor. May return
    /// at any time: the mold then waits for the message itself.
    fn wait_in_mold(&self, descriptor: i32) {
        let _ = descriptor;
    }
}

/// Constructor and identity of an application: the type that [`crate::export_app!`] takes.
pub trait AppFactory: App + Sized {
    /// Name of the application, for the log and `hostctl status`.
    const NAME: &'static str;
    /// Version of the application.
    const VERSION: &'static str;

    /// Creates the application, in the mold before it forks. Must be quick and must not start threads.
    fn new(context: AppContext) -> Result<Self>;
}

/// An application as seen by a worker class. Cheap to clone; callable from any thread.
#[derive(Clone)]
pub struct AppHandle(Arc<AppBox>);

impl AppHandle {
    /// Wraps the object that was passed across the boundary.
    pub fn from_raw(raw: AppBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Wraps an application of this library, for tests and static linking.
    pub fn from_app(app: impl App) -> Self {
        Self::from_raw(to_raw(app))
    }

    /// See [`App::requirements`].
    pub fn requirements(&self) -> Requirements {
        Requirements(self.0.requirements())
    }

    /// See [`App::load`].
    pub fn load(&self) -> Result<()> {
        self.0.load().into_result()
    }

    /// See [`App::before_fork`].
    pub fn before_fork(&self) {
        self.0.before_fork();
    }

    /// See [`App::after_fork`].
    pub fn after_fork(&self, in_child: bool) {
        self.0.after_fork(in_child);
    }

    /// See [`App::init_worker`].
    pub fn init_worker(&self, runtime: RuntimeBox) -> Result<()> {
        self.0.init_worker(runtime).into_result()
    }

    /// See [`App::call`]. When this returns, the exchange is finished, failed, hijacked or detached.
    pub fn call(&self, exchange: ExchangeBox) {
        self.0.call(exchange);
    }

    /// See [`App::run_loop`].
    pub fn run_loop(&self, engine: EngineBox) -> Result<()> {
        self.0.run_loop(engine).into_result()
    }

    /// See [`App::hook`].
    pub fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        self.0.hook(RStr::from_str(event), RSlice::from_slice(facts)).into_result()
    }

    /// See [`App::trace`].
    pub fn trace(&self) -> String {
        self.0.trace().into_string()
    }

    /// See [`App::files`].
    pub fn files(&self) -> Vec<String> {
        self.0.files().into_iter().map(Into::into).collect()
    }

    /// See [`App::shutdown`].
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// See [`App::drain`].
    pub fn drain(&self) {
        self.0.drain();
    }

    /// See [`App::stack_size`].
    pub fn stack_size(&self) -> usize {
        usize::try_from(self.0.stack_size()).unwrap_or_default()
    }

    /// See [`App::run_signal_handlers`].
    pub fn run_signal_handlers(&self) {
        self.0.run_signal_handlers();
    }

    /// See [`App::wait_in_mold`].
    pub fn wait_in_mold(&self, descriptor: i32) {
        self.0.wait_in_mold(descriptor);
    }
}

impl std::fmt::Debug for AppHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppHandle")
    }
}

pub(crate) fn to_raw(app: impl App) -> AppBox {
    RawApp_TO::from_value(Guarded(app), TD_Opaque)
}

/// Converts panics of an application into failures.
struct Guarded<A>(A);

impl<A: App> RawApp for Guarded<A> {
    fn requirements(&self) -> u64 {
        catch("App::requirements", || self.0.requirements().0).unwrap_or_default()
    }

    fn load(&self) -> RResult<(), Failure> {
        catch_flat("the application's load", || self.0.load()).into()
    }

    fn before_fork(&self) {
        let _ = catch("App::before_fork", || self.0.before_fork());
    }

    fn after_fork(&self, in_child: bool) {
        let _ = catch("App::after_fork", || self.0.after_fork(in_child));
    }

    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure> {
        let runtime = Runtime::from_raw(runtime);
        catch_flat("the application's init_worker", || self.0.init_worker(runtime)).into()
    }

    fn call(&self, exchange: ExchangeBox) {
        let mut exchange = Exchange::from_raw(exchange);
        let outcome = catch_flat("the application", || self.0.call(&mut exchange));
        exchange.close(outcome);
    }

    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure> {
        let engine = Engine::from_raw(engine);
        catch_flat("the application's loop", || self.0.run_loop(engine)).into()
    }

    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        catch_flat("a hook", || self.0.hook(event.as_str(), facts.as_slice())).into()
    }

    fn trace(&self) -> RString {
        catch("App::trace", || self.0.trace()).unwrap_or_default().into()
    }

    fn files(&self) -> RVec<RString> {
        let files = catch("App::files", || self.0.files()).unwrap_or_default();
        files.into_iter().map(RString::from).collect()
    }

    fn shutdown(&self) {
        let _ = catch("App::shutdown", || self.0.shutdown());
    }

    fn drain(&self) {
        let _ = catch("App::drain", || self.0.drain());
    }

    fn stack_size(&self) -> u64 {
        catch("App::stack_size", || self.0.stack_size() as u64).unwrap_or_default()
    }

    fn run_signal_handlers(&self) {
        let _ = catch("App::run_signal_handlers", || self.0.run_signal_handlers());
    }

    fn wait_in_mold(&self, descriptor: i32) {
        let _ = catch("App::wait_in_mold", || self.0.wait_in_mold(descriptor));
    }
}
