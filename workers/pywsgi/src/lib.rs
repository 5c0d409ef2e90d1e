//! The pywsgi worker class: gevent's stream server with the response style of gevent's own WSGI handler: the headers that
//! it adds to a response, its error pages, and its access log. docs/pywsgi.md lists the differences.
//!
//! | module | contents |
//! | --- | --- |
//! | `lib` | the class: its server and its handler |
//! | `style` | the headers and error pages that the server generates |
//!
//! Like every class, it uses the parser of `jimu-http1`, which is stricter than gevent's.

#![forbid(unsafe_code)]

mod style;

use jimu_green_kit::stream_server::{GeventWorker, Handler, ServerClass};
use jimu_http1::ResponseStyle;

/// The class `pywsgi`.
pub struct Pywsgi;

impl ServerClass for Pywsgi {
    const NAME: &'static str = "pywsgi";
    const DESCRIPTION: &'static str =
        "gevent's server, with the responses and log format of gevent.pywsgi";

    type Handler = PyWsgiHandler;
}

/// gevent's `WSGIHandler`, except for the WSGI part, which is the application plugin's.
pub struct PyWsgiHandler;

impl Handler for PyWsgiHandler {
    const STYLE: ResponseStyle = style::STYLE;
    const LOG_FORMAT: &'static str = style::LOG_FORMAT;
}

worker_api::export_worker_class!(GeventWorker<Pywsgi>);
