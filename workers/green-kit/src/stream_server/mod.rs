//! A worker in the manner of gevent: a stream server for each listener, which an accept watch feeds and a full pool
//! pauses; its handler can be replaced.
//!
//! | module | what it is |
//! | --- | --- |
//! | `class` | [`ServerClass`]: what a class of this kind is made of; [`GeventWorker`]: its worker |
//! | `server` | [`StreamServer`]: accepting by a watch, its pauses, its stop |
//! | `handler` | [`Handler`]: what becomes of a request |
//! | `pool` | the pool of greenlets, and the room for connections |
//!
//! It is a library beside the class `gevent`, and not in it, since a worker class exports a symbol by which it is
//! known: what two classes share is in neither.

#![forbid(unsafe_code)]

mod class;
mod handler;
mod pool;
mod server;

pub use class::{GeventWorker, ServerClass};
pub use handler::{Handler, Plain};
pub use pool::Greenlets;
pub use server::StreamServer;
