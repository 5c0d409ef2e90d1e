//! Network namespaces without a name: each is the network of one machine, and a test connects them.
//!
//! The kernel removes a namespace with its interfaces when the last process and the last descriptor of it are gone: nothing
//! remains even of a test that was killed.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{self, Command},
    sync::Arc,
    thread,
};

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Creates one that has only a loopback interface, which is down.
    pub fn create() -> io::Result<Self> {
        // unshare moves the thread that calls it: here, one that ends.
        let mover = thread::spawn(|| {
            // SAFETY: unshare takes only flags.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = mover.join().expect("the thread does not panic")?;
        Ok(Self(Arc::new(namespace)))
    }

    /// Moves this thread there: sockets that it creates from now on belong to this network.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: setns takes a descriptor, which is open, and flags.
        checked(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) })
    }

    /// Makes the command run there.
    pub fn contain(&self, command: &mut Command) {
        let namespace = self.clone();
        // SAFETY: the closure makes one system call on a descriptor that it owns, and does not allocate.
        unsafe { command.pre_exec(move || namespace.enter()) };
    }

    /// Returns a path of it that other programs can open while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
