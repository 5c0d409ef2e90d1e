//! The acceptor greenlet, one for each listener, which blocks in accept as in eventlet's `serve`.

use std::rc::Rc;
use std::time::Duration;

use jimu_green::sync::Semaphore;
use jimu_green::{Interest, Interrupt};
use jimu_green_kit::{Connections, Listening};
use jimu_kit::{AcceptResult, Deadline, crowd};

/// The acceptor of a listener.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) listening: Rc<Listening>,
    pub(crate) connections: Rc<Connections>,
    /// The limit of connections: each holds a permit until it is closed.
    pub(crate) room: Rc<Semaphore>,
    /// The number of connections that are accepted before other greenlets, and other workers, can run.
    pub(crate) burst: usize,
}

impl Acceptor {
    /// Accepts until the greenlet is killed.
    pub(crate) fn run(&self) -> Interrupt {
        loop {
            if let Err(interrupt) = self.turn() {
                return interrupt;
            }
        }
    }

    /// Accepts the remaining backlog when the worker stops, until `deadline` at the latest.
    pub(crate) fn accept_backlog(&self, deadline: Deadline) {
        for _ in 0..self.listening.remaining_backlog(self.connections.host()) {
            if !matches!(self.room.acquire(deadline.left()), Ok(true)) || !self.take() {
                return;
            }
        }
    }

    fn turn(&self) -> Result<(), Interrupt> {
        // Tried again after a pause if the socket cannot be watched, as after a failed accept.
        match self.listening.source().wait_in_queue(Interest::Read) {
            Ok(()) => {}
            Err(error) => match Interrupt::of(&error) {
                Some(interrupt) => return Err(interrupt),
                None => return jimu_green::sleep(UNWATCHED_PAUSE),
            },
        }
        for _ in 0..self.burst {
            if !self.room.try_acquire() {
                // Stop accepting while the pool is full: take the socket out of the poller.
                self.leave_queue();
                self.connections.start_admitted();
                while !self.room.acquire(Some(crowd::PAUSE))? {
                    self.connections.make_room(self.listening.waiting());
                }
            }
            match self.listening.take() {
                AcceptResult::Connection(accepted) => {
                    // To the end of the queue of workers that wait for this socket.
                    self.leave_queue();
                    self.connections.admit(accepted);
                }
                AcceptResult::Empty => {
                    self.room.release();
                    break;
                }
                AcceptResult::Rest(pause) => {
                    self.room.release();
                    self.leave_queue();
                    self.connections.start_admitted();
                    return jimu_green::sleep(pause);
                }
            }
        }
        self.connections.start_admitted();
        Ok(())
    }

    fn leave_queue(&self) {
        if let Err(error) = self.listening.source().leave_queue() {
            tracing::warn!("cannot stop watching a listening socket: {error}");
        }
    }

    /// Accepts one connection with the permit that is held; releases the permit if there is none.
    fn take(&self) -> bool {
        if let AcceptResult::Connection(accepted) = self.listening.take() {
            self.connections.admit(accepted);
            self.connections.start_admitted();
            return true;
        }
        self.room.release();
        false
    }
}

/// The pause after a listener could not be watched.
const UNWATCHED_PAUSE: Duration = Duration::from_millis(100);
