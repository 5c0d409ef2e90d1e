//! A worker class for tests of `host --check-worker`: it keeps the contract but for one fault, which is chosen
//! (`fault`). Apart from that it serves each connection with a thread.
//!
//! | module | what it is |
//! | --- | --- |
//! | `lib` | the class and its main thread |
//! | `connection` | a connection's thread |
//! | `host` | what the fault has the class leave unsaid to its host |
//! | `fault` | the faults |
//!
//! `faulty-class` is for what a library can do wrong before it serves; this one is for what a worker can.

mod connection;
mod fault;
mod host;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kit::config::Config;
use kit::{Acceptor, Base, Connection, blocking, clock, socket};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use worker_api::{Abilities, Failure, Host, Result, Worker, WorkerContext, WorkerFactory};

use crate::connection::Shared;
use crate::fault::Fault;

worker_api::export_worker_class!(Broken);

/// The worker.
pub struct Broken {
    base: Base,
    shared: Arc<Shared>,
    fault: Option<Fault>,
}

impl WorkerFactory for Broken {
    const NAME: &'static str = "broken";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "keeps the contract but for one fault";
    const ABILITIES: Abilities = Abilities::THREADS;

    fn setup(host: &Host) -> Result<()> {
        match Fault::chosen(host)? {
            Some(Fault::SetupFails) => Err(Failure::config(ASKED_FOR)),
            Some(Fault::SetupPanics) => panic!("{ASKED_FOR}"),
            Some(Fault::SetupExits) => std::process::exit(7),
            Some(Fault::SetupStartsThread) => {
                thread::spawn(|| thread::sleep(FOR_EVER));
                Ok(())
            }
            _ => Config::read(host).map(drop),
        }
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let fault = Fault::chosen(&context.host)?;
        assert!(fault != Some(Fault::NewPanics), "{ASKED_FOR}");
        let host = host::with_fault(context.host, fault);
        let base = Base::new(WorkerContext { host, app: context.app }, true)?;
        let shared = Arc::new(Shared::new(&base, fault));
        Ok(Self { base, shared, fault })
    }
}

impl Worker for Broken {
    fn init_process(&self) -> Result<()> {
        match self.fault {
            Some(Fault::InitFails) => return Err(Failure::config(ASKED_FOR)),
            Some(Fault::BootsSlowly) => thread::sleep(FOR_EVER),
            _ => {}
        }
        self.base.app.init_worker(blocking::runtime(&self.base.kit))
    }

    fn run(&self) -> Result<()> {
        if self.has(Fault::RunReturns) {
            return Ok(());
        }
        self.spoil().map_err(|errno| Failure::io("the fault has failed", &errno.into()))?;
        self.serve().map_err(|error| Failure::io("cannot wait", &error))?;
        if self.has(Fault::EndsWithError) {
            return Err(Failure::application(ASKED_FOR));
        }
        Ok(())
    }
}

impl Broken {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Faults that happen once, before anything is served.
    fn spoil(&self) -> nix::Result<()> {
        assert!(!self.has(Fault::RunPanics), "{ASKED_FOR}");
        for acceptor in &self.base.acceptors {
            if self.has(Fault::ClosesListener) {
                nix::unistd::close(acceptor.fd())?;
            }
            if self.has(Fault::BlocksListener) {
                fcntl(socket::borrow(acceptor.fd()), FcntlArg::F_SETFL(OFlag::empty()))?;
            }
        }
        if self.has(Fault::BlocksSignals) {
            SigSet::from_iter([Signal::SIGQUIT, Signal::SIGINT]).thread_block()?;
        }
        Ok(())
    }

    fn serve(&self) -> io::Result<()> {
        let mut looked = Instant::now();
        while self.base.host.alive() {
            if !(self.has(Fault::IsSilentWhileWaiting) && self.shared.someone_waits()) {
                self.base.tick();
            }
            let late = looked.elapsed() > PAUSE;
            if late || !self.has(Fault::LooksNowAndThen) {
                self.base.host.deliver_signals();
                looked = Instant::now();
            }
            let acceptors = &self.base.acceptors[..];
            self.wait(if self.has(Fault::ClosesListener) { &[] } else { acceptors })?;
        }
        if !self.has(Fault::CutsRequests) {
            self.finish()?;
        }
        Ok(())
    }

    /// One wait, and the connections that it brings.
    fn wait(&self, acceptors: &[Acceptor]) -> io::Result<()> {
        let wake = socket::borrow(self.base.host.wake_descriptor());
        let listening = acceptors.iter().map(|acceptor| socket::borrow(acceptor.fd()));
        let mut polled: Vec<PollFd<'_>> =
            listening.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        if !self.has(Fault::LooksNowAndThen) {
            polled.push(PollFd::new(wake, PollFlags::POLLIN));
        }
        let limit = if self.has(Fault::SpinsWhileIdle) { 0 } else { LIMIT_MS };
        match poll(&mut polled, PollTimeout::from(limit)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for (acceptor, descriptor) in acceptors.iter().zip(&polled) {
            if descriptor.any().unwrap_or(false) {
                self.accept(acceptor);
            }
        }
        Ok(())
    }

    /// Takes a connection, if one waits.
    fn accept(&self, acceptor: &Acceptor) -> bool {
        let Ok(accepted) = acceptor.accept() else { return false };
        match self.fault {
            Some(Fault::AnswersNothing) => {
                std::mem::forget(accepted);
                return true;
            }
            Some(Fault::AnswersItself) => {
                connection::answer(accepted.stream);
                return true;
            }
            Some(Fault::LeaksDescriptors) => std::mem::forget(File::open("/dev/null")),
            Some(Fault::LeaksMemory) => std::mem::forget(vec![1_u8; 256 * 1024]),
            _ => {}
        }
        let connection = Connection::new(&self.base.kit, accepted);
        let opened = self.shared.enter();
        if self.has(Fault::ServesOneAtATime) {
            opened.serve(connection);
        } else {
            thread::spawn(move || opened.serve(connection));
        }
        true
    }

    fn finish(&self) -> io::Result<()> {
        self.base.kit.drain();
        let deadline_ns = self.base.graceful_deadline_ns();
        let in_time = || clock::now_ns() < deadline_ns;
        for (acceptor, mut left) in self.base.remaining_backlog() {
            while left > 0 && !self.has(Fault::DropsQueue) && in_time() && self.accept(acceptor) {
                left -= 1;
            }
        }
        let accepts_on = self.has(Fault::KeepsAccepting);
        if !accepts_on {
            self.base.host.close_listeners();
        }
        let mut busy = Instant::now();
        while (self.shared.is_busy() || accepts_on && busy.elapsed() < PAUSE) && in_time() {
            if self.shared.is_busy() {
                busy = Instant::now();
            }
            self.base.tick();
            self.wait(if accepts_on { &self.base.acceptors } else { &[] })?;
        }
        Ok(())
    }
}

/// What the log says of a fault.
const ASKED_FOR: &str = "the fault that was asked for";
/// Longer than any check.
const FOR_EVER: Duration = Duration::from_secs(60);
/// How long a class that looks now and then does not look.
const PAUSE: Duration = Duration::from_millis(900);
const LIMIT_MS: u16 = 200;
