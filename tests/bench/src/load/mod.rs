//! The load generator: a fixed number of requests over some connections, on one thread.
//!
//! The number is fixed instead of the time, so that the server's CPU time divided by it is exact. Each connection
//! has one request in progress; there is no pipelining and no pacing.
//!
//! | module | purpose |
//! | --- | --- |
//! | `mod` | the plan, the loop over all connections, the result |
//! | `connection` | one connection: sends a request, reads the response, repeats |
//! | `answer`, `chunked` | find the end of a response, of a chunked body |
//! | `websocket` | the frames of a WebSocket |

mod answer;
mod chunked;
mod connection;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use self::connection::{Connection, Progress};
pub use self::websocket::{Message, handshake};

/// What to request, how often, and over how many connections.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Address of the server.
    pub address: SocketAddr,
    /// The complete request, head and body.
    pub request: Vec<u8>,
    /// Total number of requests.
    pub requests: u64,
    /// Number of concurrent connections.
    pub connections: usize,
    /// Whether a connection carries more than one request. If not, the request is complete when the server
    /// has closed the connection.
    pub keep_alive: bool,
    /// With a message, the request opens a WebSocket, on which each further request is this message.
    pub message: Option<Message>,
}

/// Result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// From the first connect to the last byte of the last response.
    pub took: Duration,
    /// Responses per second while each connection had a request in progress, without those of the first requests, which
    /// all came at once and with a connect; 0 if there was no such time.
    pub steady_rate: f64,
    /// Times from a request's first byte to its response's last in microseconds, sorted. With a new
    /// connection per request, the connect is included.
    pub latencies_us: Vec<u32>,
    /// Number of requests without a response of status 200, or with a partial one.
    pub failed: u64,
}

impl Outcome {
    /// Returns the responses per second.
    pub fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.took.as_secs_f64()
    }

    /// Returns the time within which this share of the responses arrived, in microseconds.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies_us.get(at).copied().unwrap_or_default().into()
    }
}

/// Sends the requests of a plan. Returns an error if nothing can be measured: no server listens, or nothing moves
/// for `STALL`.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    let connections = plan.connections.min(usize::try_from(plan.requests).unwrap_or(usize::MAX));
    let mut run = Run {
        plan,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        latencies_us: Vec::with_capacity(usize::try_from(plan.requests).unwrap_or_default()),
        failed: 0,
        unsent: plan.requests,
        part: vec![0; PART],
    };
    let begun = Instant::now();
    let mut slots = (0..connections).map(|at| run.connect(at)).collect::<io::Result<Vec<_>>>()?;
    let mut events = vec![EpollEvent::empty(); connections.max(1)];
    let mut steady = Steady::default();
    while run.answered() < plan.requests {
        let ready = run.wait(&mut events)?;
        for event in &events[..ready] {
            run.proceed(&mut slots, event.data() as usize)?;
        }
        if run.unsent > 0 && run.answered() >= connections as u64 {
            steady.reach(run.answered());
        }
    }
    let took = begun.elapsed();
    run.latencies_us.sort_unstable();
    let steady_rate = steady.rate();
    Ok(Outcome { took, steady_rate, latencies_us: run.latencies_us, failed: run.failed })
}

/// When, and after how many responses, the time began in which each connection has a request in progress, and how far it
/// has come.
#[derive(Default)]
struct Steady {
    first: Option<(Instant, u64)>,
    last: Option<(Instant, u64)>,
}

impl Steady {
    fn reach(&mut self, answered: u64) {
        self.last = Some((Instant::now(), answered));
        self.first = self.first.or(self.last);
    }

    fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0.0 };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds > 0.0 { (last.1 - first.1) as f64 / seconds } else { 0.0 }
    }
}

/// Connections that stay idle after one response, until this is dropped.
pub struct Idle(Vec<std::net::TcpStream>);

impl Idle {
    /// Opens connections and gets one response on each, so that the server treats them as kept alive.
    pub fn open(address: SocketAddr, request: &[u8], count: usize) -> io::Result<Self> {
        let begun = Instant::now();
        let mut streams = Vec::with_capacity(count);
        for opened in 0..count {
            if begun.elapsed() > OPEN_MAX {
                let words = format!("it took {opened} idle connections in {OPEN_MAX:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            streams.push(connection::ask_once(address, request)?);
        }
        Ok(Self(streams))
    }

    /// Returns how many of them the server has not closed.
    pub fn alive(&self) -> usize {
        let open = |stream: &&std::net::TcpStream| {
            stream.set_nonblocking(true).is_ok()
                && matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        };
        self.0.iter().filter(open).count()
    }
}

/// Sends one request over a new connection and reads the response.
pub fn ask(address: SocketAddr, request: &[u8]) -> io::Result<()> {
    connection::ask_once(address, request).map(drop)
}

/// State of the loop.
struct Run<'plan> {
    plan: &'plan Plan,
    epoll: Epoll,
    latencies_us: Vec<u32>,
    failed: u64,
    unsent: u64,
    part: Vec<u8>,
}

impl<'plan> Run<'plan> {
    fn answered(&self) -> u64 {
        self.latencies_us.len() as u64 + self.failed
    }

    /// Opens a connection with a request; `None` if all requests have been sent.
    fn connect(&mut self, at: usize) -> io::Result<Option<Connection<'plan>>> {
        if self.unsent == 0 {
            return Ok(None);
        }
        self.unsent -= 1;
        let mut connection = Connection::open(self.plan, &self.epoll, at)?;
        connection.begin();
        Ok(Some(connection))
    }

    fn wait(&self, events: &mut [EpollEvent]) -> io::Result<usize> {
        match self.epoll.wait(events, EpollTimeout::try_from(STALL).unwrap_or(EpollTimeout::MAX)) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server stopped answering")),
            Ok(ready) => Ok(ready),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Continues one connection until it has to wait.
    fn proceed(&mut self, slots: &mut [Option<Connection<'plan>>], at: usize) -> io::Result<()> {
        while let Some(connection) = &mut slots[at] {
            match connection.proceed(&mut self.part) {
                Progress::Waiting => return Ok(()),
                Progress::Answered(latency_us) => self.latencies_us.push(latency_us),
                Progress::Failed => self.failed += 1,
            }
            let reusable = connection.is_reusable();
            if reusable && self.unsent > 0 {
                self.unsent -= 1;
                connection.begin();
            } else {
                slots[at] = None;
                slots[at] = self.connect(at)?;
            }
        }
        Ok(())
    }
}

fn invalid(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// A server that sends nothing for this long has lost a request.
const STALL: Duration = Duration::from_secs(30);
/// A server that takes longer for the idle connections has a limit below their number.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Read size: a response of a megabyte takes few calls.
const PART: usize = 128 * 1024;
