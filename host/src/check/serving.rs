//! Checks of one worker that serves, in such an order that a fault of one explains those of the next.

use std::io::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::client::{Client, PATIENCE, get, get_ok};
use super::facts;
use super::report::{Finding, Report};
use super::server::{Bench, Server, until};

/// Returns whether the worker serves and keeps serving; without that nothing else can be checked.
pub(super) fn check(bench: &Bench, report: &mut Report) -> bool {
    // Several threads, so that classes with threads use them.
    let server = match bench.start(&["--threads=4"]) {
        Ok(server) => server,
        Err(reason) => return report.put("boots", Err(reason)),
    };
    let server = &server;
    report.put("boots", Ok(format!("ready after {} ms", server.booted_in.as_millis())));
    report.check("fork-safe", || fork_safe(server));
    let pid = match runs(server) {
        Ok(pid) => pid,
        Err(fault) => return report.put("runs", Err(fault)),
    };
    if let Err(fault) = listeners(server, pid) {
        return report.put("listeners", Err(fault));
    }
    let answered = serves(server);
    if answered.is_err()
        && let Err(fault) = same_worker(server, pid)
    {
        return report.put("runs", Err(fault));
    }
    report.put("runs", Ok("run did not return early".to_owned()));
    let kept = listeners(server, pid);
    let open = report.put("listeners", kept);
    if !report.put("serves", answered) || !open || !report.check("stays", || stays(server, pid)) {
        return false;
    }
    let address = server.address;
    report.check("heads", || heads(address));
    report.check("bodies", || bodies(address));
    report.check("keep-alive", || keep_alive(address));
    report.check("concurrent", || concurrent(address));
    report.check("silent-client", || silent_client(server));
    report.check("bad-clients", || bad_clients(server));
    report.check("app-failure", || app_failure(server));
    report.check("descriptors", || descriptors(server));
    report.check("memory", || memory(server));
    report.check("records", || records(server));
    report.check("accepted", || accepted(server));
    true
}

fn fork_safe(server: &Server) -> Finding {
    let log = server.log();
    match log.lines().find_map(|line| line.split_once("loading has started ")) {
        Some((_, words)) => {
            Err(format!("loading or setup started {words}: start them in init_process"))
        }
        None => Ok("no threads in the mold".to_owned()),
    }
}

/// Returns the worker that still exists a moment after it was ready.
fn runs(server: &Server) -> Result<u32, String> {
    let pid = server.worker()?.pid;
    thread::sleep(SETTLING);
    same_worker(server, pid)?;
    Ok(pid)
}

fn listeners(server: &Server, pid: u32) -> Finding {
    let found = facts::listeners(pid, server.address);
    match found[..] {
        // A worker that has exited is another fault.
        [] if !facts::lives(pid) => Ok("open until the worker exited".to_owned()),
        [] => Err(server.fault(CLOSED)),
        _ if found.contains(&false) => {
            Err("the listening socket was made blocking, which affects all workers: one that loses the race \
                 for a connection hangs in accept"
                .to_owned())
        }
        _ => Ok("open, non-blocking".to_owned()),
    }
}

fn serves(server: &Server) -> Finding {
    let fault = |fault: String| server.fault(&format!("GET /: {fault}"));
    let body = get_ok(server.address, "/").map_err(fault)?;
    if body == GREETING {
        Ok("the application's response".to_owned())
    } else {
        let [got, right] = [&body[..body.len().min(80)], GREETING].map(String::from_utf8_lossy);
        Err(format!("GET /: {got:?} is not the application's response, {right:?}"))
    }
}

fn stays(server: &Server, pid: u32) -> Finding {
    for number in 1..=REQUESTS {
        get_ok(server.address, "/")
            .map_err(|fault| server.fault(&format!("request {number}: {fault}")))?;
    }
    same_worker(server, pid)?;
    Ok(format!("{REQUESTS} requests"))
}

fn heads(address: SocketAddr) -> Finding {
    let mut client = Client::open(address)?;
    client.send_get("/facts?a=1&b=%20", "X-Check: some value\r\nConnection: close\r\n")?;
    let seen = String::from_utf8_lossy(&client.response()?.body).into_owned();
    let sent = "GET /facts a=1&b=%20 http some value\n";
    if seen == sent {
        Ok("unchanged".to_owned())
    } else {
        Err(format!("received {seen:?}, sent {sent:?}"))
    }
}

fn bodies(address: SocketAddr) -> Finding {
    let body: Vec<u8> = (0..BODY_BYTES).map(|number| (number % 251) as u8).collect();
    let length = format!("Content-Length: {BODY_BYTES}\r\n");
    echo(address, &length, &body, &body).map_err(|fault| format!("known length: {fault}"))?;
    let mut chunks = Vec::new();
    for part in body.chunks(10_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        chunks.extend_from_slice(part);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    echo(address, "Transfer-Encoding: chunked\r\n", &chunks, &body)
        .map_err(|fault| format!("chunked: {fault}"))?;
    large(address).map_err(|fault| format!("a long response to a slow client: {fault}"))?;
    Ok(format!("{BODY_BYTES} bytes in both directions, {LARGE_BYTES} to a slow client"))
}

fn echo(address: SocketAddr, framing: &str, wire: &[u8], body: &[u8]) -> Result<(), String> {
    let mut client = Client::open(address)?;
    let head = format!("POST /echo HTTP/1.1\r\nHost: check\r\nConnection: close\r\n{framing}\r\n");
    client.send(head.as_bytes())?;
    let mut sender = client.sender().map_err(|error| error.to_string())?;
    let response = thread::scope(|scope| {
        // Anything that cannot be sent is missing from the response.
        scope.spawn(move || sender.write_all(wire));
        client.response()
    })?;
    if response.status == 200 && response.body == body {
        Ok(())
    } else {
        let (status, got) = (response.status, response.body.len());
        Err(format!("status {status} and {got} bytes, which differ from those sent"))
    }
}

fn large(address: SocketAddr) -> Result<(), String> {
    let mut client = Client::open(address)?;
    client.keep_small();
    client.send_get(&format!("/large?bytes={LARGE_BYTES}"), "Connection: close\r\n")?;
    // Time for the server's side to fill all buffers.
    thread::sleep(SETTLING);
    let got = client.response()?.body.len();
    if got == LARGE_BYTES { Ok(()) } else { Err(format!("received {got} of {LARGE_BYTES} bytes")) }
}

fn keep_alive(address: SocketAddr) -> Finding {
    let mut client = Client::open(address)?;
    client.send_get("/", "")?;
    if !client.response()?.keeps {
        return Ok("not announced".to_owned());
    }
    for _ in 0..3 {
        client.send_get("/", "").map_err(|fault| format!("the next request: {fault}"))?;
        client.response().map_err(|fault| format!("the next request: {fault}"))?;
    }
    Ok("announced and kept".to_owned())
}

fn concurrent(address: SocketAddr) -> Finding {
    let failed = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| get_ok(address, "/sleep?ms=10"))).collect();
        let outcome = |client: thread::ScopedJoinHandle<'_, _>| {
            client.join().unwrap_or_else(|_| Err("the check panicked".to_owned()))
        };
        clients.into_iter().find_map(|client| outcome(client).err())
    });
    match failed {
        None => Ok(format!("{CLIENTS} clients")),
        Some(fault) => Err(format!("one of {CLIENTS} concurrent clients: {fault}")),
    }
}

fn silent_client(server: &Server) -> Finding {
    let silent = Client::open(server.address)?;
    let mut half = Client::open(server.address)?;
    half.send(b"GET / HT")?;
    let other = get_ok(server.address, "/");
    drop((silent, half));
    match other {
        Ok(_) => Ok("others are served".to_owned()),
        Err(fault) => Err(server.fault(&format!("while two clients are silent: {fault}"))),
    }
}

fn bad_clients(server: &Server) -> Finding {
    let pid = server.worker()?.pid;
    let address = server.address;
    drop(Client::open(address)?);
    Client::open(address)?.reset();
    for bytes in [&b"\r\n\r\n\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHo"]
    {
        Client::open(address)?.send(bytes)?;
    }
    let mut body = Client::open(address)?;
    body.send(b"POST /echo HTTP/1.1\r\nHost: check\r\nContent-Length: 100\r\n\r\nonly this")?;
    body.reset();
    let mut large = Client::open(address)?;
    large.send_get(&format!("/large?bytes={LARGE_BYTES}"), "")?;
    thread::sleep(SETTLING);
    large.reset();
    get_ok(address, "/").map_err(|fault| server.fault(&format!("after bad clients: {fault}")))?;
    same_worker(server, pid)?;
    Ok("kept serving".to_owned())
}

fn app_failure(server: &Server) -> Finding {
    let pid = server.worker()?.pid;
    match get(server.address, "/panic") {
        Ok(response) if response.status == 500 => {}
        Ok(response) => return Err(format!("status {} instead of 500", response.status)),
        Err(fault) => return Err(server.fault(&format!("the request that panics: {fault}"))),
    }
    get_ok(server.address, "/").map_err(|fault| format!("afterwards: {fault}"))?;
    if server.worker()?.pid != pid {
        return Err("the worker exited with the request".to_owned());
    }
    Ok("status 500, kept serving".to_owned())
}

fn descriptors(server: &Server) -> Finding {
    let pid = server.worker()?.pid;
    let count = || facts::descriptors(pid).ok_or("the worker has exited");
    serve(server, WARM_UP)?;
    // Connections of earlier checks may still be closing.
    thread::sleep(SETTLING);
    let before = count()?;
    serve(server, REQUESTS)?;
    let after = until(PATIENCE, || count().ok().filter(|now| *now <= before + SPARE_DESCRIPTORS));
    let Some(after) = after else {
        let after = count()?;
        return Err(format!("{before} descriptors before {REQUESTS} requests, {after} after"));
    };
    Ok(format!("{before} before, {after} after {REQUESTS} requests"))
}

fn memory(server: &Server) -> Finding {
    let pid = server.worker()?.pid;
    let kib = || facts::memory_kib(pid).ok_or("the worker has exited");
    serve(server, WARM_UP)?;
    let before = kib()?;
    serve(server, 2 * REQUESTS)?;
    let more = kib()?.saturating_sub(before);
    let words = format!("{more} KiB more after {} requests", 2 * REQUESTS);
    if more > SPARE_MEMORY_KIB { Err(words) } else { Ok(words) }
}

fn records(server: &Server) -> Finding {
    // A request is counted when its client may already have the response.
    let at_rest = || server.workers().pop().filter(|worker| worker.busy == 0);
    let before = match until(PATIENCE, at_rest) {
        Some(worker) => worker.requests,
        None => server.worker()?.requests,
    };
    for _ in 0..WARM_UP {
        get_ok(server.address, "/?recorded")?;
    }
    let expected = before + WARM_UP as u64;
    let counted = || server.workers().pop().map_or(0, |worker| worker.requests);
    if until(PATIENCE, || (counted() >= expected).then_some(())).is_none() || counted() > expected {
        let counted = counted().saturating_sub(before);
        return Err(format!(
            "{WARM_UP} requests were counted as {counted}: call host.request_started and \
             host.request_ended for each"
        ));
    }
    let lines = || {
        let text = std::fs::read_to_string(server.access_log()).unwrap_or_default();
        text.matches("/?recorded").count()
    };
    match until(PATIENCE, || (lines() >= WARM_UP).then_some(())) {
        Some(()) => Ok(format!("{WARM_UP} of {WARM_UP} counted and logged")),
        None => Err(format!("{WARM_UP} requests produced {} lines in the access log", lines())),
    }
}

/// Each of these requests has its own connection.
fn accepted(server: &Server) -> Finding {
    let before = server.worker()?.accepted;
    serve(server, WARM_UP)?;
    let counted =
        || server.workers().pop().map_or(0, |worker| worker.accepted.saturating_sub(before));
    // Once these are counted twice, or a moment later, there is no further one to come.
    until(SETTLING, || (counted() > WARM_UP as u64).then_some(()));
    match counted() {
        counted if counted == WARM_UP as u64 => Ok(format!("{WARM_UP} of {WARM_UP} counted")),
        counted => Err(format!(
            "{WARM_UP} connections were counted as {counted}: call host.count(Counter::ACCEPTED, 1) once for each"
        )),
    }
}

fn serve(server: &Server, requests: usize) -> Result<(), String> {
    (0..requests).try_for_each(|_| get_ok(server.address, "/").map(drop))
}

fn same_worker(server: &Server, pid: u32) -> Result<(), String> {
    let now = server.workers().pop().map(|worker| worker.pid);
    match server.error().filter(|words| words.contains(&format!("(pid: {pid})"))) {
        Some(error) => Err(error),
        None if now == Some(pid) => Ok(()),
        None => Err(server.fault("the worker exited while host.alive() was true")),
    }
}

const CLOSED: &str = "the worker closed its listening socket while it was running: keep it open until \
                      host.close_listeners(), at shutdown";
/// Response of the checking application.
const GREETING: &[u8] = b"check\n";
/// Time for the consequences of an action to show.
const SETTLING: Duration = Duration::from_millis(300);
/// Enough requests that leaks add up.
const REQUESTS: usize = 100;
/// Enough requests that everything created at first use exists.
const WARM_UP: usize = 20;
/// Number of concurrent clients.
const CLIENTS: usize = 16;
const BODY_BYTES: usize = 256 * 1024;
/// More than the socket buffers of both sides take.
const LARGE_BYTES: usize = 8 * 1024 * 1024;
/// Descriptors that a class may open late.
const SPARE_DESCRIPTORS: usize = 3;
/// Memory that allocators and threads may keep.
const SPARE_MEMORY_KIB: u64 = 8 * 1024;
