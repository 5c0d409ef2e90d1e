//! The stable ABI between Jimu's host, its worker classes and its applications — and nothing else: it does no I/O.
//!
//! | module | what crosses the boundary | who implements it |
//! | --- | --- | --- |
//! | [`root`](crate::WorkerClass) | the root modules [`WorkerClass`], [`AppModule`] and [`HooksModule`], the export macros | a `.so` |
//! | [`worker`](crate::Worker) | how a process accepts, waits and calls | a worker class |
//! | [`app`](crate::App) | what answers requests | an application |
//! | [`hooks`](crate::Hooks) | what hears of the server's life | a hook plugin |
//! | [`exchange`](crate::Exchange), [`head`](crate::RequestHead) | one request and its response | a worker class |
//! | [`host`](crate::Host) | settings, listeners, heartbeat, log, counters | the host |
//! | [`runtime`](crate::Runtime) | waiting in the class's way | a worker class |
//! | [`engine`](crate::Engine), [`waker`](crate::Waker) | the seam for applications with a loop of their own | a worker class |
//! | [`failure`](crate::Failure), [`guard`], [`log`] | failures; panics and log lines on their way out | this crate |
//! | [`fork`] | forks that an application makes in a worker | this crate |
//! | [`raw`] | the same traits as `abi_stable` checks them | |
//!
//! # How it evolves
//!
//! The version line of this crate is the ABI's, 1.x. A minor version adds: fields after the last of a root module,
//! methods with a default after the last of a trait, constants. The host accepts libraries of the same major version,
//! older and newer, after checking the layout both ways. A major version may change anything.
//!
//! | version | what was added |
//! | --- | --- |
//! | 1.0 | everything |
//! | 1.1 | the hook `worker_abort`, the name of private listeners, the counter of waits, `Exchange::is_proxied`, the stack size of threads, `Host::retire_for`, `App::drain`, `Host::write_log`, `Host::logged_variables`, handlers of signals |
//!
//! # Invariants
//!
//! - No panic crosses the boundary: what the export macros make catches panics on the side where they happen.
//! - A library is never unloaded.
//! - Whoever needs `abi_stable` takes it from here ([`abi`]), so that all sides have the same one.

pub use abi_stable as abi;

mod app;
mod engine;
mod exchange;
mod failure;
pub mod fork;
pub mod guard;
mod head;
mod hooks;
mod host;
pub mod log;
pub mod raw;
mod root;
mod runtime;
mod waker;
mod worker;

pub use app::{App, AppContext, AppFactory, AppHandle, Needs};
pub use engine::Engine;
pub use exchange::{Exchange, HijackedStream};
pub use failure::{Failure, FailureKind, Result};
pub use head::{AccessRecord, Address, Header, RequestHead, TlsFacts, Version};
pub use hooks::{Hooks, HooksFactory};
pub use host::{Host, LogLevel};
pub use raw::{Counter, Interest, Listener, PRIVATE, Step, Value};
pub use root::{
    __app_module, __hooks_module, __worker_class, API_VERSION, AppModule, AppModuleRef,
    HooksModule, HooksModuleRef, RawAppContext, WorkerClass, WorkerClassRef,
};
pub use runtime::Runtime;
pub use waker::Waker;
pub use worker::{Abilities, Worker, WorkerContext, WorkerFactory};
