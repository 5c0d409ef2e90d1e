//! The command `host` as a library, so that its parts can be tested one by one.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`settings`] | one declaration of all settings: flags, file, help, reference page |
//! | [`log`] | the error log and the access log |
//! | [`plugin`] | worker classes and applications on the host's side of the ABI |
//!
//! **Invariant:** the arbiter loads no plugin and starts no thread; only this crate forks.

pub mod log;
pub mod plugin;
pub mod settings;
