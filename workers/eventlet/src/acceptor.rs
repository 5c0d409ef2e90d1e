//! The greenlet that blocks in accept, one for each listener, as in eventlet's `serve`.

use std::rc::Rc;
use std::time::Duration;

use green::sync::Semaphore;
use green::{Interest, Interrupt};
use green_kit::{Connections, Listening};
use kit::{AcceptResult, crowd};

/// What an acceptor needs.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) listening: Rc<Listening>,
    pub(crate) connections: Rc<Connections>,
    /// Room for connections: each holds one permit until it is gone.
    pub(crate) room: Rc<Semaphore>,
    /// How many are accepted before the others in the process, and the other workers, have their turn.
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

    /// Accepts what remains in the backlog when the worker stops, for as long as `left` says.
    pub(crate) fn take_rest(&self, left: impl Fn() -> Option<Duration>) {
        for _ in 0..self.listening.remaining_backlog(self.connections.host()) {
            if !matches!(self.room.acquire(left()), Ok(true)) || !self.take() {
                return;
            }
        }
    }

    fn turn(&self) -> Result<(), Interrupt> {
        // A socket that cannot be watched is tried again after a rest, as one without descriptors is.
        match self.listening.source().wait_in_line(Interest::Read) {
            Ok(()) => {}
            Err(error) => match Interrupt::of(&error) {
                Some(interrupt) => return Err(interrupt),
                None => return green::sleep(REST),
            },
        }
        for _ in 0..self.burst {
            if !self.room.try_acquire() {
                // A full pool stops accepting: the socket is not in the poller meanwhile.
                self.leave_line();
                while !self.room.acquire(Some(crowd::PAUSE))? {
                    self.connections.make_room(self.listening.waiting());
                }
            }
            match self.listening.take() {
                AcceptResult::Connection(accepted) => {
                    // To the end of the line of the workers that wait for this socket.
                    self.leave_line();
                    self.connections.admit(accepted);
                }
                AcceptResult::Empty => {
                    self.room.release();
                    return Ok(());
                }
                AcceptResult::Rest(pause) => {
                    self.room.release();
                    self.leave_line();
                    return green::sleep(pause);
                }
            }
        }
        Ok(())
    }

    fn leave_line(&self) {
        if let Err(error) = self.listening.source().leave_line() {
            tracing::warn!("cannot stop to watch a listening socket: {error}");
        }
    }

    /// Takes one connection with the permit that is held; gives it back where there is none.
    fn take(&self) -> bool {
        if let AcceptResult::Connection(accepted) = self.listening.take() {
            self.connections.admit(accepted);
            return true;
        }
        self.room.release();
        false
    }
}

/// How long accepting rests where the listener cannot be watched.
const REST: Duration = Duration::from_millis(100);
