//! A worker like gevent's: a stream server for each listener accepts in a callback of the hub, and pauses while the pool
//! is full. A class can replace the handler.
//!
//! | module | contents |
//! | --- | --- |
//! | `class` | [`ServerClass`]: the definition of a class of this kind; [`GeventWorker`]: its worker |
//! | `server` | [`StreamServer`]: accepts, pauses and stops |
//! | `handler` | [`Handler`]: how a request is served |
//! | `pool` | the pool of greenlets, and the limit of connections |
//!
//! It is here and not in the class `gevent` because pywsgi uses it too, and one worker class cannot depend on another: each
//! exports the same symbol.

#![forbid(unsafe_code)]

mod class;
mod handler;
mod pool;
mod server;

pub use class::{GeventWorker, ServerClass};
pub use handler::{Handler, Plain};
pub use pool::Greenlets;
pub use server::StreamServer;
