//! What every cooperative class does alike, written once and run for each of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use worker_api::{App, Exchange, FailureKind, Requirements, Result, Runtime, WorkerFactory};

use crate::double::{Closure, LONG, Running, read_answer};

/// Settings of most tests.
const SETTINGS: &[(&str, f64)] =
    &[("keepalive", 5.0), ("graceful_timeout", 10.0), ("worker_connections", 100.0)];

fn hello(exchange: &mut Exchange) -> Result<()> {
    exchange.respond(200, &[], b"hello")
}

/// An application that sleeps for as many milliseconds as its query says.
#[derive(Default)]
struct Sleeper(OnceLock<Runtime>, Arc<Mutex<Vec<String>>>);

impl App for Sleeper {
    fn init_worker(&self, runtime: Runtime) -> Result<()> {
        self.0.get_or_init(|| runtime);
        Ok(())
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        let ms = exchange.head().query_value("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let slept = self.0.get().unwrap().sleep(Duration::from_millis(ms));
        self.1.lock().unwrap().push(format!("{slept:?}"));
        slept?;
        exchange.respond(200, &[], b"slept")
    }
}

/// An application that keeps its exchanges, and is driven by its own loop.
struct Guest(Mutex<Vec<Exchange>>);

impl App for Guest {
    fn requirements(&self) -> Requirements {
        Requirements::DEFERRED | Requirements::LOOP
    }

    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        self.0.lock().unwrap().push(exchange.detach());
        Ok(())
    }

    fn run_loop(&self, engine: worker_api::Engine) -> Result<()> {
        while !engine.stopped() {
            let ready = kit::poll::wait(
                engine.descriptor(),
                worker_api::Interest::READ,
                kit::clock::now_ns() + LONG.as_nanos() as u64,
                || (),
            );
            assert!(ready.unwrap(), "the engine's heartbeat makes it readable");
            engine.turn()?;
            let kept = std::mem::take(&mut *self.0.lock().unwrap());
            for mut exchange in kept {
                exchange.respond(200, &[], b"later")?;
            }
        }
        Ok(())
    }
}

pub fn a_connection_is_kept_and_pipelined_requests_are_answered<W: WorkerFactory>() {
    let server = Running::start::<W>(SETTINGS, Closure(hello));
    let mut client = server.connect();
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_answer(&mut client).ends_with("hello"));
    }
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50).as_slice()).unwrap();
    for _ in 0..50 {
        assert!(read_answer(&mut client).ends_with("hello"));
    }
    drop(client);
    server.signal(b't');
    server.join().unwrap();
    assert_eq!(server.host.access_log().len(), 53);
    assert_eq!(server.host.connections(), 0);
}

pub fn sleepers_sleep_side_by_side<W: WorkerFactory>() {
    let server = Running::start::<W>(SETTINGS, Sleeper::default());
    let began = Instant::now();
    let mut connections: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for client in &mut connections {
            client.write_all(b"GET /?ms=200 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        }
        for client in &mut connections {
            assert!(read_answer(client).ends_with("slept"));
        }
    }
    // One after the other they would take twenty seconds.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

pub fn a_slow_body_delays_no_one<W: WorkerFactory>() {
    let server = Running::start::<W>(
        SETTINGS,
        Closure(|exchange: &mut Exchange| {
            let body = exchange.read_to_end(1 << 20)?;
            exchange.respond(200, &[], &body)
        }),
    );
    let mut slow = server.connect();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").unwrap();
    assert!(server.get("/").starts_with("HTTP/1.1 200"));
    slow.write_all(b"dy").unwrap();
    assert!(read_answer(&mut slow).ends_with("body"));
}

pub fn a_greedy_request_leaves_a_turn_to_others<W: WorkerFactory>() {
    static OTHERS: AtomicUsize = AtomicUsize::new(0);
    let server = Running::start::<W>(
        SETTINGS,
        Closure(|exchange: &mut Exchange| {
            if exchange.head().path_str() != "/greedy" {
                OTHERS.fetch_add(1, Ordering::SeqCst);
                return exchange.respond(200, &[], b"other");
            }
            let before = OTHERS.load(Ordering::SeqCst);
            let began = Instant::now();
            exchange.start(200, "", &[])?;
            // The client takes each part at once: nothing here ever has to wait for it.
            while OTHERS.load(Ordering::SeqCst) == before && began.elapsed() < LONG {
                exchange.write(b"more")?;
            }
            exchange.finish()
        }),
    );
    let mut greedy = server.connect();
    greedy.write_all(b"GET /greedy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut first = [0; 4];
    greedy.read_exact(&mut first).unwrap();
    let reader = std::thread::spawn(move || greedy.read_to_end(&mut Vec::new()).map(drop));
    assert!(server.get("/").ends_with("other"));
    reader.join().unwrap().unwrap();
}

pub fn a_slow_reader_gets_all_of_a_large_answer<W: WorkerFactory>() {
    const SIZE: usize = 8 << 20;
    let server = Running::start::<W>(
        SETTINGS,
        Closure(|exchange: &mut Exchange| exchange.respond(200, &[], &vec![b'x'; SIZE])),
    );
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut other = server.connect();
    other.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = String::new();
    other.read_to_string(&mut head).unwrap();
    assert!(head.contains(&format!("Content-Length: {SIZE}\r\n")), "{head}");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.iter().rev().take_while(|byte| **byte == b'x').count(), SIZE);
}

pub fn a_full_worker_accepts_when_a_client_has_gone<W: WorkerFactory>() {
    let settings = [("keepalive", 5.0), ("worker_connections", 2.0)];
    let server = Running::start::<W>(&settings, Closure(hello));
    let mut first = server.connect();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut first);
    let mut second = server.connect();
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut second);
    let mut third = server.connect();
    third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(third.read(&mut [0; 10]).is_err(), "two connections are all that it may hold");
    assert_eq!(server.host.connections(), 2);
    drop(first);
    third.set_read_timeout(Some(LONG)).unwrap();
    assert!(read_answer(&mut third).ends_with("hello"));
}

pub fn an_idle_connection_is_let_go<W: WorkerFactory>() {
    let server = Running::start::<W>(&[("keepalive", 0.1)], Closure(hello));
    let mut client = server.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut client);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "closed after its keep-alive");
}

pub fn a_stop_serves_those_who_wait_and_those_who_are_served<W: WorkerFactory>() {
    let server = Running::start::<W>(SETTINGS, Sleeper::default());
    let mut busy = server.connect();
    busy.write_all(b"GET /?ms=300 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut idle = server.connect();
    idle.write_all(b"GET /?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut idle);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    server.signal(b't');
    for client in &mut waiting {
        client.write_all(b"GET /?ms=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    for client in waiting.iter_mut().chain([&mut busy]) {
        let answer = read_answer(client);
        assert!(answer.ends_with("slept"), "{answer}");
    }
    idle.write_all(b"GET /?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let last = read_answer(&mut idle);
    assert!(last.contains("Connection: close\r\n"), "{last}");
    server.join().unwrap();
    assert_eq!(server.host.access_log().len(), 23);
}

pub fn a_quit_ends_at_once<W: WorkerFactory>() {
    let server = Running::start::<W>(SETTINGS, Sleeper::default());
    let mut busy = server.connect();
    busy.write_all(b"GET /?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.signal(b'q');
    let began = Instant::now();
    server.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}

pub fn a_request_over_its_time_ends_alone<W: WorkerFactory>() {
    let app = Sleeper::default();
    let told = Arc::clone(&app.1);
    let settings = [("keepalive", 5.0), ("request_timeout", 0.2)];
    let server = Running::start::<W>(&settings, app);
    let mut other = server.connect();
    other.write_all(b"GET /?ms=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(&mut other);
    let answer = server.get("/?ms=60000");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    other.write_all(b"GET /?ms=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(read_answer(&mut other).ends_with("slept"));
    let slept = told.lock().unwrap().join(" ");
    assert!(slept.contains(&format!("{:?}", FailureKind::TIMEOUT)), "{slept}");
    assert!(server.host.access_log().contains(&"GET /?ms=60000 500".to_owned()));
}

pub fn a_guest_loop_drives_the_engine<W: WorkerFactory>() {
    let server = Running::start::<W>(SETTINGS, Guest(Mutex::default()));
    let mut client = server.connect();
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_answer(&mut client).ends_with("later"));
    }
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20).as_slice()).unwrap();
    for _ in 0..20 {
        assert!(read_answer(&mut client).ends_with("later"));
    }
    drop(client);
    server.signal(b't');
    server.join().unwrap();
}

pub fn a_connection_that_was_taken_over_is_forgotten<W: WorkerFactory>() {
    let server = Running::start::<W>(
        SETTINGS,
        Closure(|exchange: &mut Exchange| {
            let taken = exchange.hijack()?;
            let mut stream = TcpStream::from(taken.fd);
            stream.write_all(b"raw").map_err(worker_api::Failure::from)
        }),
    );
    let mut client = server.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "raw");
    server.signal(b't');
    server.join().unwrap();
}

/// Runs every behavior for a class.
#[macro_export]
macro_rules! cooperative_class {
    ($class:ty) => {
        cooperative_class!($class:
            a_connection_is_kept_and_pipelined_requests_are_answered,
            sleepers_sleep_side_by_side,
            a_slow_body_delays_no_one,
            a_greedy_request_leaves_a_turn_to_others,
            a_slow_reader_gets_all_of_a_large_answer,
            a_full_worker_accepts_when_a_client_has_gone,
            an_idle_connection_is_let_go,
            a_stop_serves_those_who_wait_and_those_who_are_served,
            a_quit_ends_at_once,
            a_request_over_its_time_ends_alone,
            a_guest_loop_drives_the_engine,
            a_connection_that_was_taken_over_is_forgotten,
        );
    };
    ($class:ty: $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            behaviour::$name::<$class>();
        })*
    };
}
