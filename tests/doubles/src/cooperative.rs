//! Behaviors that all cooperative classes share, written once and run for each of them.

#![allow(missing_docs, reason = "the name of each function is the behavior that it tests")]

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use support::process::ready;
use worker_api::raw::Counter;
use worker_api::testing::{AppFn, RunningWorker, Stop, TestHost};
use worker_api::{App, Exchange, FailureKind, Requirements, Result, Runtime, WorkerFactory};

use crate::app::{echo, hello};
use crate::http::{Broken, Connection};
use crate::locked;
use crate::worker::{Clients as _, LONG};

/// Returns a host with the settings of most tests.
fn host() -> TestHost {
    TestHost::default()
        .set("keepalive", 5)
        .set("graceful_timeout", 10)
        .set("worker_connections", 100)
}

/// An application that sleeps for as many milliseconds as its query says, and records the results of its sleeps.
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
        locked(&self.1).push(format!("{slept:?}"));
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
        locked(&self.0).push(exchange.detach());
        Ok(())
    }

    fn run_loop(&self, engine: worker_api::Engine) -> Result<()> {
        while !engine.stopped() {
            // SAFETY: the engine keeps its descriptor open until it is dropped, after this borrow.
            let descriptor = unsafe { BorrowedFd::borrow_raw(engine.descriptor()) };
            let is_ready = ready(&descriptor, PollFlags::POLLIN, LONG);
            assert!(is_ready, "the engine's heartbeat makes it readable");
            engine.turn()?;
            let kept = std::mem::take(&mut *locked(&self.0));
            for mut exchange in kept {
                exchange.respond(200, &[], b"later")?;
            }
        }
        Ok(())
    }
}

/// Reads the response to a GET that was sent before.
fn read(client: &mut Connection) -> String {
    client.answer("GET").unwrap().text()
}

pub fn a_connection_is_kept_and_pipelined_requests_are_answered<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), AppFn(hello));
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), "hello");
    }
    client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50)).unwrap();
    for _ in 0..50 {
        assert_eq!(read(&mut client), "hello");
    }
    drop(client);
    server.stop();
    assert_eq!(server.host.access_log().len(), 53);
    assert_eq!(server.host.counter(Counter::CONNECTIONS), 0);
}

pub fn sleepers_sleep_side_by_side<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), Sleeper::default());
    let began = Instant::now();
    let mut clients: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.send_get("/?ms=200").unwrap();
        }
        for client in &mut clients {
            assert_eq!(read(client), "slept");
        }
    }
    // One after the other they would take twenty seconds.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

pub fn a_slow_body_delays_no_one<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), AppFn(echo));
    let mut slow = server.connect();
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").unwrap();
    assert_eq!(server.get("/").status, 200);
    slow.send("dy").unwrap();
    assert_eq!(slow.answer("POST").unwrap().text(), "body");
}

pub fn a_greedy_request_leaves_a_turn_to_others<W: WorkerFactory>() {
    static OTHERS: AtomicUsize = AtomicUsize::new(0);
    let server = RunningWorker::start::<W>(
        host(),
        AppFn(|exchange: &mut Exchange| {
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
    greedy.send_get("/greedy").unwrap();
    assert!(ready(&greedy, PollFlags::POLLIN, LONG), "the response begins");
    let reader = std::thread::spawn(move || greedy.answer("GET").unwrap().status);
    assert_eq!(server.get("/").text(), "other");
    assert_eq!(reader.join().unwrap(), 200);
}

pub fn a_slow_reader_gets_all_of_a_large_answer<W: WorkerFactory>() {
    const SIZE: usize = 8 << 20;
    let server = RunningWorker::start::<W>(
        host(),
        AppFn(|exchange: &mut Exchange| exchange.respond(200, &[], &vec![b'x'; SIZE])),
    );
    let mut slow = server.connect();
    slow.send_get("/").unwrap();
    let mut other = server.connect();
    other.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let length = SIZE.to_string();
    assert_eq!(other.answer("HEAD").unwrap().field("Content-Length"), Some(&*length));
    let answer = slow.answer("GET").unwrap();
    assert_eq!(answer.body.len(), SIZE);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
}

pub fn a_full_worker_accepts_when_a_client_has_gone<W: WorkerFactory>() {
    let host = TestHost::default().set("keepalive", 5).set("worker_connections", 2);
    let server = RunningWorker::start::<W>(host, AppFn(hello));
    let mut first = server.connect();
    first.get("/").unwrap();
    let mut second = server.connect();
    second.get("/").unwrap();
    let mut third = server.connect();
    third.patience(Duration::from_millis(100));
    let silent = third.get("/");
    assert!(matches!(silent, Err(Broken::Silent(_))), "two connections are its limit: {silent:?}");
    assert_eq!(server.host.counter(Counter::CONNECTIONS), 2);
    drop(first);
    third.patience(LONG);
    assert_eq!(read(&mut third), "hello");
}

pub fn an_idle_connection_is_let_go<W: WorkerFactory>() {
    let host = TestHost::default().set("keepalive", 0.1);
    let server = RunningWorker::start::<W>(host, AppFn(hello));
    let mut client = server.connect();
    client.get("/").unwrap();
    assert!(client.closes(LONG), "closed after its keep-alive");
}

pub fn a_stop_serves_those_who_wait_and_those_who_are_served<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), Sleeper::default());
    let mut busy = server.connect();
    busy.send_get("/?ms=300").unwrap();
    let mut idle = server.connect();
    idle.get("/?ms=0").unwrap();
    let mut waiting: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    server.host.stop_by(Stop::Term);
    for client in &mut waiting {
        client.send_get("/?ms=1").unwrap();
    }
    for client in waiting.iter_mut().chain([&mut busy]) {
        assert_eq!(read(client), "slept");
    }
    let last = idle.get("/?ms=0").unwrap();
    assert!(!last.keeps(), "{last:?}");
    server.join();
    assert_eq!(server.host.access_log().len(), 23);
}

pub fn a_quit_ends_at_once<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), Sleeper::default());
    let mut busy = server.connect();
    busy.send_get("/?ms=60000").unwrap();
    server.host.stop_by(Stop::Quit);
    let began = Instant::now();
    server.join();
    assert!(began.elapsed() < Duration::from_secs(5));
}

pub fn a_request_over_its_time_ends_alone<W: WorkerFactory>() {
    let app = Sleeper::default();
    let sleeps = Arc::clone(&app.1);
    let host = TestHost::default().set("keepalive", 5).set("request_timeout", 0.2);
    let server = RunningWorker::start::<W>(host, app);
    let mut other = server.connect();
    other.get("/?ms=1").unwrap();
    assert_eq!(server.get("/?ms=60000").status, 500);
    assert_eq!(other.get("/?ms=1").unwrap().text(), "slept");
    let sleeps = locked(&sleeps).join(" ");
    assert!(sleeps.contains(&format!("{:?}", FailureKind::TIMEOUT)), "{sleeps}");
    let log = server.host.access_log();
    assert!(log.iter().any(|line| line.starts_with("GET /?ms=60000 500 ")), "{log:?}");
}

pub fn a_guest_loop_drives_the_engine<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(host(), Guest(Mutex::default()));
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), "later");
    }
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)).unwrap();
    for _ in 0..20 {
        assert_eq!(read(&mut client), "later");
    }
    drop(client);
    server.stop();
}

pub fn a_connection_that_was_taken_over_is_forgotten<W: WorkerFactory>() {
    let server = RunningWorker::start::<W>(
        host(),
        AppFn(|exchange: &mut Exchange| {
            let taken = exchange.hijack()?;
            let mut stream = TcpStream::from(taken.fd);
            stream.write_all(b"raw").map_err(worker_api::Failure::from)
        }),
    );
    let mut client = server.connect();
    client.send_get("/").unwrap();
    assert_eq!(client.rest().unwrap(), b"raw");
    server.stop();
}

/// Runs every behavior for a class.
#[macro_export]
macro_rules! cooperative_class {
    ($class:ty) => {
        $crate::cooperative_class!($class:
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
            $crate::cooperative::$name::<$class>();
        })*
    };
}
