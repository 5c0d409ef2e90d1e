//! The stable ABI between Jimu's host and the shared libraries that it loads: worker classes, applications and hook
//! plugins.
//!
//! A library depends on this crate, implements one trait, and exports the type with one macro. The host verifies the
//! layout of every type that crosses the boundary before it runs any code of the library, so a library and a host may be
//! built at different times, with different compilers and profiles.
//!
//! | to write | implement | export with |
//! | --- | --- | --- |
//! | an application, which responds to requests | [`App`] and [`AppFactory`] | [`export_app!`] |
//! | a worker class, which accepts connections, waits, and calls the application | [`Worker`] and [`WorkerFactory`] | [`export_worker_class!`] |
//! | a plugin that runs on server events | [`Hooks`] and [`HooksFactory`] | [`export_hooks!`] |
//!
//! # Example
//!
//! A complete application. Compile it as a `cdylib`, and pass the path of the library to `host`:
//!
//! ```
//! use worker_api::{App, AppContext, AppFactory, Exchange, Header, Result};
//!
//! worker_api::export_app!(Greeting);
//!
//! pub struct Greeting;
//!
//! impl AppFactory for Greeting {
//!     const NAME: &'static str = "greeting";
//!     const VERSION: &'static str = "1.0.0";
//!
//!     fn new(_: AppContext) -> Result<Self> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl App for Greeting {
//!     fn call(&self, exchange: &mut Exchange) -> Result<()> {
//!         let text = format!("You asked for {}\n", exchange.head().path_str());
//!         exchange.respond(200, &[Header::new("Content-Type", "text/plain")], text.as_bytes())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! The skeleton of a worker class. A class accepts connections from [`Host::listeners`], makes an exchange of each request,
//! and passes it to the application; the crate `jimu-kit` has all of HTTP for it:
//!
//! ```
//! use worker_api::{AppHandle, Host, Result, Worker, WorkerContext, WorkerFactory};
//!
//! worker_api::export_worker_class!(Skeleton);
//!
//! pub struct Skeleton {
//!     host: Host,
//!     app: AppHandle,
//! }
//!
//! impl WorkerFactory for Skeleton {
//!     const NAME: &'static str = "skeleton";
//!     const VERSION: &'static str = "1.0.0";
//!     const DESCRIPTION: &'static str = "accepts nothing";
//!
//!     fn new(context: WorkerContext) -> Result<Self> {
//!         Ok(Self { host: context.host, app: context.app })
//!     }
//! }
//!
//! impl Worker for Skeleton {
//!     fn run(&self) -> Result<()> {
//!         // The first heartbeat reports the worker as ready.
//!         while self.host.alive() {
//!             self.host.notify();
//!             // Wait, for at most a second, for the listeners and `wake_descriptor`. Accept, parse, and call
//!             // `self.app.call(exchange)`.
//!             self.host.deliver_signals();
//!         }
//!         self.app.drain();
//!         self.host.close_listeners();
//!         self.app.shutdown();
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! `tests/bare_class.rs` in this crate's package is a complete class without the kit.
//!
//! The guides in the repository's `docs` directory, `applications.md` and `worker-classes.md`, list the calls in their
//! order and what each of them may do.
//!
//! # Map
//!
//! | items | what they are | implemented by |
//! | --- | --- | --- |
//! | [`App`], [`AppFactory`], [`AppContext`], [`Requirements`] | an application, its constructor, and what it requires of a class | application |
//! | [`AppHandle`] | an application as a worker class calls it | this crate |
//! | [`Worker`], [`WorkerFactory`], [`WorkerContext`], [`Capabilities`] | a worker, its constructor, and what the class supports | worker class |
//! | [`Hooks`], [`HooksFactory`] | a hook plugin | hook plugin |
//! | [`Host`], [`Listener`], [`Counter`] | settings, listeners, heartbeat, log, counters | host |
//! | [`Tls`], [`TlsSession`] | the bytes of a connection over TLS | host |
//! | [`Exchange`], [`HijackedStream`] | one request and its response | worker class |
//! | [`RequestHead`], [`Header`], [`Address`], [`Version`], [`TlsFacts`] | the head of a request, borrowed from the connection | worker class |
//! | [`Runtime`] | sleep, wait for a descriptor, connect, resolve names, spawn, run blocking work | worker class |
//! | [`Engine`], [`Waker`], [`Interest`], [`Step`] | operations that complete later, and the interface to an application's own event loop | worker class |
//! | [`Failure`], [`FailureKind`], [`Result`] | errors that cross the boundary | this crate |
//! | [`fork`] | detects children that an application forks in a worker | this crate |
//! | [`guard`], [`log`], [`stack`] | panics and log lines on their way out of a library | this crate |
//! | [`OwnedHead`] | a head with what it borrows from, for classes that implement [`raw::RawExchange`] | this crate |
//! | `testing` | doubles of host, exchange, engine and runtime, with the feature `testing` | this crate |
//! | [`raw`] | the traits in the form that `abi_stable` verifies; for adapters and test doubles | both sides |
//! | [`WorkerClass`], [`AppModule`], [`HooksModule`] | the root modules that the macros export | this crate |
//!
//! # Compatibility
//!
//! The version of this crate is the version of the ABI. A host loads libraries of the same major version, older and newer,
//! after comparing the layouts both ways. A minor version adds fields at the end of a root module, methods with a default
//! at the end of a trait, and constants; it changes nothing that exists. A major version may change anything.
//!
//! | version | added |
//! | --- | --- |
//! | 1.0 | everything else |
//! | 1.1 | [`Host::tls`], [`Runtime::connect`], [`Runtime::resolve`], [`OwnedHead`], the feature `testing` |
//!
//! # Invariants
//!
//! - This crate does no I/O, except in `testing`.
//! - No panic crosses the boundary: the export macros catch panics on the side on which they happen.
//! - A library is never unloaded.
//! - Every library uses the `abi_stable` that this crate re-exports as [`abi`], so that all sides have the same one.

pub use abi_stable as abi;

mod app;
mod choices;
mod engine;
mod exchange;
mod failure;
pub mod fork;
pub mod guard;
mod head;
mod hooks;
mod host;
pub mod log;
mod owned_head;
pub mod raw;
mod root;
mod runtime;
pub mod stack;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod waker;
mod worker;

pub use app::{App, AppContext, AppFactory, AppHandle, Requirements};
pub use choices::{Choice, ClientCertificate, HeaderMap, ProxyProtocol, TlsVersion};
pub use engine::Engine;
pub use exchange::{Exchange, HijackedStream};
pub use failure::{Failure, FailureKind, Result};
pub use head::{AccessRecord, Address, Header, RequestHead, TlsFacts, Version};
pub use hooks::{Hooks, HooksFactory};
pub use host::{Host, LogLevel};
pub use owned_head::OwnedHead;
pub use raw::{Counter, Interest, Listener, PRIVATE, Step, Value};
pub use root::{
    __app_module, __hooks_module, __worker_class, API_VERSION, AppModule, AppModuleRef,
    HooksModule, HooksModuleRef, RawAppContext, WorkerClass, WorkerClassRef,
};
pub use runtime::Runtime;
pub use tls::{PlainHttp, Tls, TlsSession};
pub use waker::Waker;
pub use worker::{Capabilities, Worker, WorkerContext, WorkerFactory};

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
