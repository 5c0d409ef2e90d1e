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
//! The host opens every plugin with `RTLD_NOW`, also to check a file before an interpreter runs. PyO3 refers to CPython's
//! functions *and objects* (`PyBaseObject_Type`, `PyExc_TypeError`, …) by symbol, so a library with it cannot be opened
//! in a process without CPython. With a table that is filled by `dlsym`, a process that is no interpreter is a clear
//! error, and one build can use features of a version that the limited API of 3.9 lacks (vectorcall). `pyo3-ffi`
//! provides the declarations and checks the table's signatures.
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
