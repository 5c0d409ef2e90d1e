//! A small, safe layer over CPython's limited API.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`api`] | the table of libpython's functions |
//! | [`mod@attach`] | who holds the interpreter: [`Python`], [`fn@attach`], [`Python::detach`], the fork |
//! | [`object`] | references: [`Object`] while attached, [`Stored`] beyond |
//! | [`raised`] | the error that is set in this thread: [`Raised`] |
//! | [`value`] | text, octets, numbers, dicts, lists, calls |
//! | [`native`] | functions and types of ours that Python can call |
//!
//! # Why not PyO3 itself
//!
//! The host opens every plugin with `RTLD_NOW`, before anybody knows which libpython there will be. PyO3 refers to
//! libpython's functions *and objects* (`PyBaseObject_Type`, `PyExc_TypeError`, …) by symbol; references to objects
//! are resolved when a library is opened even under `RTLD_LAZY`, so a library with them cannot be opened first and find
//! its interpreter afterwards. The ways out were two files (or one inside the other), or a table filled by `dlsym`. The
//! table makes one file that a user can copy about, gives an error of ours where no Python is, and lets one build
//! use what the chosen version has although the limited API of 3.9 has not (vectorcall). `pyo3-ffi` gives the
//! declarations and checks the table's signatures. Measured: a library that refers to `PyBool_Type` fails to open
//! under `RTLD_LAZY` as under `RTLD_NOW`; this one has no undefined symbol of Python's, and opens under both.
//!
//! # Invariants
//!
//! - Who has a [`Python`] is attached: it holds the interpreter's lock, on this thread, for the token's lifetime.
//! - A null result with an error set becomes [`Raised`]; nobody swallows it without saying so.
//! - No Rust panic enters CPython: [`native`] catches it.

mod api;
mod attach;
mod native;
mod object;
mod raised;
mod value;

pub(crate) use api::SetProgramName;
pub(crate) use attach::{Python, after_fork, attach, before_fork, initialize, is_attached};
pub(crate) use native::{
    Arguments, Cell, Definition, Entry, Function, Native, NativeType, enter, required,
};
pub(crate) use object::{Object, Stored};
pub(crate) use raised::{Exception, PyResult, Raised};
