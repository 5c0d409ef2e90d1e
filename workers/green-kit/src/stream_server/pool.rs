//! The pool that all servers of a worker spawn into, and the limit of connections: at the limit, the servers are paused.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::{Connections, Serve, WorkerState};
use jimu_green::pool::Pool;
use jimu_kit::Connection;

use crate::stream_server::handler::Handler;

/// A server that pauses while there is no room for a connection.
pub(crate) trait Pausable {
    /// Accepts again.
    fn resume(&self);
}

/// The greenlets of a worker, and the servers that are paused until there is room for a connection.
pub struct Greenlets {
    pool: Pool,
    connections_max: usize,
    connections: Rc<Connections>,
    handle: fn(&Rc<Connections>, Box<Connection>),
    paused: RefCell<Vec<Weak<dyn Pausable>>>,
}

impl Greenlets {
    /// Creates a pool for `worker_connections` connections, up to `greenlets_max` of which are served at a time, by `H`.
    pub fn new<H: Handler>(state: &Rc<WorkerState>, greenlets_max: usize) -> Rc<Self> {
        let connections_max = state.base.context.config.worker_connections;
        let greenlets = Rc::new(Self {
            pool: Pool::new(Some(connections_max.min(greenlets_max))),
            connections_max,
            connections: Rc::clone(&state.connections),
            handle: H::handle,
            paused: RefCell::default(),
        });
        state.set_serve(greenlets.clone());
        greenlets
    }

    /// Returns the pool of greenlets, to wait for it or to kill it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the connections of the worker.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// Returns whether there is no room for another connection.
    pub fn full(&self) -> bool {
        self.connections.len() >= self.connections_max
    }

    /// Registers a paused server, to be resumed when there is room.
    pub(crate) fn resume_when_free(&self, server: Weak<dyn Pausable>) {
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
            tracing::error!("request dropped: cannot start a greenlet: {error}");
        }
        Ok(())
    }

    fn on_close(&self) {
        if self.paused.borrow().is_empty() || self.full() {
            return;
        }
        let paused = self.paused.take();
        for server in paused.iter().filter_map(Weak::upgrade) {
            server.resume();
        }
    }
}
