//! gevent's `StreamServer`: accepts several connections in a turn of the hub. It pauses while the pool is full, and while
//! the process has no descriptor left.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::Listening;
use jimu_green::{Interest, Timer};
use jimu_kit::{AcceptResult, Acceptor, Deadline, crowd};
use worker_api::{Failure, FailureKind, Result};

use crate::process::ended;
use crate::stream_server::pool::{Greenlets, Pausable};

/// The server of one listener.
pub struct StreamServer {
    listening: Listening,
    greenlets: Rc<Greenlets>,
    /// The number of connections that are accepted in a turn of the hub.
    max_accept: usize,
    /// Resumes accepting after a pause.
    resume: Timer,
    started: Cell<bool>,
    /// Whether the pool was full at the last attempt to accept: the next attempt makes room.
    was_full: Cell<bool>,
    me: Weak<Self>,
}

impl StreamServer {
    /// Creates a server that does not accept yet. `max_accept` is gevent's: the number of connections accepted in a turn.
    pub fn new(
        acceptor: &Acceptor,
        greenlets: &Rc<Greenlets>,
        max_accept: usize,
    ) -> Result<Rc<Self>> {
        let listening = Listening::new(acceptor)?;
        // The timer's callback needs the server, and the server the timer.
        let cell: Rc<Cell<Weak<Self>>> = Rc::default();
        let me = Rc::clone(&cell);
        let resume = Timer::new(move || {
            let server = me.take();
            me.set(server.clone());
            if let Some(server) = server.upgrade() {
                server.start_accepting();
            }
        })
        .map_err(|error| {
            Failure::new(FailureKind::OTHER, "a stream server needs a hub").caused_by(&error)
        })?;
        let server = Rc::new_cyclic(|me| Self {
            listening,
            greenlets: Rc::clone(greenlets),
            max_accept,
            resume,
            started: Cell::new(false),
            was_full: Cell::new(false),
            me: me.clone(),
        });
        cell.set(Rc::downgrade(&server));
        let me = Rc::downgrade(&server);
        server.listening.source().watch(Interest::Read, move |_| {
            if let Some(server) = me.upgrade() {
                server.accept();
            }
        });
        Ok(server)
    }

    /// Starts to accept.
    pub fn start(&self) {
        self.started.set(true);
        self.start_accepting();
    }

    /// Stops accepting.
    pub fn stop_accepting(&self) {
        self.started.set(false);
        self.resume.cancel();
        self.pause();
    }

    /// Accepts the remaining backlog when the worker stops, until `deadline` at the latest.
    pub fn accept_backlog(&self, deadline: Deadline) -> Result<()> {
        let mut left = self.listening.remaining_backlog(self.greenlets.connections().host());
        while left > 0 && !deadline.is_past() {
            if self.greenlets.full() {
                // Wait for a connection to close.
                jimu_green::sleep(FULL_PAUSE).map_err(|interrupt| ended(&interrupt))?;
                continue;
            }
            let connections = self.greenlets.connections();
            match self.listening.take() {
                AcceptResult::Connection(accepted) => connections.admit(accepted),
                AcceptResult::Empty | AcceptResult::Rest(_) => break,
            }
            connections.start_admitted();
            left -= 1;
        }
        Ok(())
    }

    /// Accepts connections and reads them, when the listener is readable.
    fn accept(&self) {
        self.accept_waiting();
        self.greenlets.connections().start_admitted();
    }

    fn accept_waiting(&self) {
        for _ in 0..self.max_accept {
            if self.greenlets.full() && self.was_full.replace(true) {
                self.greenlets.connections().make_room(self.listening.waiting());
            }
            if self.greenlets.full() {
                self.pause();
                self.greenlets.resume_when_free(self.me.clone());
                return self.resume.set(crowd::PAUSE);
            }
            self.was_full.set(false);
            match self.listening.take() {
                AcceptResult::Connection(accepted) => self.greenlets.connections().admit(accepted),
                AcceptResult::Empty => return,
                AcceptResult::Rest(pause) => {
                    self.pause();
                    return self.resume.set(pause);
                }
            }
        }
        if self.max_accept == 1 {
            // To the end of the queue of workers that wait for this socket.
            self.pause();
            self.start_accepting();
        }
    }

    fn start_accepting(&self) {
        if !self.started.get() {
            return;
        }
        if let Err(error) = self.listening.source().start() {
            tracing::warn!("cannot watch a listening socket: {error}");
            self.resume.set(UNWATCHED_PAUSE);
        }
    }

    fn pause(&self) {
        if let Err(error) = self.listening.source().stop() {
            tracing::warn!("cannot stop watching a listening socket: {error}");
        }
    }
}

impl Pausable for StreamServer {
    fn resume(&self) {
        self.start_accepting();
    }
}

/// The pause after a listener could not be watched.
const UNWATCHED_PAUSE: Duration = Duration::from_secs(1);
/// How often a server that stops checks for room.
const FULL_PAUSE: Duration = Duration::from_millis(10);
