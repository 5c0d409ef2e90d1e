//! A small, safe layer over CPython's limited API.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`api`] | the table of CPython's functions |
//! | [`mod@attach`] | the interpreter's lock: [`Python`], [`fn@attach`], [`Python::detach`], the fork |
//! | [`object`] | references: [`Object`] while attached, [`GlobalRef`] beyond |
//! | [`error`], [`exception`] | the error set in this thread: [`PyErrSet`]; exceptions |
//! | [`create`] | new values: text, bytes, numbers, containers, modules |
//! | [`value`] | attributes, calls, and the values of text, bytes and numbers |
//! | [`container`] | dicts, lists and tuples |
//! | [`native`] | types and methods that Python can use |
//!
//! # Why not PyO3 itself
//!
//! The host opens every plugin with `RTLD_NOW`, before it is known which libpython will be used. PyO3 refers to
//! libpython's functions *and objects* (`PyBaseObject_Type`, `PyExc_TypeError`, …) by symbol. References to
//! objects are resolved when a library is opened, even under `RTLD_LAZY`, so a library with them cannot be opened
//! before its interpreter is found. The alternatives were two files (or one inside the other), or a table filled
//! by `dlsym`. With the table, users copy one file, a missing Python is a clear error, and one build can use
//! features of the chosen version that the limited API of 3.9 lacks (vectorcall). `pyo3-ffi` provides the
//! declarations and checks the table's signatures. Measured: a library that refers to `PyBool_Type` fails to open
//! under both `RTLD_LAZY` and `RTLD_NOW`; this one has no undefined Python symbol and opens under both.
//!
//! # Invariants
//!
//! - A [`Python`] proves that this thread is attached: it holds the interpreter's lock for the token's lifetime.
//! - A null result with an error set becomes [`PyErrSet`], which must be handled explicitly.
//! - No Rust panic enters CPython: [`native`] catches it.

mod api;
mod attach;
mod container;
mod create;
mod error;
mod exception;
mod native;
mod object;
mod value;

pub(crate) use attach::{Python, adopt, after_fork, attach, before_fork, is_attached};
pub(crate) use error::{PyErrSet, PyResult};
pub(crate) use exception::Exception;
pub(crate) use native::{
    Arguments, Cell, Definition, Entry, Method, Native, NativeType, enter, required,
};
pub(crate) use object::{GlobalRef, Object};
