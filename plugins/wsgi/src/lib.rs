//! Serves WSGI applications with any CPython from 3.9 on, chosen at run time.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`app`] | the application as seen by the host: loading, forking, serving, exiting |
//! | [`runtime`], [`setup`] | per-process state, and how it is created |
//! | [`serve`], [`body`], [`body_bytes`] | one request: the server side of PEP 3333 |
//! | [`request`], [`input`], [`response`], [`environ`] | its parts: objects, body, response, environ |
//! | [`methods`] | the functions that Python calls on the objects of a request |
//! | [`failure`] | how a request ends that failed |
//! | [`logged`] | variables of the environ in the access log |
//! | [`guest`] | requests in greenlets of gevent or eventlet |
//!
//! What does not depend on the interface is in the crate [`python`]: the layer over CPython's limited API, the interpreter
//! of the process, imports, hooks, signals and tracebacks.
//!
//! # Invariants
//!
//! - The interpreter's lock is never held while waiting.
//! - The state of the process is passed on: a native function gets it from the object that it is bound to.
//! - An error of the application ends its request, with a traceback in the log.

mod app;
mod body;
mod body_bytes;
mod environ;
mod failure;
mod guest;
mod input;
mod logged;
mod methods;
mod request;
mod response;
mod runtime;
mod serve;
mod setup;

pub use app::Wsgi;

worker_api::export_app!(Wsgi);
