//! Servers with several workers: their memory when they have just started to serve and when they have served for
//! long, that of the first process, and how often it wakes up while idle.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::{Entry, Outcome, Stage};
use crate::result::{Metric, Row, Spread};
use crate::server::Server;
use crate::{load, proc};

/// One server at a time: pages of an executable that several have open would count only partly for each.
pub(super) fn measure(stage: &Stage<'_>) -> Outcome {
    let mut rows = Vec::new();
    let mut absent = Vec::new();
    for entry in stage.entries() {
        match stage.start(entry).and_then(|server| take_turn(stage, entry, &server)) {
            Ok(row) => rows.push(row),
            Err(why) => absent.push(stage.absence(entry, &why)),
        }
    }
    (rows, absent)
}

fn take_turn(stage: &Stage<'_>, entry: Entry, server: &Server) -> Result<Row, String> {
    let mut row = Row::new(entry.name(), entry.contender.role());
    let request = stage.request(entry, server.address);
    let pss_mib = |pids: &[u32]| proc::pss_kib(pids) as f64 / 1024.0;
    let ask = |count| {
        ask_at_once(server.address, &request, count).map_err(|error: io::Error| error.to_string())
    };
    ask(FIRST)?;
    row.push(Metric::YoungMemory, pss_mib(&server.pids()));
    ask(REQUESTS - FIRST)?;
    let leader = server.leader();
    let before = proc::sleeps(leader);
    thread::sleep(IDLE);
    let woken = proc::sleeps(leader) - before;
    row.push(Metric::Wakes, woken as f64 / IDLE.as_secs_f64());
    row.push(Metric::Memory, pss_mib(&server.pids()));
    row.push(Metric::LeaderMemory, pss_mib(&[leader]));
    let others = server.pids().into_iter().filter(|pid| *pid != leader);
    let private = others.filter_map(proc::private_kib).map(|kib| kib as f64 / 1024.0).collect();
    if let Some(private) = Spread::of(private) {
        row.push(Metric::PrivateMemory, private.median);
    }
    eprintln!("{}: {}", stage.scenario.name, row.name);
    Ok(row)
}

/// Several at once, each over a new connection: otherwise one worker could serve them all, and the memory of the
/// others would be meaningless.
fn ask_at_once(address: SocketAddr, request: &[u8], count: usize) -> io::Result<()> {
    let asks = || (0..count / CLIENTS).try_for_each(|_| load::ask(address, request));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(asks)).collect();
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        })
    })
}

/// Enough that every worker has served some.
const FIRST: usize = 800;
/// Some 5,000 for each worker: enough that its garbage collector has traversed all of its objects once. Before, the
/// memory of a worker that has served for a day cannot be estimated.
const REQUESTS: usize = 20_000;
/// Twice the number of workers.
const CLIENTS: usize = 8;
/// How long the server is left idle.
const IDLE: Duration = Duration::from_secs(10);
