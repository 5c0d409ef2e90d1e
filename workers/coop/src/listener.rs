//! A listening socket in the hub. Who accepts from it, when and how often is the class's business.

use std::io;
use std::os::fd::BorrowedFd;

use green::{Source, Trigger};
use kit::socket::Accepted;
use kit::{Acceptor, socket};
use worker_api::{Failure, Result};

/// A listening socket that this worker accepts from, with others.
pub struct Listening {
    acceptor: Acceptor,
    source: Source<BorrowedFd<'static>>,
}

/// What accepting gave.
#[derive(Debug)]
pub enum Taken {
    /// A connection.
    One(Accepted),
    /// Nobody waits.
    Nobody,
    /// There is no descriptor or memory for another connection: accepting has to rest.
    Exhausted(io::Error),
}

impl Listening {
    /// The socket of an acceptor. It is in the hub's poller only while somebody waits for it or watches it.
    pub fn new(acceptor: &Acceptor) -> Result<Self> {
        let source = Source::new(socket::borrow(acceptor.fd()), Trigger::Exclusive)
            .map_err(|error| Failure::io("cannot watch a listening socket", &error))?;
        Ok(Self { acceptor: acceptor.clone(), source })
    }

    /// Takes one connection, if one waits.
    pub fn take(&self) -> Taken {
        loop {
            match self.acceptor.accept() {
                Ok(accepted) => return Taken::One(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Nobody,
                Err(error) if socket::is_passing(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    return Taken::Exhausted(error);
                }
            }
        }
    }

    /// The socket's source, to wait for or to watch.
    pub fn source(&self) -> &Source<BorrowedFd<'static>> {
        &self.source
    }
}
