//! Clients of a worker that runs in the test.

use std::time::Duration;

use worker_api::testing::RunningWorker;

use crate::http::{Address, Answer, Connection};

/// Clients of a worker.
pub trait Clients {
    /// Returns a new connection of a client.
    fn connect(&self) -> Connection;

    /// Sends one GET on a new connection, and returns the response.
    fn get(&self, target: &str) -> Answer {
        self.connect().get(target).unwrap()
    }
}

impl Clients for RunningWorker {
    fn connect(&self) -> Connection {
        Connection::open(&Address::Tcp(self.address())).unwrap()
    }
}

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);
