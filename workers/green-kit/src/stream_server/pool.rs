//! The pool that all servers of a worker spawn into, and the room for connections: as long as there is none, the
//! servers are paused.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::{Connections, Serve, WorkerState};
use green::pool::Pool;
use kit::Connection;

use crate::stream_server::handler::Handler;
use crate::stream_server::server::StreamServer;

/// The greenlets of a worker, and who is to be told when there is room for a connection again.
pub struct Greenlets {
    pool: Pool,
    connections_max: usize,
    connections: Rc<Connections>,
    handle: fn(&Rc<Connections>, Box<Connection>),
    paused: RefCell<Vec<Weak<StreamServer>>>,
}

impl Greenlets {
    /// A pool of greenlets that serve as `H` does, for `worker_connections` connections, of which at most `greenlets_max` are served at once.
    pub fn new<H: Handler>(state: &Rc<WorkerState>, greenlets_max: usize) -> Rc<Self> {
        let connections_max = state.base.context.config.worker_connections;
        let greenlets = Rc::new(Self {
            pool: Pool::new(Some(connections_max.min(greenlets_max))),
            connections_max,
            connections: Rc::clone(&state.connections),
            handle: H::handle,
            paused: RefCell::default(),
        });
        state.served_by(greenlets.clone());
        greenlets
    }

    /// The pool itself, to wait for it and to end it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The connections that it serves.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// Whether there is no room for another connection.
    pub fn full(&self) -> bool {
        self.connections.len() >= self.connections_max
    }

    /// Has a server that paused go on when there is room.
    pub(crate) fn tell_when_free(&self, server: Weak<StreamServer>) {
        let mut paused = self.paused.borrow_mut();
        if !paused.iter().any(|other| other.ptr_eq(&server)) {
            paused.push(server);
        }
    }
}

impl Serve for Greenlets {
    fn start(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        if self.pool.full() {
            return Err(connection);
        }
        let (connections, handle) = (Rc::clone(&self.connections), self.handle);
        let started = self.pool.spawn(move || handle(&connections, connection));
        if let Err(error) = started {
            tracing::error!("a request is dropped, there is no greenlet for it: {error}");
        }
        Ok(())
    }

    fn gone(&self) {
        if self.paused.borrow().is_empty() || self.full() {
            return;
        }
        let paused = self.paused.take();
        for server in paused.iter().filter_map(Weak::upgrade) {
            server.start_accepting();
        }
    }
}
