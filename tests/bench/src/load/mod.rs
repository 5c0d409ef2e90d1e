//! The load generator: a fixed number of requests over some connections, on one thread.
//!
//! The number is fixed instead of the time, so that the server's CPU time divided by it is exact. Each connection
//! has one request in progress, or a fixed number that are pipelined; there is no pacing.
//!
//! | module | purpose |
//! | --- | --- |
//! | `mod` | the plan, the loop over all connections, the result |
//! | `connection` | one connection: sends a request, reads the response, repeats |
//! | `answer`, `chunked` | find the end of a response, of a chunked body |
//! | `websocket` | the frames of a WebSocket |
//! | `wrk` | wrk in the place of all of this |

mod answer;
mod chunked;
mod connection;
mod websocket;
pub mod wrk;

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
    /// What a connection sends at a time: the complete request, head and body, as often as `pipeline` says.
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
    /// Number of requests that a connection sends at a time; the next follow when all are answered.
    pub pipeline: usize,
}

impl Plan {
    /// A plan with one connection and one request, each sent alone.
    pub fn new(address: SocketAddr, request: Vec<u8>) -> Self {
        let (requests, connections, keep_alive, message) = (1, 1, true, None);
        Self { address, request, requests, connections, keep_alive, message, pipeline: 1 }
    }

    /// Returns the same plan with its request sent this number of times at once.
    #[must_use]
    pub fn pipelined(self, depth: usize) -> Self {
        Self { request: self.request.repeat(depth), pipeline: depth, ..self }
    }
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
    /// connection per request, the connect is included. Of pipelined requests all have the time of the last.
    pub latencies_us: Vec<u32>,
    /// Number of requests without a response of status 200, or with a partial one.
    pub failed: u64,
}

impl Outcome {
    /// Returns what any load generator reports.
    pub fn figures(&self) -> Figures {
        Figures {
            requests: self.latencies_us.len() as u64 + self.failed,
            failed: self.failed,
            rate: self.rate(),
            steady_rate: self.steady_rate,
            p50_us: self.quantile_us(0.5),
            p99_us: self.quantile_us(0.99),
        }
    }

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

/// What any load generator reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Number of requests, also of those that failed.
    pub requests: u64,
    /// Number of requests that failed.
    pub failed: u64,
    /// Responses per second.
    pub rate: f64,
    /// See [`Outcome::steady_rate`].
    pub steady_rate: f64,
    /// Median response time, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the response time, in microseconds.
    pub p99_us: f64,
}

/// Sends the requests of a plan. Returns an error if nothing can be measured: no server listens, or nothing moves
/// for `STALL`.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    Load::new(plan, false)?.run(plan.requests)
}

/// The connections of a plan.
pub struct Load<'plan> {
    plan: &'plan Plan,
    epoll: Epoll,
    slots: Vec<Option<Connection<'plan>>>,
    /// Whether connections stay open when all requests have been sent.
    stays: bool,
    latencies_us: Vec<u32>,
    failed: u64,
    unsent: u64,
    part: Vec<u8>,
}

impl<'plan> Load<'plan> {
    /// Opens all connections and gets a response on each, so that what follows has no connects in it.
    pub fn open(plan: &'plan Plan) -> io::Result<Self> {
        let mut load = Self::new(plan, true)?;
        load.run((load.slots.len() * plan.pipeline) as u64)?;
        Ok(load)
    }

    fn new(plan: &'plan Plan, stays: bool) -> io::Result<Self> {
        let batches = plan.requests.div_ceil(plan.pipeline as u64);
        let connections = plan.connections.min(usize::try_from(batches).unwrap_or(usize::MAX));
        Ok(Self {
            plan,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            slots: (0..connections).map(|_| None).collect(),
            stays,
            latencies_us: Vec::new(),
            failed: 0,
            unsent: 0,
            part: vec![0; PART],
        })
    }

    /// Sends this number of requests, rounded up to whole batches if they are pipelined.
    pub fn run(&mut self, requests: u64) -> io::Result<Outcome> {
        let requests = requests.next_multiple_of(self.plan.pipeline as u64);
        self.latencies_us = Vec::with_capacity(usize::try_from(requests).unwrap_or_default());
        (self.failed, self.unsent) = (0, requests);
        let connections = self.slots.len();
        let begun = Instant::now();
        for at in 0..connections {
            self.begin(at)?;
        }
        for at in 0..connections {
            self.proceed(at)?;
        }
        let mut events = vec![EpollEvent::empty(); connections.max(1)];
        let mut steady = Steady::default();
        while self.answered() < requests {
            let ready = self.wait(&mut events)?;
            for event in &events[..ready] {
                self.proceed(event.data() as usize)?;
            }
            if self.unsent > 0 && self.answered() >= connections as u64 {
                steady.reach(self.answered());
            }
        }
        let took = begun.elapsed();
        let mut latencies_us = std::mem::take(&mut self.latencies_us);
        latencies_us.sort_unstable();
        Ok(Outcome { took, steady_rate: steady.rate(), latencies_us, failed: self.failed })
    }

    fn answered(&self) -> u64 {
        self.latencies_us.len() as u64 + self.failed
    }

    /// Begins a batch on a connection, which is opened unless it is open; closes it if all have been sent.
    fn begin(&mut self, at: usize) -> io::Result<()> {
        if self.unsent == 0 {
            if !self.stays {
                self.slots[at] = None;
            }
            return Ok(());
        }
        self.unsent -= self.plan.pipeline as u64;
        if self.slots[at].is_none() {
            self.slots[at] = Some(Connection::open(self.plan, &self.epoll, at)?);
        }
        if let Some(connection) = &mut self.slots[at] {
            connection.begin();
        }
        Ok(())
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
    fn proceed(&mut self, at: usize) -> io::Result<()> {
        while let Some(connection) = &mut self.slots[at] {
            let batch = self.plan.pipeline;
            match connection.proceed(&mut self.part) {
                Progress::Waiting => return Ok(()),
                Progress::Answered(latency_us) => {
                    self.latencies_us.extend(std::iter::repeat_n(latency_us, batch));
                }
                Progress::Failed => self.failed += batch as u64,
            }
            if !connection.is_reusable() {
                self.slots[at] = None;
            }
            self.begin(at)?;
        }
        Ok(())
    }
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

fn invalid(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// A server that sends nothing for this long has lost a request.
const STALL: Duration = Duration::from_secs(30);
/// A server that takes longer for the idle connections has a limit below their number.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Read size: a response of a megabyte takes few calls.
const PART: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    /// Sends `answers` responses on one connection for each `batch` requests, cut into pieces of 50 bytes.
    fn serve(batch: usize, answers: usize) -> (SocketAddr, thread::JoinHandle<usize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut requests = vec![0; batch * REQUEST.len()];
            let mut served = 0;
            while stream.read_exact(&mut requests).is_ok() {
                assert_eq!(requests, REQUEST.repeat(batch));
                served += batch;
                for piece in ANSWER.repeat(answers).chunks(50) {
                    // A client that was sent too much has closed.
                    let _ = stream.write_all(piece);
                }
            }
            served
        });
        (address, server)
    }

    #[test]
    fn pipelined_requests_are_sent_together_and_each_is_answered() {
        let (address, server) = serve(16, 16);
        let plan = Plan { requests: 40, ..Plan::new(address, REQUEST.to_vec()) }.pipelined(16);
        let outcome = run(&plan).unwrap();
        assert_eq!((outcome.latencies_us.len(), outcome.failed), (48, 0), "whole batches");
        assert_eq!(server.join().unwrap(), 48);
    }

    #[test]
    fn connections_that_stay_open_serve_the_next_run() {
        let (address, server) = serve(1, 1);
        let plan = Plan { requests: 10, ..Plan::new(address, REQUEST.to_vec()) };
        let mut load = Load::open(&plan).unwrap();
        for _ in 0..2 {
            let outcome = load.run(5).unwrap();
            assert_eq!((outcome.latencies_us.len(), outcome.failed), (5, 0));
        }
        drop(load);
        assert_eq!(server.join().unwrap(), 11, "one when it was opened");
    }
}
