//! Accepting connections: the listening socket as a worker uses it, which errors of `accept` concern one connection
//! alone, how long accepting pauses after the others, and a spare descriptor for when the process has no other left.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{SockaddrStorage, getsockname, setsockopt, sockopt};
use worker_api::{Interest, Listener};

use crate::clock::now_ns;
use crate::deadline::Deadline;
use crate::ends::{Endpoint, Local, ip_address};
use crate::poll;
use crate::socket;

/// A listening socket as a worker accepts from it. The host owns the socket.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// Open while the acceptor is in use: see [`Acceptor::new`].
    fd: RawFd,
    local: Arc<Local>,
    state: Arc<AcceptState>,
}

/// A connection just accepted: non-blocking, closed on exec.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The client's end.
    pub peer: Endpoint,
    /// The client's IP address, if it has one.
    pub peer_ip: Option<IpAddr>,
    /// The server's end.
    pub local: Arc<Local>,
}

/// The result of [`Acceptor::take`].
#[derive(Debug)]
pub enum AcceptResult {
    /// An accepted connection.
    Connection(Accepted),
    /// No connection is waiting.
    Empty,
    /// Accepting fails for lack of descriptors or memory, or because the system forbids it: stop watching the
    /// listener for this long, since its poller would report it without end. The reason has been logged.
    Rest(Duration),
}

/// State that the acceptors of a worker share.
#[derive(Debug, Default)]
pub(crate) struct AcceptState {
    /// Whether `inner` has to be checked after the next successful accept: the spare descriptor is missing,
    /// or the last accept failed.
    degraded: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    spare: Option<EventFd>,
    /// The pause after the last failure; zero while accepting works.
    pause: Duration,
    /// The `errno` that was logged last, and when (monotonic nanoseconds).
    logged: Option<(Option<i32>, u64)>,
}

impl Acceptor {
    /// Creates an acceptor for one of the host's listeners.
    ///
    /// # Safety
    /// The listener stays open as long as the acceptor and its clones are used. The host keeps the listeners of
    /// [`Host::listeners`](worker_api::Host::listeners) open until the class calls
    /// [`Host::close_listeners`](worker_api::Host::close_listeners), which it does after it has stopped accepting.
    pub unsafe fn new(listener: &Listener) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::with_state(listener, &AcceptState::new()) }
    }

    /// Like [`Acceptor::new`], with a state that several acceptors share.
    ///
    /// # Safety
    /// As for [`Acceptor::new`].
    pub(crate) unsafe fn with_state(listener: &Listener, state: &Arc<AcceptState>) -> Self {
        let end = match getsockname::<SockaddrStorage>(listener.fd) {
            Ok(address) => Endpoint::from_address(&address, ip_address(&address)),
            Err(_) => Endpoint { host: listener.name.as_str().into(), port: 0 },
        };
        let private = listener.name.as_str() == worker_api::PRIVATE;
        let local = Arc::new(Local { end, unix: listener.unix, private, proxied: false });
        let acceptor = Self { fd: listener.fd, local, state: Arc::clone(state) };
        if !listener.unix {
            set_nodelay(acceptor.as_fd());
        }
        acceptor
    }

    /// Accepts one waiting connection; `WouldBlock` if there is none. Prefer [`Acceptor::take`], which
    /// handles errors.
    pub fn accept(&self) -> io::Result<Accepted> {
        let (fd, address) = socket::accept4(self.fd)?;
        let ip = address.as_ref().and_then(ip_address);
        let peer =
            address.map_or_else(Endpoint::nowhere, |address| Endpoint::from_address(&address, ip));
        Ok(Accepted {
            stream: TcpStream::from(fd),
            peer,
            peer_ip: ip.map(|ip| ip.ip().to_canonical()),
            local: Arc::clone(&self.local),
        })
    }

    /// Returns the descriptor of the listening socket.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Accepts one waiting connection. If the process has no descriptor left, the spare one is closed to make
    /// room, so that one client at a time is still served.
    pub fn take(&self) -> AcceptResult {
        let mut transient = 0;
        loop {
            match self.accept_with_spare() {
                Ok(accepted) => {
                    self.state.succeeded();
                    return AcceptResult::Connection(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state.succeeded();
                    return AcceptResult::Empty;
                }
                Err(error) if is_transient(&error) && transient < TRANSIENT_MAX => transient += 1,
                // Without a waiting connection this is no failure: accept(2) allocates the
                // descriptor first.
                Err(error) if is_exhaustion(&error) && !self.has_waiting() => {
                    return AcceptResult::Empty;
                }
                Err(error) => return AcceptResult::Rest(self.state.failed(&error)),
            }
        }
    }

    /// Returns the number of connections in the accept queue. The kernel does not report it for unix sockets:
    /// an estimate is used if at least one waits.
    pub fn waiting(&self) -> usize {
        if !self.has_waiting() {
            return 0;
        }
        // For a listening socket, `tcpi_unacked` is the length of the accept queue.
        socket::tcp_info(self.as_fd())
            .map_or(WAITING_ESTIMATE, |info| info.tcpi_unacked.max(1) as usize)
    }

    /// Returns whether a connection is waiting; true if that cannot be determined.
    fn has_waiting(&self) -> bool {
        poll::wait(self.fd(), Interest::READ, Deadline::PAST, || ()).unwrap_or(true)
    }

    fn accept_with_spare(&self) -> io::Result<Accepted> {
        let result = self.accept();
        if !result.as_ref().is_err_and(is_exhaustion) {
            return result;
        }
        let mut inner = self.state.lock();
        let Some(spare) = inner.spare.take() else { return result };
        self.state.degraded.store(true, Ordering::Relaxed);
        drop(spare);
        let result = self.accept();
        if result.is_err() {
            inner.refill(&self.state.degraded);
        }
        result
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the listener is open while the acceptor is used, as promised to `Acceptor::new`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AcceptState {
    /// Creates the state, with a spare descriptor if one is available.
    pub(crate) fn new() -> Arc<Self> {
        let state = Self::default();
        state.lock().refill(&state.degraded);
        Arc::new(state)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the pause after a successful accept.
    fn succeeded(&self) {
        if self.degraded.load(Ordering::Relaxed) {
            let mut inner = self.lock();
            inner.pause = Duration::ZERO;
            inner.refill(&self.degraded);
        }
    }

    /// Returns how long to pause after a failed accept. Logs each reason at most once a minute.
    fn failed(&self, error: &io::Error) -> Duration {
        self.degraded.store(true, Ordering::Relaxed);
        let mut inner = self.lock();
        let (errno, now) = (error.raw_os_error(), now_ns());
        let is_known = |&(logged, at_ns): &(Option<i32>, u64)| {
            logged == errno && now.saturating_sub(at_ns) < LOG_INTERVAL_NS
        };
        if !inner.logged.as_ref().is_some_and(is_known) {
            inner.logged = Some((errno, now));
            tracing::warn!(
                "cannot accept connections: {error}; retrying after pauses of up to 1 s"
            );
        }
        inner.pause = (inner.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        inner.pause
    }
}

impl Inner {
    fn refill(&mut self, degraded: &AtomicBool) {
        if self.spare.is_none() {
            self.spare = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).ok();
        }
        degraded.store(self.spare.is_none() || !self.pause.is_zero(), Ordering::Relaxed);
    }
}

/// Returns whether an error of `accept` concerns one connection or is temporary, so that accepting can continue.
fn is_transient(error: &io::Error) -> bool {
    // According to accept(2), network errors of the new connection are to be treated like `EAGAIN`.
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// On Linux, accepted connections inherit the option from their listener: no system call for each.
fn set_nodelay(listener: BorrowedFd<'_>) {
    // A listener without the option still works: at worst, small writes are delayed.
    let _ = setsockopt(&listener, sockopt::TcpNoDelay, &true);
}

/// Returns whether the process or the system has run out of descriptors.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The number of consecutive transient errors after which accepting pauses.
const TRANSIENT_MAX: usize = 64;
/// The assumed length of an accept queue that is not empty and whose length is unknown.
const WAITING_ESTIMATE: usize = 16;
/// The pause after the first failure; each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The minimum time between two log lines with the same reason.
const LOG_INTERVAL_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound_and_ends_with_success() {
        let state = AcceptState::new();
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let pauses: Vec<u128> = (0..9).map(|_| state.failed(&error).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        state.succeeded();
        assert_eq!(state.failed(&error), PAUSE_MIN);
    }

    #[test]
    fn an_accepted_connection_knows_both_ends_and_does_not_block() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let name = server.local_addr().unwrap().to_string();
        let listener = Listener { fd: server.as_raw_fd(), name: name.into(), unix: false };
        // SAFETY: `server` outlives the acceptor.
        let acceptor = unsafe { Acceptor::new(&listener) };
        assert_eq!(acceptor.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let accepted = acceptor.accept().unwrap();
        assert_eq!(accepted.peer.host, "127.0.0.1");
        assert_eq!(accepted.peer.port, client.local_addr().unwrap().port());
        assert_eq!(accepted.local.end.port, server.local_addr().unwrap().port());
        assert!(accepted.stream.nodelay().unwrap());
        let read = io::Read::read(&mut &accepted.stream, &mut [0]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
