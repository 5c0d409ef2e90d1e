//! A listening socket in the hub. The class decides when and how often to accept from it.

use jimu_green::{Source, Trigger};
use jimu_kit::{AcceptResult, Acceptor};
use worker_api::{Failure, Host, Result};

/// A listening socket that this worker accepts from, as other workers do.
pub struct Listening {
    source: Source<Acceptor>,
}

impl Listening {
    /// Creates the source of an acceptor's socket. It is in the hub's poller only while it is waited for or watched.
    pub fn new(acceptor: &Acceptor) -> Result<Self> {
        let source = Source::new(acceptor.clone(), Trigger::Exclusive)
            .map_err(|error| Failure::io("cannot watch a listening socket", &error))?;
        Ok(Self { source })
    }

    /// Accepts one connection, if there is one.
    pub fn take(&self) -> AcceptResult {
        self.source.get_ref().take()
    }

    /// Returns the number of connections that a worker that stops still accepts; 0 if other workers serve the socket.
    pub fn remaining_backlog(&self, host: &Host) -> u64 {
        host.remaining_backlog(self.source.get_ref().fd())
    }

    /// Returns the length of the backlog.
    pub fn waiting(&self) -> usize {
        self.source.get_ref().waiting()
    }

    /// Returns the socket's source, to wait for or to watch.
    pub fn source(&self) -> &Source<Acceptor> {
        &self.source
    }
}
