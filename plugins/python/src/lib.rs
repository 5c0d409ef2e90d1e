//! What the plugins for Python applications, `wsgi` and `asgi`, have in common: a small, safe layer over CPython's limited
//! API, and the process whose interpreter runs the application.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`application`] | the application as seen by the host: importing, forking, hooks, exiting |
//! | [`interpreter`] | per-process state: its object for Python, the module `jimu`, exceptions in the log |
//! | [`fault`] | what can end a request, and the failure that it becomes |
//! | [`faults`] | Python tracebacks of processes that are aborted |
//! | [`process`], [`drain`] | signal handlers, forks and draining, as seen by the application |
//! | [`jimu`], `jimu.py` | what is simpler in Python: importing, hooks, logging, tracebacks |
//! | [`engine`] | the engine of a worker class, driven by a guest loop |
//! | [`server`] | the object that the native functions of modules are bound to |
//! | [`descriptor`] | the application's file descriptors |
//! | [`path`], [`remembered`] | parts of a request: percent escapes, objects that are reused for equal values |
//! | `api`, `library` | the table of CPython's functions, and where they are found |
//! | `attach` | the interpreter's lock: [`Python`], [`fn@attach`], [`attach_in_turn`], [`Python::detach`], the fork |
//! | `object` | references: [`Object`] while attached, [`GlobalRef`] beyond |
//! | `error`, `exception` | the error set in this thread: [`PyErrSet`]; exceptions |
//! | `create` | new values: text, bytes, numbers, containers, modules |
//! | `value` | attributes, calls, and the values of text, bytes and numbers |
//! | `container` | dicts, lists and tuples |
//! | `new_bytes` | `bytes` that are filled after their creation |
//! | `arenas` | the memory that a worker keeps for new objects |
//! | `native`, `natives` | types and methods that Python can use, and those of the server's object |
//!
//! # Why not PyO3 itself
//!
//! The host opens every plugin with `RTLD_NOW`, also to check a file before an interpreter runs. PyO3 refers to CPython's
//! functions *and objects* (`PyBaseObject_Type`, `PyExc_TypeError`, …) by symbol, so a library with it cannot be opened
//! in a process without CPython. With a table that is filled by `dlsym`, a process that is no interpreter is a clear
//! error, and one build can use features of a version that the limited API of 3.9 lacks (vectorcall). `pyo3-ffi`
//! provides the declarations and checks the table's signatures.
//!
//! # Invariants
//!
//! - A library with this crate refers to no symbol of CPython: it loads in every process, and reports what is missing.
//! - A [`Python`] proves that this thread is attached: it holds the interpreter's lock for the token's lifetime.
//! - A null result with an error set becomes [`PyErrSet`], which must be handled explicitly.
//! - No Rust panic enters CPython: `native` catches it.
//! - The interpreter's lock is never held while waiting.
//! - The library installs no signal handlers except that of [`faults`]; the application's handlers are chained
//!   after the host's.
//! - Python is never finalized in a worker: its threads and `atexit` functions are ended, then the process exits.
//! - The state of the process is passed on: a native function gets it from the object that it is bound to. Global are
//!   only what a signal handler uses ([`faults`]) and the table of CPython's functions (`api`).

mod api;
pub mod application;
mod arenas;
mod attach;
pub mod clock;
mod container;
mod create;
pub mod descriptor;
pub mod drain;
pub mod engine;
mod error;
mod exception;
pub mod fault;
pub mod faults;
pub mod interpreter;
pub mod jimu;
mod library;
mod native;
mod natives;
mod new_bytes;
mod object;
pub mod path;
pub mod process;
pub mod remembered;
pub mod server;
mod value;

pub use application::Application;
pub use attach::{Python, adopt, after_fork, attach, attach_in_turn, before_fork, is_attached};
pub use error::{PyErrSet, PyResult};
pub use exception::Exception;
pub use interpreter::Interpreter;
pub use native::{Arguments, Cell, Definition, Entry, Method, Native, NativeType, enter, required};
pub use new_bytes::NewBytes;
pub use object::{Borrowed, GlobalRef, Object};
pub use pyo3_ffi as ffi;
pub use value::Text;
