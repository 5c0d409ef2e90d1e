//! What becomes of a request: the seam that another class, such as pywsgi, replaces.

use std::rc::Rc;

use crate::Connections;
use http1::ResponseStyle;
use kit::Connection;

/// gevent's `handler_class`: how a class's server serves requests, and in which words it answers by itself.
pub trait Handler: 'static {
    /// The server's own words.
    const STYLE: ResponseStyle = ResponseStyle::GUNICORN;
    /// The form of its lines in the access log, as in [`worker_api::WorkerFactory::ACCESS_LOG_FORMAT`].
    const LOG_FORMAT: &'static str = "";

    /// Serves one request, in a greenlet of the pool. To be ended with [`Connections::serve_requests`], which calls the
    /// application and gives the connection back.
    fn handle(connections: &Rc<Connections>, connection: Box<Connection>) {
        connections.serve_requests(connection);
    }
}

/// The handler that does nothing but to call the application.
#[derive(Debug)]
pub struct Plain;

impl Handler for Plain {}
