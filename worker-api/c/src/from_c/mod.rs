//! Objects of the other side as objects of `worker-api`.
//!
//! | module | object |
//! | --- | --- |
//! | [`module`] | what a library exports: checks its table, and creates the objects below |
//! | [`table`] | checks one table of functions |
//! | [`app`], [`worker`], [`hooks`] | the plugins |
//! | [`exchange`], [`runtime`] | what a worker class passes to an application |
//! | [`host`], [`tls`] | the host and its TLS, for the kit in a worker class of the other side |
//!
//! **Invariant:** a table is checked before one of its functions is called: the version, the size, and that no required
//! function is missing.

pub mod app;
pub mod exchange;
pub mod hooks;
pub mod host;
pub mod module;
pub mod runtime;
pub mod table;
pub mod tls;
pub mod worker;

/// Collects what the other side writes to a sink.
pub(crate) mod collect {
    use std::ffi::c_void;

    use crate::tables::{Sink, Str};

    /// Passes a sink to `call`; returns the texts written, one for each write.
    pub fn texts(call: impl FnOnce(*const Sink)) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        let to = (&raw mut texts).cast();
        call(&Sink { write: Some(push), to });
        texts
    }

    unsafe extern "C" fn push(to: *mut c_void, text: Str) {
        // SAFETY: `texts` passes a vector that it does not use during the call; jimu.h makes the text valid.
        let (texts, text) = unsafe { (&mut *to.cast::<Vec<String>>(), text.lossy()) };
        texts.push(text);
    }
}
