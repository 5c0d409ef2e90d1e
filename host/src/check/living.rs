//! Checks of a worker's life cycle: heartbeat, signals, replacement, exit. Each has a scratch server, so they run
//! concurrently.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{Client, PATIENCE, get_ok};
use super::facts;
use super::report::{Finding, Report};
use super::server::{Bench, Server, until};
use crate::process;

/// Performs one or two checks that need the same server.
pub(super) type Check = fn(&Bench, &mut Report);

/// All checks.
pub(super) const CHECKS: &[Check] = &[
    idle,
    |bench, report| one("heartbeat-waiting", heartbeat_waiting, bench, report),
    |bench, report| one("timeout", timeout, bench, report),
    |bench, report| one("wake-up", wake_up, bench, report),
    |bench, report| one("term", term, bench, report),
    |bench, report| one("term-queue", term_queue, bench, report),
    |bench, report| one("term-idle", term_idle, bench, report),
    |bench, report| one("quit", |bench| quick(bench, Signal::SIGQUIT), bench, report),
    |bench, report| one("int", |bench| quick(bench, Signal::SIGINT), bench, report),
    |bench, report| one("max-requests", max_requests, bench, report),
    |bench, report| one("graceful-timeout", graceful_timeout, bench, report),
    |bench, report| one("parent-death", parent_death, bench, report),
    |bench, report| one("reload", reload, bench, report),
];

fn one(name: &'static str, check: fn(&Bench) -> Finding, bench: &Bench, report: &mut Report) {
    report.check(name, || check(bench));
}

/// Stays idle for longer than `timeout`.
fn idle(bench: &Bench, report: &mut Report) {
    let observed = || -> Result<(Duration, f64, Option<String>), String> {
        let server = bench.start(&[TIMEOUT])?;
        let pid = server.worker()?.pid;
        let before = process::processor_time(pid).unwrap_or_default();
        let begun = Instant::now();
        let mut longest = 0;
        while begun.elapsed() < WATCHED {
            thread::sleep(LOOK_AGAIN);
            longest = server.workers().iter().map(|w| w.silent_ms).fold(longest, u64::max);
        }
        let used = process::processor_time(pid).unwrap_or_default().saturating_sub(before);
        let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
        Ok((Duration::from_millis(longest), share, server.error()))
    };
    match observed() {
        Err(fault) | Ok((_, _, Some(fault))) => {
            report.put("heartbeat-idle", Err(format!("idle, with {TIMEOUT}: {fault}")));
        }
        Ok((longest, share, None)) => {
            let words = format!("longest silence {} ms", longest.as_millis());
            report.put("heartbeat-idle", Ok(words));
            let words = format!("an idle worker uses {:.1} % of a processor", share * 100.0);
            report.put("idle-cpu", if share > IDLE_SHARE_MAX { Err(words) } else { Ok(words) });
        }
    }
}

/// A client that sends its body for longer than `timeout`: a body that the class may buffer, and one that only the
/// application reads.
fn heartbeat_waiting(bench: &Bench) -> Finding {
    let finding = |flags: &[&str]| {
        waited(bench, flags).map_err(|fault| {
            let (pause, flags) = (WATCHED.as_secs_f32(), flags.join(" "));
            format!(
                "while a client paused for {pause} s in its request body, with {flags}: {fault}"
            )
        })
    };
    thread::scope(|scope| {
        let unbuffered = scope.spawn(|| finding(&[TIMEOUT, "--body-buffer-max=0"]));
        let buffered = finding(&[TIMEOUT])?;
        match unbuffered.join() {
            Ok(outcome) => outcome.map(|_| format!("{buffered}, also with unbuffered bodies")),
            Err(_) => Err("the check panicked".to_owned()),
        }
    })
}

fn waited(bench: &Bench, flags: &[&str]) -> Finding {
    let server = bench.start(flags)?;
    let mut client = Client::open(server.address)?;
    client.send(b"POST /echo HTTP/1.1\r\nHost: check\r\nContent-Length: 10\r\n\r\nfirst")?;
    thread::sleep(WATCHED);
    client.send(b"other").map_err(|fault| server.fault(&fault))?;
    let response = client.response().map_err(|fault| server.fault(&fault))?;
    match server.error() {
        Some(error) => Err(error),
        None if response.body == b"firstother" => Ok(format!("waited {} s", WATCHED.as_secs_f32())),
        None => Err(format!("status {}", response.status)),
    }
}

/// An application that blocks its thread for longer than `timeout`.
fn timeout(bench: &Bench) -> Finding {
    let server = bench.start(&[TIMEOUT, "--threads=4"])?;
    let pid = server.worker()?.pid;
    let _hung = in_flight(&server, "/hang?ms=60000")?;
    let begun = Instant::now();
    let other = until(HANG_LIMIT, || get_ok(server.address, "/").ok());
    let lives = server.workers().iter().any(|worker| worker.pid == pid);
    match other {
        Some(_) if lives => Ok("others were still served".to_owned()),
        Some(_) => Ok(format!("replaced after {:.1} s", begun.elapsed().as_secs_f32())),
        None => Err("one hung request blocks all others, but the heartbeat continues, so the \
                     arbiter does not kill the worker: call host.notify() from the thread that would hang"
            .to_owned()),
    }
}

/// Sends USR1 to the worker itself: the host's action, reopening the access log, shows that it was delivered.
fn wake_up(bench: &Bench) -> Finding {
    let server = bench.start(&[])?;
    let worker = Pid::from_raw(server.worker()?.pid as i32);
    let path = server.access_log();
    let delivered = || {
        // A file that does not exist yet need not be removed.
        let _ = std::fs::remove_file(&path);
        let begun = Instant::now();
        kill(worker, Signal::SIGUSR1).map_err(|_| server.fault("the worker has exited"))?;
        match until(PATIENCE, || path.exists().then(|| begun.elapsed())) {
            Some(time) => Ok(time),
            None => Err(server.fault(&format!(
                "deliver_signals was not called within {} s after USR1: {WATCH_IT}",
                PATIENCE.as_secs()
            ))),
        }
    };
    delivered()?;
    // Right after a delivery, a class that only polls has its whole interval before it. The fastest of several
    // deliveries counts: other load on the machine is not the class's fault.
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        quickest = quickest.min(delivered()?);
    }
    let words = format!("a signal was delivered after {} ms", quickest.as_millis());
    if quickest > WAKE_UP_MAX { Err(format!("{words}: {WATCH_IT}")) } else { Ok(words) }
}

fn term(bench: &Bench) -> Finding {
    let mut server = bench.start(&["--graceful-timeout=5"])?;
    let mut client = in_flight(&server, "/sleep?ms=1000")?;
    server.signal(Signal::SIGTERM)?;
    let begun = Instant::now();
    let response = client.response();
    let ended = server.ends(GRACEFUL + PATIENCE);
    match response {
        Err(fault) => Err(server.fault(&format!("a request in flight: {fault}"))),
        Ok(response) if response.status != 200 => {
            Err(format!("a request in flight got status {}", response.status))
        }
        Ok(_) => ended.map(|_| {
            format!("finished the request, exited after {} ms", begun.elapsed().as_millis())
        }),
    }
}

/// Stops the worker while clients connect and the signal is sent: when it continues, it finds both.
fn term_queue(bench: &Bench) -> Finding {
    let mut server = bench.start(&["--graceful-timeout=5"])?;
    let worker = Pid::from_raw(server.worker()?.pid as i32);
    let send = |signal| kill(worker, signal).map_err(|_| server.fault("the worker has exited"));
    send(Signal::SIGSTOP)?;
    let mut clients = Vec::new();
    for _ in 0..QUEUED {
        let mut client = Client::open(server.address)?;
        client.send_get("/", "Connection: close\r\n")?;
        clients.push(client);
    }
    server.signal(Signal::SIGTERM)?;
    let was_told = || server.log().contains("Handling signal: term").then_some(());
    until(PATIENCE, was_told).ok_or("the server did not react to TERM")?;
    thread::sleep(LOOK_AGAIN);
    send(Signal::SIGCONT)?;
    let lost = clients.iter_mut().filter_map(|client| client.response().err()).collect::<Vec<_>>();
    let ended = server.ends(GRACEFUL + PATIENCE);
    match lost.first() {
        Some(fault) => {
            Err(format!("{} of {QUEUED} connections in the backlog were lost: {fault}", lost.len()))
        }
        None => ended.map(|_| format!("{QUEUED} connections in the backlog were served")),
    }
}

fn term_idle(bench: &Bench) -> Finding {
    let mut server = bench.start(&["--keep-alive=60", "--header-timeout=60"])?;
    let mut kept = Client::open(server.address)?;
    kept.send_get("/", "")?;
    kept.response()?;
    let _silent = Client::open(server.address)?;
    server.signal(Signal::SIGTERM)?;
    match server.ends(PATIENCE) {
        Ok(time) => Ok(format!("exited after {} ms", time.as_millis())),
        Err(fault) => {
            Err(format!("with idle connections, which may be kept for a second at most: {fault}"))
        }
    }
}

fn quick(bench: &Bench, signal: Signal) -> Finding {
    let mut server = bench.start(&[])?;
    let worker = server.worker()?.pid;
    let _client = in_flight(&server, "/sleep?ms=10000")?;
    // The host soon kills a process that does not exit, and does not log this at length; a class that blocks
    // signals is detected before.
    if let Some(blocked) = [signal, Signal::SIGQUIT].iter().find(|s| facts::blocks(worker, **s)) {
        return Err(format!(
            "the worker blocks {blocked}: do not block signals that the host handles"
        ));
    }
    server.signal(signal)?;
    let time = server.ends(PATIENCE)?;
    Ok(format!("exited after {} ms", time.as_millis()))
}

fn max_requests(bench: &Bench) -> Finding {
    let server = bench.start(&["--max-requests=5"])?;
    let first = server.worker()?.pid;
    for number in 1..=12 {
        get_ok(server.address, "/")
            .map_err(|fault| server.fault(&format!("request {number}: {fault}")))?;
    }
    let another = || server.workers().iter().find(|worker| worker.pid != first).map(|w| w.pid);
    let replaced = until(PATIENCE, another)
        .ok_or("the worker did not call host.retire() in 12 requests with max_requests 5")?;
    until(PATIENCE, || (!facts::lives(first)).then_some(()))
        .ok_or("the worker was replaced and received TERM, but did not exit")?;
    match server.error() {
        Some(error) => Err(error),
        None => Ok(format!("worker {first} replaced by {replaced}")),
    }
}

fn graceful_timeout(bench: &Bench) -> Finding {
    let mut server = bench.start(&["--graceful-timeout=1"])?;
    let _hung = in_flight(&server, "/hang?ms=60000")?;
    server.signal(Signal::SIGTERM)?;
    let begun = Instant::now();
    match server.wait(PATIENCE) {
        Some(_) => Ok(format!("exited after {:.1} s", begun.elapsed().as_secs_f32())),
        None => Err(format!(
            "with graceful_timeout 1 s, the server did not exit within {} s",
            PATIENCE.as_secs()
        )),
    }
}

fn parent_death(bench: &Bench) -> Finding {
    let server = bench.start(&[])?;
    let worker = server.worker()?.pid;
    server.signal(Signal::SIGKILL)?;
    let begun = Instant::now();
    match until(PATIENCE, || (!facts::lives(worker)).then_some(())) {
        Some(()) => Ok(format!("exited after {} ms", begun.elapsed().as_millis())),
        None => Err(format!(
            "the worker still runs {} s after the death of its arbiter",
            PATIENCE.as_secs()
        )),
    }
}

/// More clients than the worker serves at a time: some are always in the listener's queue.
fn reload(bench: &Bench) -> Finding {
    let server = bench.start(&["--threads=4", "--graceful-timeout=60"])?;
    let old = server.worker()?.pid;
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let generation = |wanted| server.generation().filter(|found| found.id == wanted);
    let (taken_over, fault) = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..QUEUED).map(|_| scope.spawn(|| ask_until(server.address, &stop, &count))).collect();
        let signalled = server.signal(Signal::SIGHUP);
        let taken_over = signalled.and_then(|()| {
            until(2 * PATIENCE, || generation(2)).ok_or_else(|| server.fault("no new generation"))
        });
        let ended = taken_over.and_then(|_| {
            until(PATIENCE, || (!facts::lives(old)).then_some(()))
                .ok_or_else(|| format!("the old worker {KEEPS_ACCEPTING}"))
        });
        stop.store(true, Ordering::Relaxed);
        let faults = clients.into_iter().filter_map(|client| client.join().ok()?.err());
        (ended, faults.last())
    });
    taken_over?;
    let fault = fault.map(|fault| format!("a client during the reload: {fault}"));
    match fault.or_else(|| server.error()) {
        Some(fault) => Err(fault),
        None => Ok(format!("{} requests, none lost", count.load(Ordering::Relaxed))),
    }
}

/// Waits until the worker serves a request for this path.
fn in_flight(server: &Server, path: &str) -> Result<Client, String> {
    let mut client = Client::open(server.address)?;
    client.send_get(path, "Connection: close\r\n")?;
    let begun = || server.workers().iter().any(|worker| !worker.in_flight.is_empty()).then_some(());
    // A class that records nothing has already been reported for that; here it only gets enough time.
    until(IN_FLIGHT, begun);
    Ok(client)
}

fn ask_until(address: SocketAddr, stop: &AtomicBool, count: &AtomicUsize) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        get_ok(address, "/sleep?ms=50")?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The setting `timeout` of servers that are observed for longer than that.
const TIMEOUT: &str = "--timeout=2";
const WATCHED: Duration = Duration::from_millis(3500);
/// Setting of servers that exit gracefully.
const GRACEFUL: Duration = Duration::from_secs(5);
/// From a hang to its end: `timeout`, an abort, a kill, another worker, and a busy machine.
const HANG_LIMIT: Duration = Duration::from_secs(10);
const IN_FLIGHT: Duration = Duration::from_secs(2);
const KEEPS_ACCEPTING: &str = "did not exit within 5 s after another took over, while clients waited: at TERM accept \
                               only host.remaining_backlog() connections, which is 0 at a reload";
/// Maximum delay of a signal for a class that waits on the wake descriptor.
const WAKE_UP_MAX: Duration = Duration::from_millis(500);
const WATCH_IT: &str = "watch host.wake_descriptor()";
/// Maximum CPU share of an idle worker: it wakes up once per second.
const IDLE_SHARE_MAX: f64 = 0.05;
/// Clients in the listener's queue.
const QUEUED: usize = 8;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
