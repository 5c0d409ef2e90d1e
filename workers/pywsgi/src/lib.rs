//! The pywsgi worker class: gevent's stream server with the manners of gevent's own WSGI handler: which fields it
//! adds to an answer, how it says that something failed, what it logs. docs/pywsgi.md lists what is different.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the class: its server and its handler |
//! | `style` | the server's own words: fields, error answers |
//!
//! Its parser is the kit's, as every class's: none of gevent's laxness is here.

#![forbid(unsafe_code)]

mod style;

use green_kit::stream_server::{GeventWorker, Handler, ServerClass};
use http1::ResponseStyle;

/// The class `pywsgi`.
pub struct Pywsgi;

impl ServerClass for Pywsgi {
    const NAME: &'static str = "pywsgi";
    const DESCRIPTION: &'static str = "gevent's server, with the manners of its WSGI handler";

    type Handler = PyWsgiHandler;
}

/// gevent's `WSGIHandler`, as far as it is not the application's.
pub struct PyWsgiHandler;

impl Handler for PyWsgiHandler {
    const STYLE: ResponseStyle = style::STYLE;
    const LOG_FORMAT: &'static str = style::LOG_FORMAT;
}

worker_api::export_worker_class!(GeventWorker<Pywsgi>);
