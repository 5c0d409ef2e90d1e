//! How a request is served: what another class, such as pywsgi, can replace.

use std::rc::Rc;

use crate::Connections;
use jimu_http1::ResponseStyle;
use jimu_kit::Connection;

/// gevent's `handler_class`: how a class serves requests, and the style of its responses.
pub trait Handler: 'static {
    /// The headers and error pages that the server generates.
    const STYLE: ResponseStyle = ResponseStyle::GUNICORN;
    /// The format of the access log, as in [`worker_api::WorkerFactory::ACCESS_LOG_FORMAT`].
    const LOG_FORMAT: &'static str = "";

    /// Serves one request, in a greenlet of the pool. Must end with [`Connections::serve_requests`], which calls the
    /// application and takes back the connection.
    fn handle(connections: &Rc<Connections>, connection: Box<Connection>) {
        connections.serve_requests(connection);
    }
}

/// The default handler: calls the application.
#[derive(Debug)]
pub struct Plain;

impl Handler for Plain {}
