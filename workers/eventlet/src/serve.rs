//! The green pool, and the main greenlet: starts the acceptors, sends heartbeats, stops.

use std::rc::Rc;

use jimu_green::pool::GreenPool;
use jimu_green::sync::Semaphore;
use jimu_green_kit::{Connections, Listening, Serve, WorkerState};
use jimu_kit::Connection;
use worker_api::{Failure, FailureKind, Result};

use crate::acceptor::Acceptor;

/// The green pool of a worker, and the limit of its connections.
pub(crate) struct Pool {
    greenlets: GreenPool,
    room: Rc<Semaphore>,
    connections: Rc<Connections>,
}

impl Pool {
    /// Creates a pool for `worker_connections` connections, up to `greenlets_max` of which are served at a time.
    pub(crate) fn new(state: &Rc<WorkerState>, greenlets_max: usize) -> Rc<Self> {
        let connections = state.base.context.config.worker_connections;
        let pool = Rc::new(Self {
            greenlets: GreenPool::new(connections.min(greenlets_max)),
            room: Rc::new(Semaphore::new(connections)),
            connections: Rc::clone(&state.connections),
        });
        state.set_serve(pool.clone());
        pool
    }
}

impl Serve for Pool {
    fn start(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        if self.greenlets.free() == 0 {
            return Err(connection);
        }
        let connections = Rc::clone(&self.connections);
        let started = self.greenlets.spawn(move || connections.serve_requests(connection));
        if let Err(error) = started {
            tracing::error!("request dropped: cannot start a greenlet: {error}");
        }
        Ok(())
    }

    fn on_close(&self) {
        self.room.release();
    }
}

/// Runs the main greenlet.
pub(crate) fn main(state: &Rc<WorkerState>, pool: &Rc<Pool>) -> Result<()> {
    let acceptors = acceptors(state, pool)?;
    let mut running = Vec::new();
    for acceptor in &acceptors {
        let acceptor = acceptor.clone();
        running.push(jimu_green::spawn(move || acceptor.run()).map_err(|error| {
            Failure::new(FailureKind::OTHER, "cannot start an acceptor").caused_by(&error)
        })?);
    }
    state.run_until_stopped()?;
    for acceptor in running {
        acceptor.kill();
        // The result is always that the acceptor was killed.
        let _ = acceptor.join();
    }
    if state.is_quitting() { Ok(()) } else { stop(state, acceptors) }
}

fn acceptors(state: &Rc<WorkerState>, pool: &Rc<Pool>) -> Result<Vec<Acceptor>> {
    let alone = state.base.is_alone();
    let acceptor = |acceptor| {
        Ok(Acceptor {
            listening: Rc::new(Listening::new(acceptor)?),
            connections: Rc::clone(&state.connections),
            room: Rc::clone(&pool.room),
            burst: if alone { BURST_ALONE } else { 1 },
        })
    };
    state.base.acceptors.iter().map(acceptor).collect()
}

/// Stops gracefully: accepts the part of the backlog that no other worker would serve, then finishes the requests that have
/// begun.
fn stop(state: &Rc<WorkerState>, acceptors: Vec<Acceptor>) -> Result<()> {
    let deadline = state.base.graceful_deadline();
    state.base.context.drain();
    for acceptor in &acceptors {
        acceptor.accept_backlog(deadline);
    }
    drop(acceptors);
    state.base.host.close_listeners();
    state.connections.drain();
    if !state.wait_empty(deadline)? {
        state.base.cut_requests(state.connections.len());
    }
    Ok(())
}

/// The number of connections that an acceptor accepts in a row if no other worker waits for them.
const BURST_ALONE: usize = 64;
