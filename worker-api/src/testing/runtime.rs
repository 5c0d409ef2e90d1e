//! The runtime of a class whose threads block.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RStr, RString, RVec};

use crate::failure::{Failure, FailureKind};
use crate::raw::{Interest, RawRuntime, RawRuntime_TO, RuntimeBox, TaskBox};

/// A runtime that blocks the calling thread, as those of sync and gthread do. Background tasks, connects and lookups run on
/// threads; what exceeds its timeout continues there, and its result is dropped.
///
/// ```
/// use std::time::Duration;
///
/// use worker_api::testing::TestRuntime;
///
/// let runtime = worker_api::Runtime::from_raw(TestRuntime::raw());
/// runtime.sleep(Duration::from_millis(1))?;
/// assert_eq!(runtime.offload(|| 6 * 7)?, 42);
/// # Ok::<(), worker_api::Failure>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TestRuntime;

impl TestRuntime {
    /// Returns the runtime for [`crate::AppHandle::init_worker`].
    pub fn raw() -> RuntimeBox {
        RawRuntime_TO::from_value(Self, TD_Opaque)
    }
}

impl RawRuntime for TestRuntime {
    fn cooperative(&self) -> bool {
        false
    }

    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure> {
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        match poll(fd, interest, timeout) {
            Ok(is_ready) => RResult::ROk(is_ready),
            Err(error) => RResult::RErr(Failure::io("cannot wait for a descriptor", &error)),
        }
    }

    fn sleep(&self, ns: u64) -> RResult<(), Failure> {
        thread::sleep(Duration::from_nanos(ns));
        RResult::ROk(())
    }

    fn spawn(&self, mut task: TaskBox) -> RResult<(), Failure> {
        thread::spawn(move || task.run());
        RResult::ROk(())
    }

    fn offload(&self, mut task: TaskBox) -> RResult<(), Failure> {
        task.run();
        RResult::ROk(())
    }

    fn connect(&self, address: RStr<'_>, timeout_ns: u64) -> RResult<i32, Failure> {
        if !is_well_formed(&address) {
            return RResult::RErr(Failure::application(format!(
                "cannot connect to `{address}`: write HOST:PORT, [IPV6]:PORT or unix:PATH"
            )));
        }
        let what = format!("cannot connect to {address}");
        let address = address.to_string();
        let connected = within(timeout_ns, &what, move || connect(&address));
        connected.map(OwnedFd::into_raw_fd).into()
    }

    fn resolve(
        &self,
        host: RStr<'_>,
        port: u16,
        timeout_ns: u64,
    ) -> RResult<RVec<RString>, Failure> {
        let what = format!("cannot resolve {host}");
        let host = host.to_string();
        let found = within(timeout_ns, &what, move || {
            let addresses = (host, port).to_socket_addrs()?;
            Ok(addresses.map(|address| address.to_string().into()).collect())
        });
        found.into()
    }
}

/// Returns whether the runtimes of the worker classes accept this address: a literal one, a name without colons and
/// brackets, or a path that is not empty.
fn is_well_formed(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix:") {
        return !path.is_empty();
    }
    let is_name = |name: &str| !name.is_empty() && !name.contains([':', '[', ']', '\0']);
    address.parse::<SocketAddr>().is_ok()
        || address
            .rsplit_once(':')
            .is_some_and(|(name, port)| is_name(name) && port.parse::<u16>().is_ok())
}

fn connect(address: &str) -> io::Result<OwnedFd> {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    let stream = TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

/// Runs `work` on a thread, and waits for its result for at most `timeout_ns`. `what` begins the message of a failure.
fn within<T: Send + 'static>(
    timeout_ns: u64,
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone if the time has passed.
    thread::spawn(move || drop(sender.send(work())));
    // The longest wait, 585 years, stands for none.
    match receiver.recv_timeout(Duration::from_nanos(timeout_ns)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::io(what, &error)),
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure::new(FailureKind::TIMEOUT, format!("{what}: the time has passed")))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(Failure::new(FailureKind::OTHER, format!("{what}: its thread panicked")))
        }
    }
}

/// Waits until a descriptor is ready. Returns false if `timeout` passes first.
pub(super) fn poll(fd: i32, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut events = 0;
    for (direction, event) in [(Interest::READ, libc::POLLIN), (Interest::WRITE, libc::POLLOUT)] {
        if interest.0 & direction.0 != 0 {
            events |= event;
        }
    }
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: a wait of less than a millisecond is not a busy loop.
        let left_ms = left.map_or(-1, |left| {
            i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: `polled` is one valid `pollfd`, which outlives the call.
        match unsafe { libc::poll(&raw mut polled, 1, left_ms) } {
            0 if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            0 => {}
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_is_awaited_in_each_direction() {
        let (mut one, other) = UnixStream::pair().expect("there are descriptors left");
        let wait = |interest, limit| {
            poll(other.as_raw_fd(), interest, Some(Duration::from_millis(limit))).expect("it waits")
        };
        assert!(wait(Interest::WRITE, 10_000));
        assert!(!wait(Interest::READ, 1));
        one.write_all(b"x").expect("it is open");
        assert!(wait(Interest::READ, 10_000));
    }

    #[test]
    fn work_has_until_its_timeout() {
        let (end, ended) = mpsc::channel::<()>();
        let late = within(1, "cannot wait", move || ended.recv().map_err(io::Error::other));
        assert_eq!(late.map_err(|failure| failure.kind), Err(FailureKind::TIMEOUT));
        drop(end);
        assert_eq!(within(u64::MAX, "cannot add", || Ok(1 + 1)).ok(), Some(2));
    }
}
