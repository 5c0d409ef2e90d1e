//! A real worker of any class around the double of the host: it runs on a thread of the test, accepts from a real
//! listener, and is sent TERM and QUIT as the host delivers them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use worker_api::raw::RawHost as _;
use worker_api::{App, AppHandle, Result, WorkerContext, WorkerFactory};

use crate::http::{Address, Answer, Connection};
use crate::{TestHost, host::Stop};

/// A worker that serves on a separate thread.
pub struct RunningWorker {
    address: SocketAddr,
    /// Its host.
    pub host: TestHost,
    ended: Receiver<Result<()>>,
}

impl RunningWorker {
    /// Runs a worker of class `W`, and waits until it has booted.
    pub fn start<W: WorkerFactory>(host: TestHost, app: impl App) -> Self {
        let address = host.listen();
        let (end, ended) = channel();
        let (ready, booted) = channel();
        let of_worker = host.clone();
        thread::spawn(move || {
            let app = AppHandle::from_app(app);
            let context = WorkerContext { host: of_worker.services(), app };
            let worker = Rc::new(W::new(context).unwrap());
            let signaled = Rc::clone(&worker);
            TestHost::handle_signals(Some(Box::new(move |stop| match stop {
                Stop::Term => signaled.handle_exit(),
                Stop::Quit => signaled.handle_quit(),
            })));
            worker.init_process().unwrap();
            ready.send(()).unwrap();
            let outcome = worker.run();
            of_worker.close_listeners();
            // Before the variables of the thread are dropped.
            TestHost::handle_signals(None);
            drop(worker);
            end.send(outcome).unwrap();
        });
        booted.recv_timeout(LONG).expect("the worker boots");
        Self { address, host, ended }
    }

    /// Returns a new connection of a client.
    pub fn connect(&self) -> Connection {
        Connection::open(&Address::Tcp(self.address)).unwrap()
    }

    /// Sends one GET on a new connection, and returns the response.
    pub fn get(&self, target: &str) -> Answer {
        self.connect().get(target).unwrap()
    }

    /// Asks it to stop gracefully, and waits until it has ended.
    pub fn stop(&self) {
        self.host.stop_by(Stop::Term);
        self.join();
    }

    /// Waits until it has ended successfully.
    pub fn join(&self) {
        self.ended.recv_timeout(LONG).expect("the worker ends").unwrap();
    }
}

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);
