//! The gevent worker class: a stream server for each listener, which accepts several connections in a turn of the hub and
//! pauses while the pool is full.
//!
//! It follows gunicorn's gevent worker, with two differences: an idle connection occupies no greenlet, and a worker that
//! stops serves the connections in the backlog that no other worker would serve.
//!
//! [`jimu_green_kit::stream_server`] implements the class, and pywsgi too. This crate defines its name and its handler.

#![forbid(unsafe_code)]

use jimu_green_kit::stream_server::{GeventWorker, Plain, ServerClass};

/// The class `gevent`.
pub struct Gevent;

impl ServerClass for Gevent {
    const NAME: &'static str = "gevent";
    const DESCRIPTION: &'static str = "a stream server for each listener, and a pool of greenlets";

    type Handler = Plain;
}

worker_api::export_worker_class!(GeventWorker<Gevent>);
