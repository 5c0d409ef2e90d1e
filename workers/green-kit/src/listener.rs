//! A listening socket in the hub. Who accepts from it, when and how often is the class's business.

use green::{Source, Trigger};
use kit::{AcceptResult, Acceptor};
use worker_api::{Failure, Host, Result};

/// A listening socket that this worker accepts from, with others.
pub struct Listening {
    source: Source<Acceptor>,
}

impl Listening {
    /// The socket of an acceptor. It is in the hub's poller only while somebody waits for it or watches it.
    pub fn new(acceptor: &Acceptor) -> Result<Self> {
        let source = Source::new(acceptor.clone(), Trigger::Exclusive)
            .map_err(|error| Failure::io("cannot watch a listening socket", &error))?;
        Ok(Self { source })
    }

    /// Takes one connection, if one waits.
    pub fn take(&self) -> AcceptResult {
        self.source.get_ref().take()
    }

    /// Returns how many connections a worker that stops still accepts; 0 where others serve the socket.
    pub fn remaining_backlog(&self, host: &Host) -> u64 {
        host.remaining_backlog(self.source.get_ref().fd())
    }

    /// How many connections wait to be accepted.
    pub fn waiting(&self) -> usize {
        self.source.get_ref().waiting()
    }

    /// The socket's source, to wait for or to watch.
    pub fn source(&self) -> &Source<Acceptor> {
        &self.source
    }
}
