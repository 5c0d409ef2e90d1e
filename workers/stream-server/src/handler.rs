//! What becomes of a request: the seam that another class, such as pywsgi, replaces.

use std::rc::Rc;

use coop::Clients;
use kit::Connection;

/// gevent's `handler_class`: serves the requests of a server's connections.
pub trait Handler: 'static {
    /// Serves one request, in a greenlet of the pool. To be ended with [`Clients::call_in_turn`], which calls the
    /// application and gives the connection back.
    fn handle(&self, clients: &Rc<Clients>, connection: Box<Connection>);
}

/// The handler that does nothing but to call the application.
#[derive(Debug, Default)]
pub struct Plain;

impl Handler for Plain {
    fn handle(&self, clients: &Rc<Clients>, connection: Box<Connection>) {
        clients.call_in_turn(connection);
    }
}
