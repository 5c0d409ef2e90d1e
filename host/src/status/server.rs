//! Connections of monitoring clients: a few at a time, one request each, all within seconds. No client can make
//! this process grow or keep it from others.

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Service;
use super::http::{HEAD_MAX, Parsed, Response, TEXT, is_own_host, parse};
use super::live::LiveScoreboard;
use super::prometheus;
use super::statsd::Statsd;
use super::view::{Health, View};
use crate::clock;
use crate::listener::Address;
use crate::process::set_nonblocking;

/// Serves until the process is killed.
pub(super) struct Server<'a> {
    listeners: Vec<(Service, Socket)>,
    clients: Vec<Client>,
    statsd: Option<Statsd>,
    scoreboard: LiveScoreboard<'a>,
    /// Names that the settings bind.
    bound: Vec<String>,
    /// No accepting until then, after an accept has failed.
    rest_until_ns: u64,
}

/// A listening socket by its family, which determines how accept reads the peer's address.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection: its request is read, then its response written.
struct Client {
    /// Read and written like a file.
    stream: File,
    service: Service,
    /// Browsers only reach TCP; requests through a unix socket may name any host.
    is_tcp: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    until_ns: u64,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        listeners: impl Iterator<Item = (Service, Address, OwnedFd)>,
        statsd: Option<Statsd>,
        scoreboard: LiveScoreboard<'a>,
        bound: Vec<String>,
    ) -> Self {
        let socket = |(service, address, socket): (_, _, OwnedFd)| match address {
            Address::Tcp(_) => (service, Socket::Tcp(socket.into())),
            Address::Unix(_) | Address::Abstract(_) => (service, Socket::Unix(socket.into())),
        };
        let listeners = listeners.map(socket).collect();
        Self { listeners, clients: Vec::new(), statsd, scoreboard, bound, rest_until_ns: 0 }
    }

    pub(super) fn serve(mut self) -> nix::Result<Infallible> {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let (clients, listeners) = ready.split_at(self.clients.len());
            for (client, _) in self.clients.iter_mut().zip(clients).filter(|(_, ready)| **ready) {
                client.proceed(self.scoreboard, &self.bound);
            }
            for (index, _) in listeners.iter().enumerate().filter(|(_, ready)| **ready) {
                self.accept(index);
            }
            let now_ns = clock::now_ns();
            self.clients.retain(|client| !client.is_over() && now_ns < client.until_ns);
            if let Some(statsd) = &mut self.statsd {
                statsd.send_due(now_ns, self.scoreboard);
            }
        }
    }

    /// Returns which clients, then which listeners, are ready. While the maximum number of clients is
    /// connected, listeners are not polled.
    fn wait(&self) -> nix::Result<Vec<bool>> {
        let now_ns = clock::now_ns();
        let deadlines = self.clients.iter().map(|client| client.until_ns);
        let rests = now_ns < self.rest_until_ns;
        let rest = rests.then_some(self.rest_until_ns);
        let due = deadlines.chain(self.statsd.as_ref().map(Statsd::due_ns)).chain(rest).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let millis = due.saturating_sub(now_ns).div_ceil(1_000_000).min(60_000);
            PollTimeout::from(millis as u16)
        });
        let has_room = self.clients.len() < CLIENTS_MAX && !rests;
        let clients = self.clients.iter().map(|client| {
            let wants =
                if client.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            PollFd::new(client.stream.as_fd(), wants)
        });
        let listeners = self.listeners.iter().map(|(_, socket)| {
            let wants = if has_room { PollFlags::POLLIN } else { PollFlags::empty() };
            PollFd::new(socket.as_fd(), wants)
        });
        let slots = PollFd::new(self.scoreboard.descriptor(), PollFlags::POLLIN);
        let mut polled: Vec<PollFd<'_>> = clients.chain(listeners).chain([slots]).collect();
        poll(&mut polled, timeout)?;
        // The arbiter's channel must not fill up while no metrics are requested.
        if polled.pop().and_then(|slots| slots.any()).unwrap_or(false) {
            self.scoreboard.current();
        }
        Ok(polled.iter().map(|polled| polled.any().unwrap_or(false)).collect())
    }

    fn accept(&mut self, index: usize) {
        let (service, socket) = &self.listeners[index];
        while self.clients.len() < CLIENTS_MAX {
            let stream = match socket.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // It would be reported as ready again at once.
                    self.rest_until_ns = clock::now_ns() + REST_NS;
                    return tracing::debug!(
                        "the status process cannot accept a connection: {error}"
                    );
                }
            };
            if set_nonblocking(stream.as_fd(), true).is_err() {
                continue;
            }
            self.clients.push(Client {
                stream: stream.into(),
                service: *service,
                is_tcp: matches!(socket, Socket::Tcp(_)),
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
                until_ns: clock::now_ns() + CLIENT_NS,
            });
        }
    }
}

impl Socket {
    fn accept(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| stream.into()),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| stream.into()),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Client {
    fn proceed(&mut self, scoreboard: LiveScoreboard<'_>, bound: &[String]) {
        if self.output.is_empty() {
            self.read(scoreboard, bound);
        }
        if !self.output.is_empty() {
            self.write();
        }
    }

    fn read(&mut self, scoreboard: LiveScoreboard<'_>, bound: &[String]) {
        let mut buffer = [0; 2048];
        while self.input.len() < HEAD_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.end(),
            }
        }
        self.output = match parse(&self.input) {
            Parsed::Incomplete => return,
            Parsed::Refused(status) => Response::status(status).bytes(false),
            Parsed::Request { host: Some(host), head_only, .. }
                if self.is_tcp && !is_own_host(&host, bound) =>
            {
                Response { status: 421, content_type: TEXT, body: MISDIRECTED.to_owned() }
                    .bytes(head_only)
            }
            Parsed::AgentCheck => {
                agent_line(View::take(scoreboard.current()).health()).as_bytes().to_vec()
            }
            Parsed::Request { path, head_only, .. } => {
                respond(self.service, &path, scoreboard).bytes(head_only)
            }
        };
    }

    fn write(&mut self) {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.until_ns = 0;
    }

    fn is_over(&self) -> bool {
        !self.output.is_empty() && self.written == self.output.len()
    }
}

fn respond(service: Service, path: &str, scoreboard: LiveScoreboard<'_>) -> Response {
    let view = || View::take(scoreboard.current());
    match (service, path) {
        (Service::Metrics, "/" | "/metrics") => {
            Response::ok(prometheus::CONTENT_TYPE, prometheus::text(&view()))
        }
        (Service::Page, "/") => Response::ok("text/html; charset=utf-8", PAGE.to_owned()),
        (Service::Page, "/status.json") => {
            // Strings, numbers and maps with string keys: JSON can represent all of them.
            let json = serde_json::to_string(&view()).unwrap_or_default();
            Response::ok("application/json", json)
        }
        (_, "/health") => match view().health() {
            Health::Serving => Response::ok(TEXT, "serving\n".to_owned()),
            Health::Stopping => Response::unavailable("stopping\n"),
            Health::Down => Response::unavailable("no worker serves\n"),
        },
        _ => Response::status(404),
    }
}

/// Returns the response to an agent check of HAProxy. It sets weight and operational state, not `drain` or `ready`:
/// the next `ready` would cancel a maintenance state that an operator has set in HAProxy.
fn agent_line(health: Health) -> &'static str {
    match health {
        Health::Serving => "up 100%\n",
        Health::Stopping => "up 0%\n",
        Health::Down => "down #no worker serves\n",
    }
}

/// Response to a request for a name that is not this server's.
const MISDIRECTED: &str =
    "unknown host: use an IP address, localhost, or the name in metrics_bind or status_bind\n";
/// The page, which polls `/status.json`.
const PAGE: &str = include_str!("page.html");
/// Maximum number of connections; others wait in the backlog.
const CLIENTS_MAX: usize = 32;
/// From accept to the last byte of the response.
const CLIENT_NS: u64 = 5_000_000_000;
/// Pause after a failed accept.
const REST_NS: u64 = 500_000_000;
