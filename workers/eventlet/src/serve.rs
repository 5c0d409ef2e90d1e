//! The green pool, and the main greenlet: it starts the acceptors, shows signs of life, and stops.

use std::rc::Rc;
use std::time::Duration;

use coop::{Clients, Life, Listening, Serve};
use green::pool::GreenPool;
use green::sync::Semaphore;
use kit::Connection;
use kit::clock::now_ns;
use worker_api::{Failure, FailureKind, Result};

use crate::acceptor::Acceptor;

/// The green pool of a worker, and the room for its connections.
pub(crate) struct Pool {
    greenlets: GreenPool,
    room: Rc<Semaphore>,
    clients: Rc<Clients>,
}

impl Pool {
    /// A pool for `worker_connections` connections, of which at most `greenlets_max` are served at once.
    pub(crate) fn new(life: &Rc<Life>, greenlets_max: usize) -> Rc<Self> {
        let connections = life.base.kit.config.worker_connections;
        let pool = Rc::new(Self {
            greenlets: GreenPool::new(connections.min(greenlets_max)),
            room: Rc::new(Semaphore::new(connections)),
            clients: Rc::clone(&life.clients),
        });
        life.served_by(pool.clone());
        pool
    }
}

impl Serve for Pool {
    fn start(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        if self.greenlets.free() == 0 {
            return Err(connection);
        }
        let clients = Rc::clone(&self.clients);
        let started = self.greenlets.spawn(move || clients.call_in_turn(connection));
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
pub(crate) fn main(life: &Rc<Life>, pool: &Rc<Pool>) -> Result<()> {
    let acceptors = acceptors(life, pool)?;
    let mut running = Vec::new();
    for acceptor in &acceptors {
        let acceptor = acceptor.clone();
        running.push(green::spawn(move || acceptor.run()).map_err(|error| {
            Failure::new(FailureKind::OTHER, "cannot start an acceptor").caused_by(&error)
        })?);
    }
    life.go_on()?;
    for acceptor in running {
        acceptor.kill();
        // An acceptor has nothing to tell but that it was killed.
        let _ = acceptor.join();
    }
    if life.is_quitting() { Ok(()) } else { stop(life, acceptors) }
}

fn acceptors(life: &Rc<Life>, pool: &Rc<Pool>) -> Result<Vec<Acceptor>> {
    let alone = life.base.is_alone();
    let acceptor = |acceptor| {
        Ok(Acceptor {
            listening: Rc::new(Listening::new(acceptor)?),
            clients: Rc::clone(&life.clients),
            room: Rc::clone(&pool.room),
            burst: if alone { BURST_ALONE } else { 1 },
        })
    };
    life.base.acceptors.iter().map(acceptor).collect()
}

/// A graceful end: accepts what no other worker would serve, then finishes the requests that have begun.
fn stop(life: &Rc<Life>, acceptors: Vec<Acceptor>) -> Result<()> {
    let deadline_ns = life.base.graceful_deadline_ns();
    let left =
        || (deadline_ns != 0).then(|| Duration::from_nanos(deadline_ns.saturating_sub(now_ns())));
    life.base.kit.drain();
    for acceptor in &acceptors {
        acceptor.take_rest(left);
    }
    drop(acceptors);
    life.base.host.close_listeners();
    life.clients.drain();
    if !life.wait_empty(deadline_ns)? {
        tracing::warn!("{} connections are cut: graceful_timeout is over", life.clients.len());
    }
    Ok(())
}

/// How many connections an acceptor takes in a row where no other worker waits for them.
const BURST_ALONE: usize = 64;
