//! A worker class for tests that fails where it is told to, and otherwise answers every connection with the same few
//! bytes, without calling the application: the smallest class that there can be.
//!
//! `FAULTY_CLASS` or `[class.faulty] fault` names faults by the place where they happen: `constructor` (when the library
//! is opened), `root` (when its root module is made), `setup`, `new`, `init_process`, `run`, `serving`, `connection`,
//! `handle_exit`; see [`fault`].

#[path = "../../faulty-app/src/fault.rs"]
mod fault;

use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use worker_api::{
    Counter, Host, Listener, Result, Worker, WorkerClassRef, WorkerContext, WorkerFactory,
};

use fault::Faults;

/// The worker.
pub struct Faulty {
    host: Host,
    faults: Faults,
}

impl WorkerFactory for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const DESCRIPTION: &'static str = "fails where it is told to";

    fn setup(host: &Host) -> Result<()> {
        Faults::of(VARIABLE, &host.section()).happen("setup")
    }

    fn new(context: WorkerContext) -> Result<Self> {
        let faults = Faults::of(VARIABLE, &context.host.section());
        faults.happen("new")?;
        Ok(Self { host: context.host, faults })
    }
}

impl Worker for Faulty {
    fn init_process(&self) -> Result<()> {
        self.faults.happen("init_process")
    }

    fn run(&self) -> Result<()> {
        self.faults.happen("run")?;
        let listeners = self.host.listeners();
        let mut watched = vec![self.host.wake_descriptor()];
        watched.extend(listeners.iter().map(|listener| listener.fd));
        // With the first heartbeat it is ready.
        self.host.notify();
        self.faults.happen("serving")?;
        while self.host.alive() {
            self.host.notify();
            wait_readable(&watched);
            self.host.deliver_signals();
            for listener in &listeners {
                self.serve(listener);
            }
        }
        self.host.close_listeners();
        Ok(())
    }

    fn handle_exit(&self) {
        // There is nobody to return a failure to.
        let _ = self.faults.happen("handle_exit");
    }
}

impl Faulty {
    /// Answers everybody who waits at this listener.
    fn serve(&self, listener: &Listener) {
        while let Some(mut connection) = accept(listener) {
            self.host.count(Counter::ACCEPTED, 1);
            let _ = self.faults.happen("connection");
            // The request is of no interest, but must be read: closing before would reset the connection.
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(ANSWER);
        }
    }
}

trait Connection: Read + Write {}
impl<C: Read + Write> Connection for C {}

/// The next connection, blocking, with a time limit for its silence.
fn accept(listener: &Listener) -> Option<Box<dyn Connection>> {
    let silence = Some(Duration::from_secs(1));
    if listener.unix {
        // SAFETY: the host keeps the descriptor open while the worker runs; `ManuallyDrop` leaves it so.
        let socket = ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(listener.fd) });
        let (connection, _) = socket.accept().ok()?;
        connection.set_nonblocking(false).and(connection.set_read_timeout(silence)).ok()?;
        return Some(Box::new(connection));
    }
    // SAFETY: as above.
    let socket = ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(listener.fd) });
    let (connection, _) = socket.accept().ok()?;
    connection.set_nonblocking(false).and(connection.set_read_timeout(silence)).ok()?;
    Some(Box::new(connection))
}

/// Waits until one of the descriptors can be read, for at most a second: the heartbeat is due then.
fn wait_readable(descriptors: &[RawFd]) {
    let mut entries: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: the pointer and the length are those of a live, exclusively borrowed vector.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 1000) };
}

/// The root module, made by hand because its making can fail too.
pub fn root_module() -> WorkerClassRef {
    // The fault that is a failure has no way out of here, and is none.
    let _ = Faults::of_environment(VARIABLE).happen("root");
    worker_api::__worker_class::<Faulty>()
}

worker_api::__export_root!(WorkerClassRef);

/// What the dynamic linker calls when it opens the library.
extern "C" fn constructor() {
    let _ = Faults::of_environment(VARIABLE).happen("constructor");
}

// SAFETY: the section holds pointers to functions of the C ABI, and this is one.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
const VARIABLE: &str = "FAULTY_CLASS";
