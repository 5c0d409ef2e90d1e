//! Fairness: connections are spread over the workers, and the cooperative classes report greenlets that block
//! others or need more stack.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{Cell, Need},
    load::{Load, Plan, get},
    runner::Behaviour,
    server::{Server, Setup},
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(connections_are_spread_over_the_workers).of_class().heavy().within(120),
        behaviour!(a_late_head_does_not_wait_for_the_whole_queue),
        behaviour!(who_keeps_the_hub_is_named).of_class().needs(Need::Loops),
        behaviour!(an_overflow_is_named).of_class().needs(Need::Loops),
        behaviour!(a_body_that_is_always_ready_delays_no_one).needs(Need::Loops).heavy(),
    ]
}

/// In one of several rounds: other load on the machine can keep a worker from its share in the others. The
/// clients pause, so that workers wait for connections: of busy workers, the one that gets more CPU serves more.
fn connections_are_spread_over_the_workers(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 4").start();
    server.until_ready_workers(4);
    let plan = Plan { clients: 8, keep: false, think: PAUSE, ask: |_| get("/") };
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        let before = served(&server);
        let load = Load::start(server.address(), plan);
        load.flows(REQUESTS, Duration::from_secs(30));
        load.finish().assert_nothing_lost();
        let shares: Vec<u64> = served(&server)
            .iter()
            .map(|(pid, now)| now - before.iter().find(|(p, _)| p == pid).map_or(0, |(_, n)| *n))
            .collect();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        if *most as f64 <= *least as f64 * RATIO_MAX {
            return;
        }
        found.push(shares);
    }
    panic!("the busiest worker has more than {RATIO_MAX} times what the idlest has: {found:?}");
}

/// A client whose head was late is served before those that connected after it, not after all of them.
fn a_late_head_does_not_wait_for_the_whole_queue(cell: &Cell) {
    let server = Setup::new(cell).flags("--threads 1").start();
    let mut late = server.connect();
    late.send(b"GET / HTTP/1.1\r\n").unwrap();
    // The queue is in order: once this one is served, the worker has the first.
    assert_eq!(server.get("/").status, 200);
    let mut busy = server.connect();
    busy.send_get("/sleep?ms=300").unwrap();
    server.until_held("/sleep");
    let answered = Arc::new(AtomicUsize::new(0));
    let queue: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            client.send_get("/sleep?ms=100").unwrap();
            let answered = Arc::clone(&answered);
            thread::spawn(move || {
                let status = client.answer("GET").unwrap().status;
                answered.fetch_add(1, Ordering::Relaxed);
                status
            })
        })
        .collect();
    late.send(b"Host: late\r\n\r\n").unwrap();
    assert_eq!(late.answer("GET").unwrap().status, 200);
    let before = answered.load(Ordering::Relaxed);
    assert!(before <= 2, "{before} of those that came later were served first");
    for client in queue {
        assert_eq!(client.join().unwrap(), 200);
    }
}

fn who_keeps_the_hub_is_named(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("faulty_app"));
    let server = setup.flags("--greenlet-block-warning 0.2").start();
    assert_eq!(server.get("/fault/sleep900").status, 200);
    server.log.line(&["kept the hub for longer than its limit"], LONG);
    server.log.line(&["faulty-app/src/fault.rs"], LONG);
    assert_eq!(server.get("/").status, 200);
}

fn an_overflow_is_named(cell: &Cell) {
    let setup = Setup::new(cell).app(artifacts::library("faulty_app"));
    let server = setup.start();
    server.try_get("/fault/overflow").unwrap_err();
    server.log.line(&["coroutine stack overflow: raise greenlet_stack"], LONG);
    server.until_ready_workers(1);
    assert_eq!(server.get("/").status, 200);
}

/// A body of one-byte chunks, sent and read back as fast as the server accepts it: other requests are still
/// served.
fn a_body_that_is_always_ready_delays_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut sender = server.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    sender.send(head).unwrap();
    let mut reader = sender.twin();
    let (mut stop, chunks) = (sender.twin(), "1\r\na\r\n".repeat(4096));
    let sends = thread::spawn(move || while sender.send(&chunks).is_ok() {});
    let reads = thread::spawn(move || reader.ends(LONG));
    server.until_held("/echo");
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(server.get("/").status, 200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(!sends.is_finished() && !reads.is_finished(), "the upload ended early");
    assert!(slowest < TURN_MAX, "another request waited for {slowest:?}");
    stop.end_sending();
    sends.join().unwrap();
    assert!(reads.join().unwrap(), "the connection stayed open");
    server.stop();
}

/// Returns the number of requests that each worker has served.
fn served(server: &Server) -> Vec<(nix::unistd::Pid, u64)> {
    server.workers().iter().map(|worker| (worker.pid, worker.requests)).collect()
}

const ROUNDS: usize = 8;
/// Pause between a response and a client's next connection.
const PAUSE: Duration = Duration::from_millis(5);
/// Enough that chance alone keeps the shares within a tenth of each other.
const REQUESTS: u64 = 1500;
/// Maximum ratio between the shares of the busiest and the idlest worker.
const RATIO_MAX: f64 = 1.3;
/// Maximum wait of a request beside one that is always ready, on a busy machine.
const TURN_MAX: Duration = Duration::from_secs(1);
/// Symbolizing takes seconds on a busy machine.
const LONG: Duration = Duration::from_secs(30);
