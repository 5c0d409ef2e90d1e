//! What becomes of a request: the seam that another class, such as pywsgi, replaces.

use std::rc::Rc;

use coop::Clients;
use kit::Connection;
use kit::http::Manners;

/// gevent's `handler_class`: how a class's server serves requests, and in which words it answers by itself.
pub trait Handler: 'static {
    /// The server's own words.
    const MANNERS: Manners = Manners::GUNICORN;
    /// The form of its lines in the access log, as in [`worker_api::WorkerFactory::ACCESS_LOG_FORMAT`].
    const LOG_FORMAT: &'static str = "";

    /// Serves one request, in a greenlet of the pool. To be ended with [`Clients::call_in_turn`], which calls the
    /// application and gives the connection back.
    fn handle(clients: &Rc<Clients>, connection: Box<Connection>) {
        clients.call_in_turn(connection);
    }
}

/// The handler that does nothing but to call the application.
#[derive(Debug)]
pub struct Plain;

impl Handler for Plain {}
