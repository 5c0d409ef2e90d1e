//! The gevent worker class: a stream server for each listener, whose accept watch takes several connections a turn
//! and is paused while the pool is full. gunicorn's gevent worker, but that an idle connection holds no greenlet,
//! and that nobody who waits to be accepted is lost when it stops.
//!
//! All of it is the library `stream_server`'s, from which pywsgi is made, too; here stand the class's name and its
//! handler.

#![forbid(unsafe_code)]

use green_kit::stream_server::{GeventWorker, Plain, ServerClass};

/// The class `gevent`.
pub struct Gevent;

impl ServerClass for Gevent {
    const NAME: &'static str = "gevent";
    const DESCRIPTION: &'static str = "a stream server for each listener, and a pool of greenlets";

    type Handler = Plain;
}

worker_api::export_worker_class!(GeventWorker<Gevent>);
