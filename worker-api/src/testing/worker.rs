//! A worker of any class around the double of the host: it runs on a thread of the test, accepts from a listening socket
//! and receives TERM and QUIT as the host delivers them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::app::{App, AppHandle};
use crate::failure::Result;
use crate::guard::catch_flat;
use crate::raw::RawHost as _;
use crate::testing::host::{Stop, TestHost};
use crate::worker::{WorkerContext, WorkerFactory};

/// A worker that serves on a separate thread. Dropping it does not stop it.
#[derive(Debug)]
pub struct RunningWorker {
    address: SocketAddr,
    /// Its host.
    pub host: TestHost,
    ended: Receiver<Result<()>>,
}

impl RunningWorker {
    /// Starts a worker of class `W` on a free loopback port, and waits until it has booted: for the first heartbeat in
    /// [`crate::Worker::run`].
    ///
    /// # Panics
    /// If the class refuses its settings, or the worker does not boot within 20 seconds.
    pub fn start<W: WorkerFactory>(host: TestHost, app: impl App) -> Self {
        W::setup(&host.services()).expect("the class accepts the settings");
        let address = host.listen();
        let (report, ended) = channel();
        let booted = host.await_boot();
        let of_worker = host.clone();
        thread::spawn(move || run::<W>(&of_worker, AppHandle::from_app(app), &report));
        let worker = Self { address, host, ended };
        let boot = booted.recv_timeout(LIMIT);
        assert!(boot.is_ok(), "the worker does not boot: {:?}", worker.ended.try_recv());
        worker
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends these bytes on a new connection, and returns all bytes that the worker sends until it closes the connection. A
    /// request therefore has `Connection: close`. Fails if the worker sends nothing for 20 seconds.
    pub fn exchange_bytes(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut client = TcpStream::connect(self.address)?;
        client.set_read_timeout(Some(LIMIT))?;
        client.write_all(bytes)?;
        let mut received = Vec::new();
        client.read_to_end(&mut received)?;
        Ok(received)
    }

    /// Asks it to stop gracefully, and waits until it has ended.
    ///
    /// # Panics
    /// As [`Self::join`] does.
    pub fn stop(&self) {
        self.host.stop_by(Stop::Term);
        self.join();
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If [`crate::Worker::run`] fails or does not return within 20 seconds.
    pub fn join(&self) {
        let outcome = self.ended.recv_timeout(LIMIT).expect("the worker ends");
        outcome.expect("the worker ends successfully");
    }
}

/// Does what the process of a worker does.
fn run<W: WorkerFactory>(host: &TestHost, app: AppHandle, report: &Sender<Result<()>>) {
    let serve = || {
        let worker = Rc::new(W::new(WorkerContext { host: host.services(), app })?);
        let signaled = Rc::clone(&worker);
        TestHost::handle_signals(Some(Box::new(move |stop| match stop {
            Stop::Term => signaled.handle_exit(),
            Stop::Quit => signaled.handle_quit(),
        })));
        worker.init_process()?;
        host.enter_run();
        worker.run()
    };
    let outcome = catch_flat("the worker", serve);
    host.close_listeners();
    // Drops the worker before the variables of the thread.
    TestHost::handle_signals(None);
    // The test may have ended.
    let _ = report.send(outcome);
    host.leave_run();
}

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
