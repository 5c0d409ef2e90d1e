//! The green pool, and the main greenlet: it starts the acceptors, shows signs of life, and stops.

use std::rc::Rc;
use std::time::Duration;

use green::pool::GreenPool;
use green::sync::Semaphore;
use green_kit::{Connections, Listening, Serve, WorkerState};
use kit::Connection;
use kit::clock::now_ns;
use worker_api::{Failure, FailureKind, Result};

use crate::acceptor::Acceptor;

/// The green pool of a worker, and the room for its connections.
pub(crate) struct Pool {
    greenlets: GreenPool,
    room: Rc<Semaphore>,
    connections: Rc<Connections>,
}

impl Pool {
    /// A pool for `worker_connections` connections, of which at most `greenlets_max` are served at once.
    pub(crate) fn new(state: &Rc<WorkerState>, greenlets_max: usize) -> Rc<Self> {
        let connections = state.base.context.config.worker_connections;
        let pool = Rc::new(Self {
            greenlets: GreenPool::new(connections.min(greenlets_max)),
            room: Rc::new(Semaphore::new(connections)),
            connections: Rc::clone(&state.connections),
        });
        state.served_by(pool.clone());
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
            tracing::error!("a request is dropped, there is no greenlet for it: {error}");
        }
        Ok(())
    }

    fn gone(&self) {
        self.room.release();
    }
}

/// The main greenlet.
pub(crate) fn main(state: &Rc<WorkerState>, pool: &Rc<Pool>) -> Result<()> {
    let acceptors = acceptors(state, pool)?;
    let mut running = Vec::new();
    for acceptor in &acceptors {
        let acceptor = acceptor.clone();
        running.push(green::spawn(move || acceptor.run()).map_err(|error| {
            Failure::new(FailureKind::OTHER, "cannot start an acceptor").caused_by(&error)
        })?);
    }
    state.run_until_stopped()?;
    for acceptor in running {
        acceptor.kill();
        // An acceptor has nothing to tell but that it was killed.
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

/// A graceful end: accepts what no other worker would serve, then finishes the requests that have begun.
fn stop(state: &Rc<WorkerState>, acceptors: Vec<Acceptor>) -> Result<()> {
    let deadline_ns = state.base.graceful_deadline_ns();
    let left =
        || (deadline_ns != 0).then(|| Duration::from_nanos(deadline_ns.saturating_sub(now_ns())));
    state.base.context.drain();
    for acceptor in &acceptors {
        acceptor.take_rest(left);
    }
    drop(acceptors);
    state.base.host.close_listeners();
    state.connections.drain();
    if !state.wait_empty(deadline_ns)? {
        tracing::warn!("{} connections are cut: graceful_timeout is over", state.connections.len());
    }
    Ok(())
}

/// How many connections an acceptor takes in a row where no other worker waits for them.
const BURST_ALONE: usize = 64;
