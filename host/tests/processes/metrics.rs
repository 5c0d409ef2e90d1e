//! Black-box tests of metrics, the status page and StatsD.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::http::{Answer, Connection};
use support::process::End;

use crate::Test;
use crate::server::{Server, ends};

pub(crate) const TESTS: &[Test] = &tests![
    metrics_include_requests_of_exited_workers,
    the_page_shows_the_data_of_the_json,
    clients_that_misbehave_do_not_affect_others,
    the_process_is_replaced_when_it_dies_and_exits_with_the_server,
    an_address_in_use_is_retried_while_the_server_serves,
    a_server_that_is_about_to_stop_is_unhealthy_while_it_serves,
    a_successor_serves_the_addresses_before_the_old_arbiter_exits,
    statsd_receives_metrics_once_a_second,
    waiting_connections_are_counted,
    a_browser_shows_the_page,
    the_error_log_reaches_a_syslog_daemon,
];

/// Returns the logged address of the metrics, or of the page.
fn address(server: &Server, what: &str) -> SocketAddr {
    let line = server.wait_for(&format!("{what} at: http://"));
    line.split("http://").nth(1).unwrap().trim().parse().unwrap()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let mut client = Connection::open(&address.into()).unwrap();
    // Another name would be refused with 421.
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap();
    client.answer("GET").unwrap()
}

/// Returns the text of the metrics.
fn metrics(address: SocketAddr) -> String {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    answer.text()
}

fn sample(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Returns the status process, found by its name.
fn status_process(server: &Server) -> Option<u32> {
    let task = format!("/proc/{0}/task/{0}/children", server.pid());
    let children = std::fs::read_to_string(task).unwrap();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.contains("status"))
    })
}

fn metrics_include_requests_of_exited_workers() {
    let server = Server::start("hello", &["-w", "2", "--metrics-bind", "127.0.0.1:0"]);
    let address = address(&server, "Metrics");
    for _ in 0..7 {
        server.talk("hi");
    }
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let requests = r#"jimu_requests_total{class="sync",status="200"}"#;
    server.wait_until("seven", |_| sample(&metrics(address), requests) == Some(7.0));
    assert!(server.reload().ok);
    let metrics = metrics(address);
    assert_eq!(sample(&metrics, requests), Some(7.0), "{metrics}");
    assert_eq!(sample(&metrics, r#"jimu_workers{state="ready"}"#), Some(2.0));
    assert_eq!(sample(&metrics, "jimu_reloads_total"), Some(1.0));
    assert_eq!(sample(&metrics, "jimu_worker_deaths_total"), Some(0.0));
    server.talk("exit 3");
    server.wait_until("a death", |_| {
        sample(&get(address, "/").text(), "jimu_worker_deaths_total") == Some(1.0)
    });
    assert_eq!(get(address, "/health").status, 200);
    server.stop();
}

fn the_page_shows_the_data_of_the_json() {
    let server = Server::start("hello", &["--status-bind", "127.0.0.1:0"]);
    let address = address(&server, "Status page");
    let page = get(address, "/");
    assert!(page.field("Content-Type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.text().contains("fetch(\"status.json\""));
    let json = get(address, "/status.json");
    let status: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(status["generations"][0]["state"], "serving");
    assert_eq!(status["generations"][0]["class"], "sync");
    assert_eq!(status["generations"][0]["workers"][0]["pid"], server.workers()[0]);
    assert_eq!(get(address, "/metrics").status, 404);
    server.stop();
}

fn clients_that_misbehave_do_not_affect_others() {
    let server = Server::start("hello", &["--metrics-bind", "127.0.0.1:0"]);
    let address = address(&server, "Metrics");
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    // They are disconnected after some seconds; a client after them is then served.
    assert_eq!(get(address, "/health").status, 200);
    drop(silent);
    for (request, status) in [
        (&b"POST / HTTP/1.1\r\n\r\n"[..], 405),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (&[b'x'; 8192], 431),
    ] {
        let mut client = Connection::open(&address.into()).unwrap();
        client.send(request).unwrap();
        assert_eq!(client.answer("GET").unwrap().status, status);
    }
    server.stop();
}

fn the_process_is_replaced_when_it_dies_and_exits_with_the_server() {
    let mut server = Server::start("hello", &["--metrics-bind", "127.0.0.1:0"]);
    let address = address(&server, "Metrics");
    assert_eq!(get(address, "/health").status, 200);
    let first = status_process(&server).unwrap();
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    // A client that connects in between waits for the next one.
    assert_eq!(get(address, "/health").status, 200);
    let second = status_process(&server).unwrap();
    assert_ne!(first, second);
    assert_eq!(sample(&get(address, "/").text(), "jimu_status_deaths_total"), Some(1.0));
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), End::Status(0), "{}", server.log());
    // The kernel ends it when the arbiter has exited.
    assert!(ends(second), "{}", server.log());
    assert!(TcpStream::connect(address).is_err());
}

fn an_address_in_use_is_retried_while_the_server_serves() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let server = Server::start("hello", &["--metrics-bind", &address.to_string()]);
    server.wait_for("cannot open Metrics yet");
    assert!(server.talk("hi").ends_with(" hello\n"));
    drop(other);
    server.wait_for("Metrics at: http://");
    assert_eq!(get(address, "/health").status, 200);
    assert_eq!(server.count("cannot open Metrics yet"), 1);
    server.stop();
}

fn a_server_that_is_about_to_stop_is_unhealthy_while_it_serves() {
    let flags = ["--metrics-bind", "127.0.0.1:0", "--drain-delay", "1.5"];
    let mut server = Server::start("hello", &flags);
    let address = address(&server, "Metrics");
    assert_eq!(get(address, "/health").status, 200);
    assert_eq!(agent_check(address), "up 100%\n");
    server.signal(Signal::SIGTERM);
    server.wait_until("unhealthy", |_| get(address, "/health").status == 503);
    assert_eq!(get(address, "/health").text(), "stopping\n");
    assert_eq!(agent_check(address), "up 0%\n");
    assert!(server.talk("hi").ends_with(" hello\n"));
    assert_eq!(server.wait(), End::Status(0), "{}", server.log());
}

/// Returns the response to an agent check of HAProxy.
fn agent_check(address: SocketAddr) -> String {
    let mut client = Connection::open(&address.into()).unwrap();
    client.send("health\n").unwrap();
    String::from_utf8(client.rest().unwrap()).unwrap()
}

/// A load balancer that checks `/health` must not find an old arbiter that finishes its last requests. It need not react,
/// either, so the old arbiter does not wait for that (`drain_delay`).
fn a_successor_serves_the_addresses_before_the_old_arbiter_exits() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let limits = ["--drain-delay", "60", "--graceful-timeout", "3"];
    let flags = [&["--status-bind", &address][..], &limits].concat();
    let mut server = Server::start("hello", &flags);
    let address = self::address(&server, "Status page");
    let _held = server.say("hang");
    server.wait_until("held", |server| server.serving().workers[0].busy == 1);
    server.signal(Signal::SIGUSR2);
    server.wait_for_nth("Server is ready", 2);
    server.signal(Signal::SIGTERM);
    server.wait_for_nth("Status page at: http://", 2);
    assert_eq!(get(address, "/health").status, 200);
    assert_eq!(server.count("upgrade complete"), 0, "{}", server.log());
    assert_eq!(server.wait(), End::Status(0), "{}", server.log());
    server.wait_for("upgrade complete");
    assert_eq!(get(address, "/health").status, 200, "{}", server.log());
    kill(Pid::from_raw(server.status().pid as i32), Signal::SIGTERM).unwrap();
}

fn statsd_receives_metrics_once_a_second() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let host = receiver.local_addr().unwrap().to_string();
    let flags = ["--statsd-host", &host, "--statsd-prefix", "my.", "--enable-backlog-metric"];
    let server = Server::start("hello", &flags);
    let mut buffer = [0; 2048];
    let mut hear = || {
        let length = receiver.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(hear().starts_with("my.gunicorn.workers:"));
    for _ in 0..3 {
        server.talk("hi");
    }
    let mut requests = 0;
    while requests < 3 {
        let text = hear();
        assert!(text.contains("my.gunicorn.backlog:"), "{text}");
        let count = text.lines().find_map(|line| {
            line.strip_prefix("my.gunicorn.requests:")?.strip_suffix("|c")?.parse::<u32>().ok()
        });
        requests += count.unwrap_or(0);
    }
    assert_eq!(requests, 3);
    server.stop();
}

fn waiting_connections_are_counted() {
    let server = Server::start("hello", &["--metrics-bind", "127.0.0.1:0"]);
    let address = address(&server, "Metrics");
    let series = format!("jimu_listener_backlog{{listener=\"http://{}\"}}", server.address());
    if sample(&get(address, "/").text(), &series).is_none() {
        drop(server);
        crate::skip("this kernel does not report backlogs");
    }
    let streams: Vec<_> = (0..4).map(|_| server.say("sleep")).collect();
    server.wait_until("some wait", |_| {
        sample(&get(address, "/").text(), &series).is_some_and(|waiting| waiting >= 1.0)
    });
    drop(streams);
    server.stop();
}

fn a_browser_shows_the_page() {
    let Some(browser) = ["/usr/bin/chromium", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        crate::skip("there is no browser here");
    };
    let server = Server::start("hello", &["-w", "2", "--status-bind", "127.0.0.1:0"]);
    let address = address(&server, "Status page");
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("timeout");
    command
        .args(["60", browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.path().display()))
        .arg(format!("http://{address}/"));
    let page = while_requests_come(&server, || {
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    });
    assert!(page.contains("Generation 1: serving, sync, hello"), "{page}");
    assert_eq!(page.matches("class=\"worker ready\"").count(), 2, "{page}");
    assert!(page.contains(&format!("http://{} · ", server.address())), "{page}");
    // These are differences: the page has polled more than once, and shows the increase.
    assert!(shown(&page, "<b>", "</b><small>requests per second</small>") > 0, "{page}");
    let recent = shown(&page, ", from ", " requests</small>");
    assert!(recent > 0 && recent <= shown(&page, "<b>", "</b><small>requests</small>"), "{page}");
    assert!(page.contains("time spent queued: half below 8.00 ms, 99 % below 8.00 ms"), "{page}");
    server.stop();
}

/// Returns the result of `act`, during which requests arrive constantly.
fn while_requests_come<T>(server: &Server, act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                server.talk("hi");
                // A pace that leaves the processor to the browser.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let result = act();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Returns the number between two texts of a page.
fn shown(page: &str, before: &str, behind: &str) -> u64 {
    let number = page.split(behind).next().and_then(|head| head.rsplit(before).next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {behind} in {page}"))
}

fn the_error_log_reaches_a_syslog_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let daemon = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = format!("unix://{}", path.display());
    let flags = ["--log-syslog", "--log-syslog-to", &address, "--log-syslog-prefix", "mine"];
    let server = Server::start("hello", &flags);
    let mut buffer = [0; 1024];
    let line = loop {
        let length = daemon.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if line.contains("Server is ready") {
            break line;
        }
    };
    let start = format!("<14>host.mine.error: [{}] Server is ready", server.pid());
    assert!(line.starts_with(&start), "{line}");
    server.stop();
}
