//! The asgi worker class: asyncio's loop, or uvloop's, drives the worker's engine, and serves each request in a task.
//!
//! Accepting and parsing are those of gevent's class ([`jimu_green_kit::stream_server`]): a stream server for each listener,
//! which pauses while `worker_connections` are open. The loop is the application's: the plugin `asgi` watches the engine's
//! descriptor. An application that brings no loop, such as a shared library, is called in greenlets, as under gevent.

#![forbid(unsafe_code)]

use jimu_green_kit::stream_server::{GeventWorker, Plain, ServerClass};

/// The class `asgi`.
pub struct Asgi;

impl ServerClass for Asgi {
    const NAME: &'static str = "asgi";
    const DESCRIPTION: &'static str = "asyncio, with a task for each request";
    const GUEST_LOOP: &'static str = "asyncio";

    type Handler = Plain;
}

worker_api::export_worker_class!(GeventWorker<Asgi>);
