//! An application: what a native `.so` implements, and what a worker class calls.
//!
//! An application is written as an [`App`] and exported with [`crate::export_app!`]. A worker class sees it as an
//! [`AppHandle`].

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

/// What an application needs from a worker class, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs(pub u64);

impl Needs {
    /// Nothing but to be called.
    pub const NOTHING: Self = Self(0);
    /// It keeps exchanges and finishes them later: a class that cannot wait for that refuses it at boot.
    pub const LATER: Self = Self(1);
    /// It brings its own loop: the class calls [`App::run_loop`] instead of running its own.
    pub const LOOP: Self = Self(2);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What an application is made with.
#[derive(Clone, Debug)]
pub struct AppContext {
    /// The host's services.
    pub host: Host,
    /// The application as the operator named it: `myproject.wsgi:application`, or the path of this library.
    pub spec: String,
    /// The name of the worker class that will serve it.
    pub class: String,
    /// The guest loop that this class is made for (`gevent`, `eventlet`); empty where an application that can bring
    /// one should not.
    pub guest_loop: String,
}

/// An application. All methods but [`App::call`] have defaults.
///
/// Order of calls: `new` (of [`AppFactory`]) in the mold; `load` in the mold with `preload_app`, else in each worker;
/// `before_fork` and `after_fork` around each fork; then in a worker `load` (if not preloaded), `init_worker`, `call`
/// for each request or `run_loop` once, and `shutdown` at the end.
pub trait App: Send + Sync + 'static {
    /// What it needs from a class. Asked after `new`, before anything else.
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    /// Loads what is slow or can fail; in the mold with `preload_app`, else in each worker before `init_worker`.
    fn load(&self) -> Result<()> {
        Ok(())
    }

    /// Called in the mold, on its only thread, before it forks a worker.
    fn before_fork(&self) {}

    /// Called after the fork, in the mold and in the child.
    fn after_fork(&self, in_child: bool) {
        let _ = in_child;
    }

    /// Called in a worker before its first request, on its main thread.
    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        let _ = runtime;
        Ok(())
    }

    /// Serves one request. Called in a worker; by several threads at once under a class with threads, in a greenlet
    /// under a cooperative class.
    ///
    /// An exchange that is open when this returns is finished; with an error, or a panic, it is failed: answered with
    /// the failure's status or 500 while nothing is on the wire, and cut otherwise.
    fn call(&self, exchange: &mut Exchange) -> Result<()>;

    /// Runs its own loop around the engine until that has stopped: for [`Needs::LOOP`]. On the main thread.
    fn run_loop(&self, engine: Engine) -> Result<()> {
        let _ = engine;
        Err(Failure::unsupported("this application brings no loop of its own"))
    }

    /// A server hook by its gunicorn name (`post_fork`, `worker_exit`, …) with numbers that describe it (process ids,
    /// counts). Of the arbiter's events those that concern the generation, in the mold; of a worker's, there.
    fn hook(&self, event: &str, facts: &[i64]) -> Result<()> {
        let _ = (event, facts);
        Ok(())
    }

    /// What each request is doing now, for the log, when one ran over its time: a traceback for example. May be
    /// called while other threads serve.
    fn trace(&self) -> String {
        String::new()
    }

    /// The files whose change means that the application has changed: for `--reload`.
    fn files(&self) -> Vec<String> {
        Vec::new()
    }

    /// Called in a worker at a graceful end, after the last request.
    fn shutdown(&self) {}

    /// TERM came: the worker accepts no more and ends once its requests are over, the tasks that the application has
    /// spawned have ended, and the connections that it has taken over are closed, after `graceful_timeout` at the latest.
    /// Called once, on the main thread. Must not block.
    fn drain(&self) {}

    /// The stack size of threads that call the application, in bytes; 0 for the class's default. Asked after
    /// `init_worker`.
    fn stack_size(&self) -> usize {
        0
    }

    /// Runs the handlers of signals that have come, where the application's runtime runs them later than the system
    /// does. Called in a worker, on its main thread, after a byte was written to [`Host::signal_descriptor`].
    fn run_signal_handlers(&self) {}
}

/// Makes an application: the type that [`crate::export_app!`] takes.
pub trait AppFactory: App + Sized {
    /// The application's name, for the log and `hostctl status`.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;

    /// Makes it, in the mold before it forks: quick, and without threads.
    fn new(context: AppContext) -> Result<Self>;
}

/// An application as a worker class sees it. Cheap to clone; its calls may come from any thread.
#[derive(Clone)]
pub struct AppHandle(Arc<AppBox>);

impl AppHandle {
    /// Wraps what came over the boundary.
    pub fn from_raw(raw: AppBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Wraps an application of this library: for tests and static linking.
    pub fn from_app(app: impl App) -> Self {
        Self::from_raw(to_raw(app))
    }

    /// See [`App::needs`].
    pub fn needs(&self) -> Needs {
        Needs(self.0.needs())
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

    /// See [`App::call`]. When this returns, the exchange is finished, failed, taken over or kept.
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
}

impl std::fmt::Debug for AppHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppHandle")
    }
}

pub(crate) fn to_raw(app: impl App) -> AppBox {
    RawApp_TO::from_value(Guarded(app), TD_Opaque)
}

/// An application whose panics become failures.
struct Guarded<A>(A);

impl<A: App> RawApp for Guarded<A> {
    fn needs(&self) -> u64 {
        catch("App::needs", || self.0.needs().0).unwrap_or_default()
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
}
