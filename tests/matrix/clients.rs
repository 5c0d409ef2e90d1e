//! Misbehaving clients, and a well-behaved client beside them.

use std::{
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::{Cell, Need},
    http::Connection,
    load::{Load, Plan, get},
    process,
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(silent_connections_delay_no_one),
        behaviour!(slow_heads_delay_no_one),
        behaviour!(a_slow_head_is_cut),
        behaviour!(a_head_that_trickles_is_cut).of_class(),
        behaviour!(slow_heads_in_every_place_give_way).of_class(),
        behaviour!(requests_that_are_served_do_not_give_way).of_class().needs(Need::Concurrency),
        behaviour!(a_body_that_stands_still_is_cut),
        behaviour!(a_client_that_reads_nothing_is_cut),
        behaviour!(a_body_that_trickles_is_cut).of_class(),
        behaviour!(a_client_that_reads_in_drops_is_cut).of_class(),
        behaviour!(five_hundred_slow_senders_delay_no_one).of_class().heavy(),
        behaviour!(five_hundred_slow_readers_delay_no_one)
            .needs(Need::SlowClients)
            .of_class()
            .heavy(),
        behaviour!(kept_connections_shut_out_no_new_one).needs(Need::KeepAlive),
        behaviour!(clients_that_vanish_harm_no_one),
        behaviour!(connections_made_and_dropped_harm_no_one),
        behaviour!(without_descriptors_the_service_recovers).of_class(),
        behaviour!(an_unread_upload_is_answered),
        behaviour!(idle_connections_are_no_burden).needs(Need::KeepAlive),
    ]
}

/// Time limit for a well-behaved client beside the bad ones.
const SOON: Duration = Duration::from_secs(2);

/// The same beside hundreds of senders, whose bytes keep a busy machine occupied: still less than their time limit,
/// which is how long a blocked client would wait.
const SOON_BESIDE_HUNDREDS: Duration = Duration::from_millis(3500);

/// Number of concurrent slow clients.
const SLOW: usize = 500;

fn assert_good_client_served(server: &Server) {
    assert_served_within(server, SOON);
}

fn assert_served_within(server: &Server, limit: Duration) {
    let begun = Instant::now();
    assert_eq!(server.get("/").status, 200);
    assert!(begun.elapsed() < limit, "the good client waited for {:?}", begun.elapsed());
}

fn silent_connections_delay_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let silent: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..5 {
        assert_good_client_served(&server);
    }
    drop(silent);
    assert_good_client_served(&server);
    server.stop();
}

fn slow_heads_delay_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut slow: Vec<Connection> = (0..30).map(|_| server.connect()).collect();
    for part in ["GET / HT", "TP/1.1\r", "\nHost:", " test\r\nX: y"] {
        slow.iter_mut().for_each(|client| client.send(part).unwrap());
        assert_good_client_served(&server);
    }
    for client in &mut slow {
        client.send("\r\n\r\n").unwrap();
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
}

fn a_slow_head_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--header-timeout 1").start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: te").unwrap();
    let begun = Instant::now();
    // Either a 408 or a plain close; in any case the end, and soon.
    let bytes = client.rest().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "cut after {:?}", begun.elapsed());
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{bytes:?}");
}

/// Within `header_timeout`, but more slowly than `min_rate`.
fn a_head_that_trickles_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--header-timeout 60 --min-rate 1000").start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nX: ").unwrap();
    let begun = Instant::now();
    while !client.ends(Duration::from_millis(100)) {
        let _ = client.send("x");
        assert!(begun.elapsed() < Duration::from_secs(15), "not cut");
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "cut after {:?}", begun.elapsed());
}

/// More of them than `worker_connections`: a client that arrives after all of them is served, even when they
/// reconnect.
pub(crate) fn slow_heads_in_every_place_give_way(cell: &Cell) {
    const PLACES: usize = 40;
    let server = Setup::new(cell).flags("--worker-connections 40 --keep-alive 60").start();
    let worker = server.serving_pid();
    let mut crowd = Vec::new();
    for begin in ["", "GET / HTTP/1.1\r\nHost: te", "GET / HTTP/1.1\r\nHost: test\r\n\r\n"] {
        crowd.extend((0..PLACES + PLACES / 2).map(|_| {
            let mut client = server.connect();
            client.send(begin).unwrap();
            client
        }));
        assert_served_within(&server, SOON_BESIDE_HUNDREDS);
    }
    assert_eq!(server.serving_pid(), worker);
    let log = server.log.text();
    assert!(log.contains("worker_connections (40) reached"), "{log}");
}

/// Connections whose requests are with the application stay: new ones wait.
fn requests_that_are_served_do_not_give_way(cell: &Cell) {
    let flags = "--worker-connections 4 --threads 8";
    let server = Setup::new(cell).flags(flags).start();
    let mut busy: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    busy.iter_mut().for_each(|client| client.send_get("/sleep?ms=1500").unwrap());
    wait::until("all are served", SOON, || match server.workers()[0].busy {
        4 => Ok(()),
        busy => Err(format!("{busy}")),
    });
    assert_eq!(server.get("/").status, 200);
    for client in &mut busy {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
}

fn a_body_that_stands_still_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--body-timeout 1").start();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    let begun = Instant::now();
    let end = client.answer("POST");
    assert!(end.as_ref().map_or(true, |answer| answer.status >= 400), "{end:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "cut after {:?}", begun.elapsed());
    assert_good_client_served(&server);
}

fn a_client_that_reads_nothing_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--write-timeout 1 --timeout 20").start();
    let worker = server.serving_pid();
    let mut client = server.connect();
    client.send_get("/stream?n=4000&size=16384").unwrap();
    let before = process::rss_kib(worker);
    // The response of 64 MB fits into no buffer; while it stalls, memory must not grow with it.
    assert!(client.fill().unwrap() > 0);
    server.until_workers("the slow reader was given up", |workers| {
        workers.iter().all(|worker| worker.busy == 0)
    });
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    assert_eq!(server.serving_pid(), worker);
    assert!(client.rest().is_err() || client.left_over().len() < 60 << 20);
}

/// Never stalled for as long as `body_timeout`, but slower than `min_rate`: under sync, too, the next client is
/// served.
fn a_body_that_trickles_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--body-timeout 1").start();
    let worker = server.serving_pid();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n").unwrap();
    let begun = Instant::now();
    while !client.ends(Duration::from_millis(100)) {
        let _ = client.send("x");
        assert!(begun.elapsed() < Duration::from_secs(6), "not cut");
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "cut after {:?}", begun.elapsed());
    assert_good_client_served(&server);
    assert_eq!(server.serving_pid(), worker);
}

/// Like a body that trickles, in the other direction.
fn a_client_that_reads_in_drops_is_cut(cell: &Cell) {
    let server = Setup::new(cell).flags("--write-timeout 1 --timeout 20").start();
    let worker = server.serving_pid();
    let mut client = server.connect();
    client.send_get("/stream?n=4000&size=16384").unwrap();
    assert!(client.take_byte().is_some());
    let begun = Instant::now();
    while server.workers().iter().any(|worker| worker.busy > 0) {
        client.take_byte();
        assert!(begun.elapsed() < Duration::from_secs(8), "not given up");
        // The client is slow: that is what is tested.
        thread::sleep(Duration::from_millis(100));
    }
    assert_good_client_served(&server);
    assert_eq!(server.serving_pid(), worker);
}

/// A byte per second, less than `min_rate`: they are disconnected in the end, and until then delay no other
/// client. Half of them send heads, the others bodies, if the class does not use a thread for each.
fn five_hundred_slow_senders_delay_no_one(cell: &Cell) {
    let flags = "--header-timeout 4 --body-timeout 4 --worker-connections 2000";
    let server = Setup::new(cell).flags(flags).start();
    let worker = server.serving_pid();
    let before = process::rss_kib(worker);
    let mut slow: Vec<Connection> = (0..SLOW).map(|_| server.connect()).collect();
    if cell.class.can(Need::SlowClients) {
        slow.extend((0..SLOW).map(|_| {
            let mut client = server.connect();
            client
                .send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n\r\n")
                .unwrap();
            client
        }));
    }
    until_taken_in(&server);
    let head = b"GET /slow HTTP/1.1\r\nHost: test\r\n";
    for byte in head.chunks(1).take(3) {
        slow.iter_mut().for_each(|client| client.send(byte).unwrap());
        let second = Instant::now() + Duration::from_secs(1);
        while Instant::now() < second {
            assert_served_within(&server, SOON_BESIDE_HUNDREDS);
            // A pace at which one good client is no load.
            thread::sleep(Duration::from_millis(50));
        }
    }
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more for {} slow senders", slow.len());
    let cut = Instant::now();
    assert!(slow.iter_mut().all(|client| client.ends(Duration::from_secs(8))), "not all are cut");
    assert!(cut.elapsed() < Duration::from_secs(8), "cut after {:?}", cut.elapsed());
    assert_good_client_served(&server);
    assert_eq!(server.serving_pid(), worker);
}

/// That many connecting at once is a load in itself, which is not under test: waits until a client after them is
/// served.
fn until_taken_in(server: &Server) {
    assert_eq!(server.get("/").status, 200);
}

/// Each requests more than any buffer holds, and reads one byte per second.
fn five_hundred_slow_readers_delay_no_one(cell: &Cell) {
    let flags = "--write-timeout 4 --worker-connections 2000";
    let server = Setup::new(cell).flags(flags).start();
    let worker = server.serving_pid();
    let before = process::rss_kib(worker);
    let mut slow: Vec<Connection> = (0..SLOW).map(|_| server.connect_narrow()).collect();
    for client in &mut slow {
        client.send_get("/stream?n=1000&size=16384").unwrap();
    }
    until_taken_in(&server);
    for _ in 0..3 {
        slow.iter_mut().for_each(|client| assert!(client.take_byte().is_some()));
        let second = Instant::now() + Duration::from_secs(1);
        while Instant::now() < second {
            assert_good_client_served(&server);
            // A pace at which one good client is no load.
            thread::sleep(Duration::from_millis(50));
        }
    }
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 128 << 10, "{grown} KiB more for {SLOW} slow readers");
    server.until_workers("all are given up", |w| w.iter().all(|worker| worker.busy == 0));
    assert_good_client_served(&server);
    assert_eq!(server.serving_pid(), worker);
}

/// More kept connections than a worker has threads, each with its next request as soon as it has a response.
fn kept_connections_shut_out_no_new_one(cell: &Cell) {
    let server = Setup::new(cell).flags("--threads 4").start();
    let ask = |_| get("/sleep?ms=10");
    let load = Load::start(
        server.address(),
        Plan { clients: 24, think: Duration::ZERO, ask, ..Plan::default() },
    );
    for _ in 0..3 {
        load.flows(100, Duration::from_secs(20));
        assert_good_client_served(&server);
    }
    load.finish().assert_nothing_lost();
}

fn clients_that_vanish_harm_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    for bytes in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "GET /stream?n=500&size=16384 HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /sleep?ms=20 HTTP/1.1\r\nHost: test\r\n\r\n",
        "\x16\x03\x01\x02garbage\0\0\0",
    ] {
        for with_reset in [false, true] {
            let mut client = server.connect();
            client.send(bytes).unwrap();
            if with_reset {
                client.reset();
            }
        }
        assert_good_client_served(&server);
    }
    assert_eq!(server.serving_pid(), worker, "no worker dies of its clients");
    server.stop();
}

fn connections_made_and_dropped_harm_no_one(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    let descriptors = process::descriptors(worker);
    for n in 0..1500 {
        let client = server.connect();
        if n % 2 == 0 {
            client.reset();
        }
    }
    assert_good_client_served(&server);
    assert_eq!(server.serving_pid(), worker);
    server.until_workers("nothing is held", |workers| workers.iter().all(|w| w.busy == 0));
    let left = process::descriptors(worker).saturating_sub(descriptors);
    assert!(left < 20, "{left} descriptors more");
}

/// No busy loop, no exit, and normal operation when descriptors are available again.
fn without_descriptors_the_service_recovers(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    let room = process::descriptors(worker) as u64 + 8;
    process::limit_descriptors(worker, room);
    let crowd: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    let ticks = || process::stat(worker).expect("the worker lives").ticks;
    let before = ticks();
    assert!(!process::gone(worker, Duration::from_secs(1)), "the worker ended");
    let spent = ticks() - before;
    assert!(spent < 50, "{spent} ticks in a second of want: a busy loop");
    drop(crowd);
    wait::until("an answer", Duration::from_secs(10), || match server.try_get("/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(server.serving_pid(), worker);
}

/// A body that is not read is not buffered, and the client sees the response.
fn an_unread_upload_is_answered(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    let before = process::rss_kib(worker);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 50000000\r\n\r\n").unwrap();
    let mut sender = client.twin();
    let sending = thread::spawn(move || {
        let part = vec![b'x'; 100_000];
        (0..500).take_while(|_| sender.send(&part).is_ok()).count()
    });
    let answer = client.answer("POST").unwrap();
    assert_eq!(answer.status, 200);
    drop(client);
    sending.join().unwrap();
    let grown = process::rss_kib(worker).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more for a body that is not read");
    assert_good_client_served(&server);
}

fn idle_connections_are_no_burden(cell: &Cell) {
    let server = Setup::new(cell).flags("--keep-alive 60 --threads 2").start();
    let mut idle: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert!(client.get("/").unwrap().keeps());
    }
    let plan = Plan { clients: 4, ask: |_| get("/"), ..Plan::default() };
    let load = Load::start(server.address(), plan);
    load.flows(200, Duration::from_secs(20));
    load.finish().assert_nothing_lost();
    for client in &mut idle {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
}
