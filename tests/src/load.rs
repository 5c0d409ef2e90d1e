//! Many concurrent clients, each careful, and an account of every request.
//!
//! A careful client checks whether a kept-alive connection is still open before it sends on it. Losses are
//! classified: a *race* (a kept-alive connection closed just as the request was sent, without a byte of a
//! response; a retry is correct) and a *failure* (anything else: a refused or reset new connection, a truncated
//! or wrong response, an unexpected status).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::http::{Address, Answer, Broken, Connection};
use crate::wait;

/// Behavior of the clients.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of clients.
    pub clients: usize,
    /// Whether they keep their connections alive.
    pub keep: bool,
    /// Pause of each between a response and its next request.
    pub think: Duration,
    /// The request, given its number.
    pub ask: fn(u64) -> Ask,
}

/// One request, and the expected body of its response.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Method: GET or POST.
    pub method: &'static str,
    /// Target.
    pub target: String,
    /// Body of the request.
    pub body: Vec<u8>,
    /// Body of the response, if it is known.
    pub expected: Option<Vec<u8>>,
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// Results of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Complete and correct responses.
    pub answered: u64,
    /// How long each of these took, from the first byte sent.
    pub took: Vec<Duration>,
    /// Connections opened.
    pub connections: u64,
    /// Kept-alive connections that closed just as a request was sent.
    pub races: Vec<String>,
    /// Lost requests.
    pub failures: Vec<String>,
}

/// Number of failures that each client describes before it stops.
const DESCRIBED_MAX: usize = 5;

impl Default for Plan {
    fn default() -> Self {
        Self { clients: 16, keep: true, think: Duration::from_millis(5), ask: echo_or_hello }
    }
}

/// Every fourth request sends a unique body and expects it back; the others ask for `/`.
pub fn echo_or_hello(number: u64) -> Ask {
    if number.is_multiple_of(4) {
        let body = format!("request {number} ").repeat(1 + (number % 50) as usize).into_bytes();
        let expected = Some(body.clone());
        return Ask { method: "POST", target: "/echo".to_owned(), body, expected };
    }
    get("/")
}

/// A GET whose response body is not checked.
pub fn get(target: &str) -> Ask {
    Ask { method: "GET", target: target.to_owned(), body: Vec::new(), expected: None }
}

impl Load {
    /// Starts the clients.
    pub fn start(address: &Address, plan: Plan) -> Self {
        let address = address.clone();
        Self::through(move || Connection::open(&address), plan)
    }

    /// Starts the clients, with connections from `connect`.
    pub fn through(
        connect: impl Fn() -> io::Result<Connection> + Send + Sync + 'static,
        plan: Plan,
    ) -> Self {
        let connect = Arc::new(connect);
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients = (0..plan.clients as u64)
            .map(|client| {
                let (stop, answered) = (stop.clone(), answered.clone());
                let connect = Arc::clone(&connect);
                let name = format!("client {client}");
                let work = move || serve_client(&*connect, plan, client << 32, &stop, &answered);
                thread::Builder::new().name(name).spawn(work).expect("a thread can be made")
            })
            .collect();
        Self { stop, answered, clients }
    }

    /// Returns the number of requests served so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this number of further requests has been served: proof that the service continues.
    pub fn flows(&self, more: u64, limit: Duration) {
        let wanted = self.answered() + more;
        wait::until(&format!("{more} more answers"), limit, || {
            assert!(!self.clients.iter().all(JoinHandle::is_finished), "all clients gave up");
            let answered = self.answered();
            if answered >= wanted {
                Ok(())
            } else {
                Err(format!("{} are missing", wanted - answered))
            }
        });
    }

    /// Lets the clients finish their current request, and sums up.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client does not panic");
            sum.answered += tally.answered;
            sum.took.extend(tally.took);
            sum.connections += tally.connections;
            sum.races.extend(tally.races);
            sum.failures.extend(tally.failures);
        }
        sum
    }
}

impl Tally {
    /// Returns the time within which 99 of 100 requests were answered.
    pub fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// Panics unless every request was served, and some were.
    pub fn assert_nothing_lost(&self) {
        assert!(
            self.failures.is_empty() && self.races.is_empty() && self.answered > 0,
            "{} answered on {} connections, {} failed: {:#?}, {} raced: {:#?}",
            self.answered,
            self.connections,
            self.failures.len(),
            &self.failures[..self.failures.len().min(8)],
            self.races.len(),
            &self.races[..self.races.len().min(8)],
        );
    }
}

fn serve_client(
    connect: &dyn Fn() -> io::Result<Connection>,
    plan: Plan,
    first: u64,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Connection> = None;
    let mut number = first;
    while !stop.load(Ordering::Relaxed) && tally.failures.len() < DESCRIBED_MAX {
        number += 1;
        let ask = (plan.ask)(number);
        let reused = kept.take().filter(Connection::fresh);
        let old = reused.is_some();
        let connection = reused.map_or_else(connect, Ok);
        tally.connections += u64::from(!old);
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tally.failures.push(format!("connect: {error}"));
                continue;
            }
        };
        let began = Instant::now();
        match exchange(&mut connection, &ask, plan.keep) {
            Ok(answer) => {
                tally.answered += 1;
                tally.took.push(began.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
                kept = (plan.keep && answer.keeps()).then_some(connection);
            }
            Err(Broken::Closed | Broken::Reset) if old => {
                tally.races.push(format!("{} {}", ask.method, ask.target));
            }
            Err(broken) => tally.failures.push(format!("{} {}: {broken}", ask.method, ask.target)),
        }
        if !plan.think.is_zero() {
            // The pause of a client that thinks: the load of a test, not a wait for the server.
            thread::sleep(plan.think);
        }
    }
    tally
}

fn exchange(connection: &mut Connection, ask: &Ask, keep: bool) -> Result<Answer, Broken> {
    let length = match ask.method {
        "GET" => String::new(),
        _ => format!("Content-Length: {}\r\n", ask.body.len()),
    };
    let close = if keep { "" } else { "Connection: close\r\n" };
    let head =
        format!("{} {} HTTP/1.1\r\nHost: test\r\n{length}{close}\r\n", ask.method, ask.target);
    let sent = connection.send([head.as_bytes(), &ask.body].concat());
    // A server may respond and close before it has read everything: the response counts, not the failed send.
    let answer = match (connection.answer(ask.method), sent) {
        (Err(Broken::Io(_)), Err(_)) => return Err(Broken::Reset),
        (answer, _) => answer?,
    };
    let wrong = ask.expected.as_ref().is_some_and(|expected| *expected != answer.body);
    if answer.status != 200 || wrong {
        return Err(Broken::Malformed(format!("status {}: {:.100}", answer.status, answer.text())));
    }
    if !connection.left_over().is_empty() {
        return Err(Broken::Malformed("more than one answer to one request".to_owned()));
    }
    Ok(answer)
}
