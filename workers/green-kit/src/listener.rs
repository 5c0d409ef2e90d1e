//! A listening socket in the hub. Who accepts from it, when and how often is the class's business.

use std::os::fd::BorrowedFd;

use green::{Source, Trigger};
use kit::{AcceptResult, Acceptor, socket};
use worker_api::{Failure, Host, Result};

/// A listening socket that this worker accepts from, with others.
pub struct Listening {
    acceptor: Acceptor,
    source: Source<BorrowedFd<'static>>,
}

impl Listening {
    /// The socket of an acceptor. It is in the hub's poller only while somebody waits for it or watches it.
    pub fn new(acceptor: &Acceptor) -> Result<Self> {
        let source = Source::new(socket::borrow(acceptor.fd()), Trigger::Exclusive)
            .map_err(|error| Failure::io("cannot watch a listening socket", &error))?;
        Ok(Self { acceptor: acceptor.clone(), source })
    }

    /// Takes one connection, if one waits.
    pub fn take(&self) -> AcceptResult {
        self.acceptor.take()
    }

    /// Returns how many connections a worker that stops still accepts; 0 where others serve the socket.
    pub fn remaining_backlog(&self, host: &Host) -> u64 {
        host.remaining_backlog(self.acceptor.fd())
    }

    /// How many connections wait to be accepted.
    pub fn waiting(&self) -> usize {
        self.acceptor.waiting()
    }

    /// The socket's source, to wait for or to watch.
    pub fn source(&self) -> &Source<BorrowedFd<'static>> {
        &self.source
    }
}
