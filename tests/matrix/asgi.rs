//! ASGI applications over HTTP: the scope, the messages in both directions, extensions, and limits.

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    http::{Address, Broken, Connection},
    runner::Behaviour,
    server::{Server, Setup},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_scope_describes_the_request).of_asgi(),
        behaviour!(the_scope_of_a_unix_socket_and_http_1_0).of_asgi(),
        behaviour!(a_body_arrives_in_parts).of_asgi(),
        behaviour!(a_cancelled_receive_loses_nothing).of_asgi(),
        behaviour!(messages_can_be_tasks).of_asgi(),
        behaviour!(parts_are_sent_whole_and_in_order).of_asgi(),
        behaviour!(what_was_given_up_is_sent_at_once).of_asgi(),
        behaviour!(a_disconnect_is_received_and_ends_send).of_asgi(),
        behaviour!(a_task_is_cancelled_after_the_grace_period).of_asgi(),
        behaviour!(violations_of_the_protocol_are_named).of_asgi(),
        behaviour!(exceptions_are_logged_once).of_asgi(),
        behaviour!(each_request_has_a_clean_context).of_asgi(),
        behaviour!(background_work_follows_the_response).of_asgi(),
        behaviour!(files_are_sent_by_the_server).of_asgi(),
        behaviour!(early_hints_precede_the_response).of_asgi(),
        behaviour!(trailers_follow_the_body).of_asgi(),
        behaviour!(a_request_that_hangs_is_cancelled_with_its_stack).of_asgi(),
        behaviour!(what_blocks_the_loop_is_named).of_asgi(),
        behaviour!(a_stream_of_events_does_not_delay_a_reload).of_asgi(),
        behaviour!(a_stream_that_only_sends_does_not_delay_a_reload).of_asgi(),
    ]
}

const SOON: Duration = Duration::from_secs(10);
/// Length of the large parts in `asgi_requests.py`.
pub(crate) const LARGE: usize = 16 << 20;
/// What the worker's buffer may keep of a response until the next write: 64 KiB, and one write of 128 KiB.
const BUFFERED: usize = 192 << 10;

fn serving(cell: &Cell) -> Setup {
    Setup::new(cell).app("asgi_requests:application")
}

fn scope_of(server: &Server, target: &str) -> Value {
    serde_json::from_str(&server.get(target).text()).unwrap()
}

fn the_scope_describes_the_request(cell: &Cell) {
    let server = serving(cell).flags("--root-path /mounted").start();
    let Address::Tcp(address) = server.address().clone() else { panic!("no TCP address") };
    let target = "/facts/caf%C3%A9%2Fx?q=%20a&b";
    let mut client = server.connect();
    client
        .send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Mixed-CASE: VaLue\r\nx-two: 1\r\nX-Two: 2\r\n\r\n"))
        .unwrap();
    let scope: Value = serde_json::from_str(&client.answer("GET").unwrap().text()).unwrap();
    for (name, value) in [
        ("type", json!("http")),
        ("asgi", json!({"version": "3.0", "spec_version": "2.5"})),
        ("http_version", json!("1.1")),
        ("method", json!("GET")),
        ("scheme", json!("http")),
        ("path", json!("/mounted/facts/caf\u{e9}/x")),
        ("raw_path", json!("b:/mounted/facts/caf%C3%A9%2Fx")),
        ("query_string", json!("b:q=%20a&b")),
        ("root_path", json!("/mounted")),
        ("server", json!([address.ip().to_string(), address.port()])),
        (
            "headers",
            json!([
                ["b:host", "b:test"],
                ["b:x-mixed-case", "b:VaLue"],
                ["b:x-two", "b:1"],
                ["b:x-two", "b:2"]
            ]),
        ),
        ("state", json!({"word": "shared", "list": []})),
    ] {
        assert_eq!(scope[name], value, "{name}");
    }
    assert_eq!(scope["client"][0], "127.0.0.1");
    assert!(scope["client"][1].as_u64().unwrap() > 0);
    let extensions = scope["extensions"].as_object().unwrap();
    for name in ["pathsend", "zerocopysend", "early_hint", "trailers", "debug"] {
        assert!(extensions.contains_key(&format!("http.response.{name}")), "{name}");
    }
    // The copy is shallow: a new key is that request's, the list is the application's.
    assert_eq!(scope_of(&server, "/facts")["state"], json!({"word": "shared", "list": [1]}));
}

fn the_scope_of_a_unix_socket_and_http_1_0(cell: &Cell) {
    let setup = serving(cell);
    let path = setup.dir().join("socket");
    let server = setup.bind(Address::Unix(path.clone())).start();
    let mut client = server.connect();
    client.send("GET /facts HTTP/1.0\r\n\r\n").unwrap();
    let scope: Value = serde_json::from_str(&client.answer("GET").unwrap().text()).unwrap();
    assert_eq!(scope["http_version"], "1.0");
    assert_eq!(scope["client"], Value::Null);
    assert_eq!(scope["server"], json!([path.to_string_lossy(), null]));
    assert_eq!((&scope["root_path"], &scope["query_string"]), (&json!(""), &json!("b:")));
    assert_eq!(scope["raw_path"], "b:/facts");
}

fn a_body_arrives_in_parts(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = server.connect();
    client.send("POST /parts HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab").unwrap();
    server.log.line(&["received 2 bytes"], SOON);
    client.send("cde").unwrap();
    server.log.line(&["received 3 bytes"], SOON);
    client.send("fghi").unwrap();
    assert_eq!(client.answer("POST").unwrap().text(), "abcdefghi");
    let body = vec![b'x'; 1_000_000];
    assert!(client.post("/parts", &body).unwrap().body == body);
    assert_eq!(client.get("/parts").unwrap().text(), "");
}

fn a_cancelled_receive_loses_nothing(cell: &Cell) {
    let server = serving(cell).start();
    for (framing, parts, end) in [
        ("Content-Length: 6", ["a", "bc", "def"], ""),
        ("Transfer-Encoding: chunked", ["1\r\na\r\n", "2\r\nbc\r\n", "3\r\ndef\r\n"], "0\r\n\r\n"),
    ] {
        let mut mark = server.log.mark();
        let mut client = server.connect();
        client.send(format!("POST /impatient HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).unwrap();
        for (length, part) in [0, 1, 3].into_iter().zip(parts) {
            server.log.line_after(mark, &[&format!("cancelled behind {length} bytes")], SOON);
            mark = server.log.mark();
            client.send(part).unwrap();
        }
        client.send(end).unwrap();
        assert_eq!(client.answer("POST").unwrap().text(), "abcdef", "{framing}");
    }
    // Without a pause between the parts: the cancellation may hit any moment.
    let mut client = server.connect();
    client.send("POST /impatient HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n").unwrap();
    let body: Vec<u8> = (0..300_u16).map(|n| b'a' + (n % 26) as u8).collect();
    for byte in body.chunks(1) {
        client.write_all(byte).unwrap();
    }
    assert!(client.answer("POST").unwrap().body == body);
}

fn messages_can_be_tasks(cell: &Cell) {
    let server = serving(cell).start();
    assert_eq!(server.connect().post("/tasks", b"in a task").unwrap().text(), "in a task");
    let mut client = server.connect();
    client.send("POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").unwrap();
    server.until_held("/tasks");
    client.send("late").unwrap();
    assert_eq!(client.answer("POST").unwrap().text(), "late");
}

/// Whether the application waits for them or not, and from whichever task it sends them, as under uvicorn.
fn parts_are_sent_whole_and_in_order(cell: &Cell) {
    let server = serving(cell).file("file", "a".repeat(LARGE)).start();
    let (given_up, together) = ([(b'a', LARGE), (b'b', 1)], [b'a', b'b', b'c'].map(|l| (l, LARGE)));
    for (path, line, parts) in [
        ("/given_up", "given up", given_up.as_slice()),
        ("/given_up_file", "given up", given_up.as_slice()),
        ("/given_up_at_end", "given up", &given_up[..1]),
        ("/given_up_before_trailers", "given up", &given_up[..1]),
        ("/together", "three tasks send", together.as_slice()),
    ] {
        let mut client = unread(&server, path, line);
        let answer = client.answer("GET").unwrap();
        assert_eq!(runs(&answer.body), parts, "{path}");
        assert_eq!(answer.trailers.len(), usize::from(path.ends_with("trailers")), "{path}");
        assert_eq!(client.get("/context").unwrap().status, 200, "{path}: the connection is kept");
    }
}

/// Even while no task waits for it, as under uvicorn.
fn what_was_given_up_is_sent_at_once(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = unread(&server, "/given_up_while_idle", "given up");
    let mut arrived = 0;
    while arrived < LARGE - BUFFERED {
        arrived += client.fill().unwrap();
    }
    server.get("/release");
    assert_eq!(runs(&client.answer("GET").unwrap().body), [(b'a', LARGE), (b'b', 1)]);
    // A client that leaves before it has read all of the response is no longer served.
    drop(unread(&server, "/given_up_at_end", "given up"));
    server.until_workers("no request", |all| all.iter().all(|one| one.in_flight.is_empty()));
    assert!(!server.stop().log.contains("Traceback"));
}

/// Sends a request, and waits for a line of the log without reading the response.
fn unread(server: &Server, path: &str, line: &str) -> Connection {
    let start = server.log.mark();
    let mut client = server.connect();
    client.send_get(path).unwrap();
    server.log.line_after(start, &[line], SOON);
    client
}

/// Returns each byte and how often it follows in a row.
pub(crate) fn runs(body: &[u8]) -> Vec<(u8, usize)> {
    body.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect()
}

fn a_disconnect_is_received_and_ends_send(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = server.connect();
    client.send_get("/disconnect").unwrap();
    assert!(client.fill().unwrap() > 0);
    drop(client);
    server.log.line(&["received http.disconnect"], SOON);
    server.log.line(&["send raised ConnectionResetError"], SOON);
    server.log.line(&["ended the response"], SOON);
    // In the middle of a body.
    let mut client = server.connect();
    client.send("POST /parts HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab").unwrap();
    server.log.line(&["received 2 bytes"], SOON);
    drop(client);
    server.log.line(&["disconnected behind 2 bytes"], SOON);
    assert!(!server.stop().log.contains("Traceback"));
}

fn a_task_is_cancelled_after_the_grace_period(cell: &Cell) {
    let server = serving(cell).flags("--asgi-disconnect-grace-period 0.5").start();
    let mut client = server.connect();
    client.send_get("/stubborn").unwrap();
    server.log.line(&["waits"], SOON);
    let begun = Instant::now();
    drop(client);
    server.log.line(&["stubborn task cancelled"], SOON);
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    assert!(!server.stop().log.contains("Traceback"));
}

fn violations_of_the_protocol_are_named(cell: &Cell) {
    let server = serving(cell).start();
    assert_eq!(server.get("/mappings").text(), "mapped", "any mapping will do");
    for (target, words) in [
        (
            "/wrong_order",
            "unexpected ASGI message \"http.response.body\": expected http.response.start",
        ),
        ("/wrong_type", "the body of a message must be bytes, not str"),
        ("/no_mapping", "a message must be a dict, not str"),
        ("/no_status", "the message has no status"),
        ("/no_response", "the application returned without starting a response"),
    ] {
        assert_eq!(server.get(target).status, 500, "{target}");
        server.log.line(&[words], SOON);
    }
    let cut = server.try_get("/incomplete");
    assert!(matches!(cut, Err(Broken::Cut(_))), "{cut:?}");
    server.log.line(&["the application returned without completing its response"], SOON);
}

fn exceptions_are_logged_once(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = server.connect();
    assert_eq!(client.get("/fails").unwrap().status, 500);
    let cut = server.try_get("/fails_late");
    assert!(matches!(cut, Err(Broken::Cut(_))), "{cut:?}");
    server.log.line(&["LookupError: after the head"], SOON);
    let log = server.stop().log;
    for word in [
        "GET /fails: LookupError: before the head",
        "GET /fails_late: LookupError: after the head",
        "in fails\n",
        "in fails_late\n",
    ] {
        assert_eq!(log.matches(word).count(), 1, "{word}: {log}");
    }
    assert_eq!(log.matches("Traceback").count(), 2, "{log}");
    assert!(!log.contains("<_jimu_asgi>"), "frames of the server: {log}");
}

fn each_request_has_a_clean_context(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/context").unwrap().text(), "nothing");
    }
}

fn background_work_follows_the_response(cell: &Cell) {
    let server = serving(cell).flags("--asgi-disconnect-grace-period 0.1").start();
    let mut client = server.connect();
    assert_eq!(client.get("/background").unwrap().text(), "responded");
    assert_eq!(client.get("/context").unwrap().text(), "nothing", "the connection is free");
    assert_eq!(server.log.count("background work done"), 0);
    assert_eq!(client.get("/release").unwrap().text(), "released");
    server.log.line(&["background work done"], SOON);
    // A client that leaves after the response does not end the work.
    let mut client = server.connect();
    assert_eq!(client.get("/background").unwrap().status, 200);
    drop(client);
    // Five times the grace period.
    assert_eq!(server.get("/later").text(), "later");
    server.get("/release");
    let found = server
        .log
        .until(SOON, |log| (log.matches("background work done").count() == 2).then_some(()));
    assert!(found.is_some());
}

fn files_are_sent_by_the_server(cell: &Cell) {
    let server = serving(cell).file("file", "0123456789").start();
    let mut client = server.connect();
    assert_eq!(client.get("/pathsend").unwrap().text(), "0123456789");
    assert_eq!(client.get("/zerocopysend").unwrap().text(), "234|6789");
    client.send("HEAD /pathsend HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.answer("HEAD").unwrap().field("Content-Length"), Some("10"));
    let large = vec![b'x'; 5_000_000];
    server.write("file", &large);
    assert!(client.get("/pathsend").unwrap().body == large);
    assert!(client.get("/zerocopysend").unwrap().body.len() == large.len() - 6 + 4);
}

fn early_hints_precede_the_response(cell: &Cell) {
    let server = serving(cell).start();
    let answer = server.get("/hints");
    assert_eq!(answer.text(), "hinted");
    let [hint] = &answer.informational[..] else { panic!("{:?}", answer.informational) };
    let links: Vec<_> = hint.values("Link").collect();
    assert_eq!((hint.status, links), (103, vec!["</a.css>; rel=preload", "</b.js>; rel=preload"]));
}

fn trailers_follow_the_body(cell: &Cell) {
    let server = serving(cell).start();
    let mut client = server.connect();
    client.send("GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").unwrap();
    let answer = client.answer("GET").unwrap();
    let trailers: Vec<_> = answer
        .trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    assert_eq!(answer.text(), "body");
    assert_eq!(trailers, [("x-sum".to_owned(), "4"), ("x-more".to_owned(), "5")]);
    assert_eq!(client.get("/context").unwrap().status, 200, "the connection is kept");
}

fn a_request_that_hangs_is_cancelled_with_its_stack(cell: &Cell) {
    let server = serving(cell).flags("--request-timeout 1 --access-logfile -").start();
    let mut client = server.connect();
    client.send_get("/hang").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 504);
    server.log.line(&["GET /hang timed out after 1.", "(request_timeout)"], SOON);
    for frame in ["in hang", "in first_inner", "in second_inner"] {
        server.log.line(&["asgi_requests.py", frame], SOON);
    }
    server.out.line(&["\"GET /hang HTTP/1.1\" 504 "], SOON);
    assert_eq!(server.get("/context").status, 200);
    // Two at the same time, beside a task whose request is not late.
    let mut stream = server.connect();
    stream.send_get("/events").unwrap();
    assert!(stream.fill().unwrap() > 0);
    let mut clients = [server.connect(), server.connect()];
    clients.iter_mut().for_each(|client| client.send_get("/hang").unwrap());
    for client in &mut clients {
        assert_eq!(client.answer("GET").unwrap().status, 504);
    }
    let log = server.stop().log;
    for once_each in ["GET /hang timed out", "in hang\n", "in second_inner\n"] {
        assert_eq!(log.matches(once_each).count(), 3, "{once_each}: {log}");
    }
}

fn what_blocks_the_loop_is_named(cell: &Cell) {
    let server = serving(cell).flags("--greenlet-block-warning 0.2").start();
    let source = fs::read_to_string(jimu_tests::cell::apps().join("asgi_requests.py")).unwrap();
    let line = 1 + source.lines().position(|line| line.contains("time.sleep(1)")).unwrap();
    assert_eq!(server.get("/block").text(), "blocked");
    server.log.line(&["blocked for", &format!("asgi_requests.py:{line}, in block")], SOON);
    assert_eq!(server.log.count("blocked for"), 1, "once per occurrence");
}

fn a_stream_of_events_does_not_delay_a_reload(cell: &Cell) {
    let server = serving(cell).flags("--graceful-timeout 30").start();
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = server.connect();
            client.send_get("/events").unwrap();
            assert!(client.fill().unwrap() > 0);
            client
        })
        .collect();
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    for client in &mut clients {
        // The response is complete, not cut.
        let answer = String::from_utf8(client.rest().unwrap()).unwrap();
        assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    }
    server.until_workers("a successor alone", |workers| {
        workers.len() == 1 && workers[0].generation == 2 && workers[0].state == "ready"
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(server.log.count("stream of events disconnected"), 20);
    let log = server.stop().log;
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}

/// Its `send` fails, whether the stream began before or after the drain, and its response is complete.
fn a_stream_that_only_sends_does_not_delay_a_reload(cell: &Cell) {
    let server = serving(cell).flags("--graceful-timeout 30").start();
    let mut late = server.connect();
    late.send_get("/ticks").unwrap();
    server.log.line(&["ticks wait"], SOON);
    server.signal(Signal::SIGHUP);
    server.until_workers("a draining worker", |workers| {
        workers.iter().any(|worker| worker.state == "draining")
    });
    server.write("released", "");
    let mut early = server.connect();
    early.send_get("/ticks").unwrap();
    assert!(early.fill().unwrap() > 0);
    server.signal(Signal::SIGHUP);
    for client in [&mut late, &mut early] {
        let events = String::from_utf8(client.rest().unwrap()).unwrap();
        assert!(events.contains("data: tick") && events.ends_with("\r\n0\r\n\r\n"), "{events}");
    }
    let log = server.stop().log;
    assert!(!log.contains("Traceback"), "{log}");
}
