//! The host's side of plugins: finds a worker class and an application, opens them and provides services. All of
//! it runs in molds and workers; the arbiter uses nothing of this module.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`search`] | finds the library for the operator's words |
//! | [`elf`] | reads headers, and checks whether a file can be a library of this machine |
//! | [`copy`] | the private copy from which a library is loaded |
//! | [`private`] | the libraries that a plugin brings along |
//! | [`dynamic`] | which libraries a library needs, and replacing their names in a copy |
//! | `resident` | which libraries the host itself has loaded |
//! | [`names`] | the path under which debuggers find a library |
//! | [`build_id`] | identifies the build of a library |
//! | `link` | copies a library and opens the copy |
//! | `exported` | what a library of `jimu.h` exports, read from its file |
//! | [`load`] | opens a library and checks that it is compatible |
//! | [`module`] | what a library exports, by `worker-api` or by `jimu.h` |
//! | `late` | an application that is opened in each worker |
//! | [`kind`] | the kinds of plugins |
//! | [`error`] | why a library is refused, in one line |
//! | [`mod@plugins`] | the life of a worker class and an application, from opening to a worker's exit status |
//! | [`services`] | the host's services for plugins |
//! | `files` | the files that a worker is made of, for `reload` |
//! | `request` | what is recorded of each request |
//!
//! **Invariants:** a library is never unloaded; no code of a library is called before its layout was checked.

pub mod build_id;
pub mod copy;
pub mod dynamic;
pub mod elf;
pub mod error;
mod exported;
mod files;
pub mod kind;
pub mod late;
mod link;
pub mod load;
pub mod module;
pub mod names;
pub mod plugins;
pub mod private;
mod request;
mod resident;
pub mod search;
pub mod services;

pub(crate) use copy::descriptor_path;
pub use copy::{Draft, SealedCopy};
pub use elf::{NotALibrary, check as check_library};
pub use error::{LoadError, unfit_library};
pub use plugins::Plugins;
pub use search::SearchPath;
