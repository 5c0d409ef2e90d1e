//! TLS for connections that applications took over.
//!
//! An application that takes over a connection receives a descriptor, and expects that bytes are sent as it
//! writes them. If the connection uses TLS, that descriptor is one end of a socket pair. One thread of the worker
//! passes bytes between the other end and the client. It is started for the first such connection and serves all
//! of them.
//!
//! ```text
//!   client ◀── TLS ──▶ socket │ session │ inner ◀── plain ──▶ the application's descriptor
//! ```

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use worker_api::TlsSession;

/// The thread that serves these connections, and its inbox.
#[derive(Debug)]
pub(crate) struct Relay {
    inbox: Arc<Inbox>,
}

#[derive(Debug)]
struct Inbox {
    tunnels: Mutex<Vec<Tunnel>>,
    arrived: EventFd,
}

impl Inbox {
    fn locked(&self) -> MutexGuard<'_, Vec<Tunnel>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Tunnel> {
        std::mem::take(&mut *self.locked())
    }
}

impl Relay {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let arrived = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let inbox = Arc::new(Inbox { tunnels: Mutex::default(), arrived });
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&inbox.arrived, EpollEvent::new(EpollFlags::EPOLLIN, ARRIVED))?;
        let served = Arc::clone(&inbox);
        thread::Builder::new().name("tls-relay".to_owned()).spawn(move || {
            // Signals are handled by the worker's own threads. This cannot fail: the set is valid.
            let _ = SigSet::all().thread_block();
            if let Err(error) = serve(&epoll, &served) {
                tracing::error!("TLS relay failed, and its connections are lost: {error}");
            }
        })?;
        Ok(Self { inbox })
    }

    /// Serves a connection from now on, and returns the application's end. `unread` has been read from the
    /// client already.
    pub(crate) fn add(
        &self,
        socket: TcpStream,
        session: TlsSession,
        unread: &[u8],
    ) -> io::Result<OwnedFd> {
        let (inner, outer) = UnixStream::pair()?;
        inner.set_nonblocking(true)?;
        outer.set_nonblocking(true)?;
        let tunnel = Tunnel {
            socket,
            session,
            inner,
            to_app: Pending { bytes: unread.to_vec(), sent: 0 },
            to_client: Pending::default(),
            client_ended: false,
            app_ended: false,
            client_gone: false,
            app_gone: false,
            client_shut: false,
            app_shut: false,
            deadline: None,
        };
        self.inbox.locked().push(tunnel);
        self.inbox.arrived.write(1)?;
        Ok(outer.into())
    }
}

/// Runs the thread's loop. Returns only if epoll fails.
///
/// Both descriptors of a tunnel are watched for all events, edge-triggered: [`Tunnel::advance`] stops only when
/// one of them would block, and that one is reported when it no longer does.
fn serve(epoll: &Epoll, inbox: &Inbox) -> io::Result<()> {
    let mut tunnels: HashMap<u64, Tunnel> = HashMap::new();
    let mut next = ARRIVED + 1;
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    let mut buffer = vec![0; PART_MAX];
    let all = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    loop {
        let closing = tunnels.values().any(|tunnel| tunnel.deadline.is_some());
        let timeout =
            if closing { EpollTimeout::from(LINGER_CHECK_MS) } else { EpollTimeout::NONE };
        let count = match epoll.wait(&mut events, timeout) {
            Err(nix::Error::EINTR) => continue,
            outcome => outcome?,
        };
        let mut due = Vec::new();
        for event in &events[..count] {
            if event.data() != ARRIVED {
                let number = event.data() / 2;
                if let Some(tunnel) = tunnels.get_mut(&number) {
                    tunnel.note(event.data() % 2 == 0, event.events());
                    due.push(number);
                }
                continue;
            }
            // Nothing to read means that an earlier iteration took the new tunnels.
            let _ = inbox.arrived.read();
            for tunnel in inbox.take() {
                epoll.add(&tunnel.socket, EpollEvent::new(all, next * 2))?;
                epoll.add(&tunnel.inner, EpollEvent::new(all, next * 2 + 1))?;
                tunnels.insert(next, tunnel);
                due.push(next);
                next += 1;
            }
        }
        for number in due {
            if let Some(tunnel) = tunnels.get_mut(&number)
                && tunnel.advance(&mut buffer).unwrap_or_else(|error| {
                    tracing::debug!("relayed TLS connection closed: {error}");
                    true
                })
            {
                tunnels.remove(&number);
            }
        }
        if closing {
            let now = Instant::now();
            tunnels.retain(|_, tunnel| tunnel.deadline.is_none_or(|deadline| deadline > now));
        }
    }
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "two sides, each of which ends by itself")]
struct Tunnel {
    socket: TcpStream,
    session: TlsSession,
    inner: UnixStream,
    to_app: Pending,
    to_client: Pending,
    /// No more bytes arrive from there.
    client_ended: bool,
    app_ended: bool,
    /// The descriptor is closed in both directions.
    client_gone: bool,
    app_gone: bool,
    /// The end of one side was passed on to the other.
    client_shut: bool,
    app_shut: bool,
    /// The deadline for the client to close its side, once the application has closed its own.
    deadline: Option<Instant>,
}

impl Tunnel {
    /// Records that a descriptor is closed in both directions, which reading does not show.
    fn note(&mut self, client: bool, events: EpollFlags) {
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            let gone = if client { &mut self.client_gone } else { &mut self.app_gone };
            *gone = true;
        }
    }

    /// Moves bytes in both directions as far as possible. Returns true when the tunnel is finished.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.read_client(buffer)? | self.read_app(buffer)? {}
        if self.client_ended && self.to_app.is_empty() && !self.app_shut {
            self.app_shut = true;
            // Fails if the application has closed its end already.
            let _ = self.inner.shutdown(Shutdown::Write);
        }
        if self.app_ended && self.all_sent() && !self.client_shut {
            self.client_shut = true;
            self.session.send_close_notify(self.socket.as_raw_fd()).or_else(ignore_would_block)?;
            self.socket.shutdown(Shutdown::Write)?;
        }
        if self.app_gone && self.client_shut && self.deadline.is_none() {
            self.deadline = Some(Instant::now() + LINGER_MAX);
        }
        let client_over = self.client_gone || self.client_ended && self.client_shut;
        Ok(client_over && (self.to_app.is_empty() || self.app_gone))
    }

    /// Moves bytes to the application; returns whether there were any.
    fn read_client(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        if self.to_app.is_empty()
            && !self.client_ended
            && let Some(count) = ready(self.session.read(self.socket.as_raw_fd(), buffer))?
        {
            self.client_ended = count == 0;
            self.to_app.bytes.extend_from_slice(&buffer[..count]);
            moved = true;
        }
        if !self.to_app.is_empty() {
            match ready(self.inner.write(self.to_app.rest())) {
                Ok(Some(count)) => {
                    self.to_app.consume(count);
                    moved = true;
                }
                Ok(None) => {}
                // The application has closed its end: further bytes from the client are dropped.
                Err(_) => {
                    self.to_app = Pending::default();
                    (self.app_gone, self.app_ended) = (true, true);
                }
            }
        }
        Ok(moved)
    }

    /// Moves bytes to the client; returns whether there were any.
    fn read_app(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        while self.session.wants_write()
            && ready(self.session.flush_some(self.socket.as_raw_fd()))?.is_some()
        {
            moved = true;
        }
        if self.all_sent() && !self.app_ended {
            match ready(self.inner.read(buffer)) {
                Ok(Some(count)) => {
                    self.app_ended = count == 0;
                    self.to_client.bytes.extend_from_slice(&buffer[..count]);
                    moved = true;
                }
                Ok(None) => {}
                // The application closed its end with unread bytes.
                Err(_) => self.app_ended = true,
            }
        }
        if !self.to_client.is_empty() {
            let parts = [IoSlice::new(self.to_client.rest())];
            if let Some(count) = ready(self.session.write(self.socket.as_raw_fd(), &parts))? {
                self.to_client.consume(count);
                moved = true;
            }
        }
        Ok(moved)
    }

    fn all_sent(&self) -> bool {
        self.to_client.is_empty() && !self.session.wants_write()
    }
}

/// Bytes in transit.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn consume(&mut self, count: usize) {
        self.sent += count;
        if self.is_empty() {
            // An idle tunnel holds no memory.
            *self = Self::default();
        }
    }
}

/// Returns `None` if the call would block.
fn ready(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

fn ignore_would_block(error: io::Error) -> io::Result<()> {
    ready(Err(error)).map(drop)
}

/// The event data of the inbox; a tunnel's are twice its number, and one more.
const ARRIVED: u64 = 0;
const EVENTS_MAX: usize = 64;
/// The most bytes passed on at once.
const PART_MAX: usize = 16 * 1024;
/// How long a client may take to close its side after the application has closed its own.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How often tunnels with a deadline are checked.
const LINGER_CHECK_MS: u16 = 250;
