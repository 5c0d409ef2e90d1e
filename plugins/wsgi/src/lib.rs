//! Serves WSGI applications with any CPython from 3.9 on, chosen at run time.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`app`] | the application as the host sees it: loading, forking, serving, ending |
//! | [`interpreter`], [`library`] | which Python, and its libpython |
//! | [`python`] | a small, safe layer over CPython's limited API, and why it is not PyO3's |
//! | [`bridge`] | what there is once in a process |
//! | [`serve`] | one request: the server side of PEP 3333 |
//! | [`request`], [`input`], [`response`], [`environ`] | its parts: what the application holds, reads, says, is told |
//! | [`errors`] | what can end a request |
//! | [`faults`] | what Python was doing when its process came to a violent end |
//! | [`process`] | signal handlers and forks of the application |
//! | [`guest`] | requests in greenlets of the real gevent or eventlet |
//! | `jimu.py` | what is easier said in Python: importing, hooks, logging, tracebacks |
//! | `question.py` | what an interpreter is asked about itself |
//!
//! # Invariants
//!
//! - The library refers to no symbol of libpython: it loads where there is no Python, and says then what is missing.
//! - The interpreter is never held while something is waited for.
//! - No signal handler is installed but those of [`faults`]; the application's stand behind the host's. Python is never finalized in a worker: its threads and `atexit` functions are
//!   ended, and the process is.
//! - What an application does wrong ends its request, with a traceback in the log.

mod app;
mod bridge;
mod drain;
mod environ;
mod errors;
mod faults;
mod guest;
mod input;
mod interpreter;
mod library;
mod logged;
mod process;
mod python;
mod request;
mod response;
mod serve;

pub use app::Wsgi;

worker_api::export_app!(Wsgi);
