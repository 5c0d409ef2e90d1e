//! The load generator: a fixed number of requests over some connections, from one thread.
//!
//! The number is fixed, and not the time, so that the processor time of the server divided by it is
//! exact. Each connection has one request under way; there is no pipelining and no pacing.
//!
//! | module | what it is |
//! | --- | --- |
//! | `mod` | the plan, the loop over all connections, the outcome |
//! | `connection` | one connection: sends its request, reads the answer, again |
//! | `answer` | where an answer ends |

mod answer;
mod connection;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use self::connection::{Connection, Progress};

/// What is to be asked, how often, and over how many connections.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The whole request, head and body.
    pub request: Vec<u8>,
    /// How many requests there are in all.
    pub requests: u64,
    /// Over how many connections at once.
    pub connections: usize,
    /// Whether a connection carries more than one request. If not, the request is complete when the
    /// server has closed the connection.
    pub keep_alive: bool,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// From the first connect to the last octet of the last answer.
    pub took: Duration,
    /// Times from a request's first octet to its answer's last in microseconds, sorted. With a new
    /// connection for each request, the connect counts.
    pub latencies_us: Vec<u32>,
    /// Requests that got no answer of status 200, or only a part of one.
    pub failed: u64,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.took.as_secs_f64()
    }

    /// The time within which that share of the answers came, in microseconds.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies_us.get(at).copied().unwrap_or_default().into()
    }
}

/// Sends the requests of a plan. Returns an error where nothing can be measured: nobody listens, or
/// nothing moves for `STALL`.
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
    while run.answered() < plan.requests {
        let ready = run.wait(&mut events)?;
        for event in &events[..ready] {
            run.proceed(&mut slots, event.data() as usize)?;
        }
    }
    let took = begun.elapsed();
    run.latencies_us.sort_unstable();
    Ok(Outcome { took, latencies_us: run.latencies_us, failed: run.failed })
}

/// Connections that ask nothing more after one answer; they live until this is dropped.
pub struct Idle(Vec<std::net::TcpStream>);

impl Idle {
    /// Opens connections and has each answered once, so that the server knows them as kept alive.
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

    /// How many of them the server has not closed.
    pub fn alive(&self) -> usize {
        let open = |stream: &&std::net::TcpStream| {
            stream.set_nonblocking(true).is_ok()
                && matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        };
        self.0.iter().filter(open).count()
    }
}

/// Sends one request over a new connection and reads its answer.
pub fn ask(address: SocketAddr, request: &[u8]) -> io::Result<()> {
    connection::ask_once(address, request).map(drop)
}

/// The state of the loop.
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

    /// A new connection with a request on it, or nothing where all have been sent.
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

    /// Goes on with one connection until it has to wait.
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

/// A server from which nothing comes for so long has lost a request.
const STALL: Duration = Duration::from_secs(30);
/// A server that takes longer for the idle connections than this has a limit below their number.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// How much is read at once: an answer of a megabyte takes few calls.
const PART: usize = 128 * 1024;
