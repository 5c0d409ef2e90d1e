//! Requests and responses, the same for every class and application.

use jimu_tests::{
    behaviour,
    cell::{App, Cell, Need},
    http::{Broken, Connection, Framing},
    process,
    runner::Behaviour,
    server::Setup,
    wait,
};

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(answers_have_date_server_and_length),
        behaviour!(bodies_come_back),
        behaviour!(a_stream_has_a_framing_that_shows_its_end),
        behaviour!(head_has_no_body),
        behaviour!(old_clients_get_old_answers),
        behaviour!(request_fields_reach_the_application),
        behaviour!(files_are_sent_whole),
        behaviour!(an_unknown_path_is_404),
        behaviour!(a_big_body_comes_back),
        behaviour!(expect_continue_is_answered_before_the_body),
        behaviour!(a_half_closed_client_is_answered),
        behaviour!(a_malformed_request_is_answered_once),
        behaviour!(a_panic_costs_one_request),
        behaviour!(connections_are_kept).needs(Need::KeepAlive),
        behaviour!(an_idle_connection_is_closed_in_time).needs(Need::KeepAlive),
        behaviour!(pipelined_requests_are_answered_in_order).needs(Need::KeepAlive),
        behaviour!(a_slow_request_does_not_hold_back_the_response_before_it).needs(Need::KeepAlive),
        behaviour!(close_is_honoured),
        behaviour!(a_worker_serves_many_at_once).needs(Need::Concurrency),
        behaviour!(workers_share_the_work),
    ]
}

fn answers_have_date_server_and_length(cell: &Cell) {
    let server = Setup::new(cell).start();
    let answer = server.get("/");
    assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
    assert_eq!(answer.text(), "Hello, world!\n");
    assert_eq!(answer.framing, Framing::Length(14));
    let date = answer.field("Date").expect("an origin server with a clock sends Date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    // gevent's handler, which pywsgi follows, sends no Server header.
    assert_eq!(answer.field("Server").is_some(), cell.class.name != "pywsgi");
    let silent = Setup::new(cell).flags("--no-server-header").start();
    assert!(silent.get("/").field("Server").is_none());
}

fn bodies_come_back(cell: &Cell) {
    let server = Setup::new(cell).start();
    for size in [0, 1, 1000, 100_000] {
        let body: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let answer = server.connect().post("/echo", &body).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{size} bytes came back as {}", answer.body.len());
    }
    let mut client = server.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n1\r\n,\r\nA;x=y\r\n wide worl\r\n")).unwrap();
    client.send("1\r\nd\r\n0\r\nX-Sum: 18\r\n\r\n").unwrap();
    assert_eq!(client.answer("POST").unwrap().text(), "hello, wide world");
}

fn a_stream_has_a_framing_that_shows_its_end(cell: &Cell) {
    let server = Setup::new(cell).start();
    let answer = server.get("/stream?n=10&size=3000");
    assert_eq!((answer.status, answer.body.len()), (200, 30_000));
    assert_eq!(answer.framing, Framing::Chunked);
    let mut old = server.connect();
    old.send("GET /stream?n=10&size=3000 HTTP/1.0\r\n\r\n").unwrap();
    let answer = old.answer("GET").unwrap();
    assert_eq!((answer.framing, answer.body.len()), (Framing::Close, 30_000));
}

fn head_has_no_body(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let answer = client.answer("HEAD").unwrap();
    assert_eq!((answer.status, answer.field("Content-Length")), (200, Some("14")));
    assert_eq!(client.rest().unwrap(), b"");
}

fn old_clients_get_old_answers(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = client.answer("GET").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, world!\n"));
    assert!(!answer.keeps());
    assert!(client.closes(Duration::from_secs(5)), "HTTP/1.0 means close");
}

fn request_fields_reach_the_application(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    client.send("GET /headers HTTP/1.1\r\nHost: test\r\nX-Colour:  deep blue \r\n\r\n").unwrap();
    let text = client.answer("GET").unwrap().text();
    let found = text.lines().any(|line| line.to_lowercase().contains("x-colour"));
    assert!(found && text.contains("deep blue") && !text.contains("deep blue "), "{text}");
}

fn files_are_sent_whole(cell: &Cell) {
    let content: Vec<u8> = (0..700_000).map(|n: u32| (n / 7 % 256) as u8).collect();
    let server = Setup::new(cell).file("data.bin", &content).start();
    let answer = server.get("/file?path=data.bin");
    assert_eq!(answer.framing, Framing::Length(700_000));
    assert!(answer.body == content, "another content");
    assert_eq!(server.get("/file?path=../../etc/passwd").status, 404);
}

fn an_unknown_path_is_404(cell: &Cell) {
    let server = Setup::new(cell).start();
    assert_eq!(server.get("/nothing/here").status, 404);
    assert_eq!(server.get("/").status, 200);
}

fn a_big_body_comes_back(cell: &Cell) {
    let server = Setup::new(cell).start();
    let body = vec![b'x'; 4 << 20];
    let mut client = server.connect();
    // The response arrives while the request is still being sent: both directions must make progress.
    let head =
        format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head).unwrap();
    let mut sender = client.twin();
    let sending = std::thread::spawn(move || sender.send(body));
    let answer = client.answer("POST").unwrap();
    sending.join().unwrap().unwrap();
    assert_eq!(answer.body.len(), 4 << 20);
}

fn expect_continue_is_answered_before_the_body(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    let head =
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).unwrap();
    assert_eq!(client.one_answer("POST").unwrap().status, 100);
    client.send("body").unwrap();
    let answer = client.answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
}

/// The client has shut down its side before a worker sees the request. Later, an ASGI application is notified of a
/// disconnect ([`worker_api::Exchange::on_disconnect`]); the others are not.
fn a_half_closed_client_is_answered(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 1").start();
    let worker = server.until_ready_workers(1)[0];
    process::stop(worker);
    let mut client = server.connect();
    client.send_get("/sleep?ms=50").unwrap();
    client.end_sending();
    process::signal(worker, Signal::SIGCONT);
    assert_eq!(client.answer("GET").unwrap().status, 200);
    if cell.app != App::Asgi {
        let mut client = server.connect();
        client.send_get("/sleep?ms=500").unwrap();
        server.until_held("/sleep");
        client.end_sending();
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
}

fn a_malformed_request_is_answered_once(cell: &Cell) {
    let server = Setup::new(cell).start();
    for request in [
        "GET / HTTP/1.1\r\n\r\nGET /pid HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nBad Name: x\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: x\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(request).unwrap();
        let answer = client.answer("GET").unwrap_or_else(|broken| panic!("{request:?}: {broken}"));
        assert!((400..502).contains(&answer.status), "{}: {request:?}", answer.status);
        assert!(!answer.keeps(), "{request:?}");
        match client.rest() {
            Ok(rest) => assert_eq!(rest, b"", "{request:?}"),
            Err(broken) => panic!("{request:?}: {broken}"),
        }
    }
    assert_eq!(server.get("/").status, 200);
}

fn a_panic_costs_one_request(cell: &Cell) {
    let server = Setup::new(cell).start();
    let before = server.serving_pid();
    match server.try_get("/panic") {
        Ok(answer) => assert_eq!(answer.status, 500),
        Err(Broken::Closed | Broken::Cut(_)) => {}
        Err(broken) => panic!("{broken}"),
    }
    assert_eq!(server.serving_pid(), before, "the worker serves on");
    server.log.line(&["panic"], Duration::from_secs(5));
}

fn connections_are_kept(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    for _ in 0..20 {
        let answer = client.get("/").unwrap();
        assert!(answer.status == 200 && answer.keeps());
        assert_eq!(client.post("/echo", b"again").unwrap().text(), "again");
    }
}

fn an_idle_connection_is_closed_in_time(cell: &Cell) {
    let server = Setup::new(cell).flags("--keep-alive 1").start();
    let mut client = server.connect();
    assert!(client.get("/").unwrap().keeps());
    let begun = Instant::now();
    assert!(client.closes(Duration::from_secs(5)), "idle for longer than keep-alive");
    assert!(begun.elapsed() > Duration::from_millis(800), "closed after {:?}", begun.elapsed());
}

fn pipelined_requests_are_answered_in_order(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    for n in 0..30 {
        let head = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {n}\r\n\r\n");
        client.send(head + &"x".repeat(n)).unwrap();
    }
    for n in 0..30 {
        assert_eq!(client.answer("POST").unwrap().body.len(), n);
    }
    assert_eq!(client.left_over(), b"");
}

/// Responses to pipelined requests are sent together, but none waits for longer than 20 ms.
fn a_slow_request_does_not_hold_back_the_response_before_it(cell: &Cell) {
    let server = Setup::new(cell).start();
    let mut client = server.connect();
    let begun = Instant::now();
    client
        .send(
            "GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /sleep?ms=2000 HTTP/1.1\r\nHost: test\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 200);
    assert!(begun.elapsed() < Duration::from_secs(1), "after {:?}", begun.elapsed());
    assert_eq!(client.answer("GET").unwrap().status, 200);
}

fn close_is_honoured(cell: &Cell) {
    let server = Setup::new(cell).start();
    for options in ["close", "keep-alive, close", "Close", "x\r\nConnection: CLOSE"] {
        let mut client = server.connect();
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {options}\r\n\r\n");
        client.send(request.repeat(2)).unwrap();
        assert_eq!(client.answer("GET").unwrap().status, 200);
        assert_eq!(client.rest().unwrap(), b"", "a second request was served after {options:?}");
    }
}

fn a_worker_serves_many_at_once(cell: &Cell) {
    let server = Setup::new(cell).flags("--threads 8").start();
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let begun = Instant::now();
    clients.iter_mut().for_each(|client| client.send_get("/sleep?ms=1000").unwrap());
    for client in &mut clients {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "one after the other: {:?}", begun.elapsed());
}

/// Under bursts of ten requests both workers serve, whatever the class. One of them may take a whole burst.
fn workers_share_the_work(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    server.until_ready_workers(2);
    wait::until("requests served by both workers", Duration::from_secs(20), || {
        let mut clients: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send_get("/sleep?ms=50").unwrap());
        for client in &mut clients {
            assert_eq!(client.answer("GET").unwrap().status, 200);
        }
        let counts: Vec<u64> = server.workers().iter().map(|worker| worker.requests).collect();
        if counts.iter().filter(|&&requests| requests > 0).count() == 2 {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    });
}
