//! Serves WSGI applications with any CPython from 3.9 on, chosen at run time.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`app`] | the application as seen by the host: loading, forking, serving, exiting |
//! | [`library`] | the symbols of the interpreter that this process is |
//! | [`python`] | a small, safe layer over CPython's limited API, and why it is not PyO3's |
//! | [`runtime`], [`server`], [`setup`] | per-process state, its object for Python, and how both are created |
//! | [`serve`], [`body`], [`body_bytes`] | one request: the server side of PEP 3333 |
//! | [`request`], [`input`], [`response`], [`environ`] | its parts: objects, body, response, environ |
//! | [`methods`] | the functions that Python calls on the objects of a request |
//! | [`errors`], [`failure`] | what can end a request, and how it ends then |
//! | [`faults`] | Python tracebacks of processes that are aborted |
//! | [`process`], [`drain`] | signal handlers, forks and draining, as seen by the application |
//! | [`guest`] | requests in greenlets of gevent or eventlet |
//! | [`jimu`], `jimu.py` | what is simpler in Python: importing, hooks, logging, tracebacks |
//!
//! # Invariants
//!
//! - The library refers to no symbol of CPython: it loads in every process, and reports what is missing.
//! - The interpreter's lock is never held while waiting.
//! - The library installs no signal handlers except that of [`faults`]; the application's handlers are chained
//!   after the host's.
//! - Python is never finalized in a worker: its threads and `atexit` functions are ended, then the process exits.
//! - The state of the process is passed on: a native function gets it from the object that it is bound to. Global are
//!   only what a signal handler uses ([`faults`]) and the table of CPython's functions ([`python`]).
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
