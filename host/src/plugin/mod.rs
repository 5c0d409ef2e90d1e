//! Plugins on the host's side: finding a worker class and an application, opening them, serving
//! them. All of it runs in molds and workers; the arbiter uses nothing of this module.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`search`] | from what the operator wrote to the path of a library |
//! | [`elf`] | whether a file can be a library of this machine at all |
//! | [`copy`] | the private copy from which a library is loaded |
//! | [`private`] | the libraries that a plugin brings along |
//! | [`dynamic`] | which libraries a library needs, and replacing their names in a copy |
//! | `resident` | which libraries the host itself has loaded |
//! | [`names`] | the path under which debuggers find a library |
//! | [`build_id`] | which build a library is |
//! | [`load`] | opening a library and checking that it fits |
//! | [`error`] | why a library is refused, in one line |
//! | [`payload`] | a worker class and an application, from their opening to a worker's exit status |
//! | [`services`] | the host as plugins see it |
//! | `files` | which files a worker is made of, for `reload` |
//! | `request` | what is noted of each request |
//!
//! **Invariants:** a library is never unloaded; a library whose layout was not checked is never
//! called.

pub mod build_id;
pub mod copy;
pub mod dynamic;
pub mod elf;
pub mod error;
mod files;
pub mod load;
pub mod names;
pub mod payload;
pub mod private;
mod request;
mod resident;
pub mod search;
pub mod services;

pub use error::LoadError;
pub use payload::Plugins;
