//! `WebSocket` through ASGI: handshakes, messages, and how connections end.

use std::{
    io::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::{Cell, apps, frameworks_python, has_modules},
    http::{Address, Answer, Broken, Connection},
    load::{Load, Plan, get},
    runner::Behaviour,
    server::{Server, Setup},
    tls::Authority,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::{
    Error, Message, WebSocket,
    client::{self, IntoClientRequest},
    handshake::client::Response,
    http::HeaderValue,
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

use crate::asgi::{LARGE, runs};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(websocket_messages_are_echoed).of_asgi(),
        behaviour!(websocket_messages_are_echoed_over_tls).of_asgi(),
        behaviour!(messages_in_pieces_and_in_bursts_are_echoed).of_asgi(),
        behaviour!(websocket_messages_are_compressed)
            .of_asgi()
            .only_if(has_client, "the Python environment has no package websockets"),
        behaviour!(a_websocket_has_a_scope).of_asgi(),
        behaviour!(a_websocket_can_be_denied).of_asgi(),
        behaviour!(bad_handshakes_are_refused).of_asgi(),
        behaviour!(close_codes_pass_in_both_directions).of_asgi(),
        behaviour!(a_websocket_that_is_over_is_freed).of_asgi(),
        behaviour!(a_close_behind_unread_messages_ends_the_connection).of_asgi(),
        behaviour!(a_lost_client_is_a_disconnect).of_asgi(),
        behaviour!(the_task_of_a_lost_client_is_cancelled).of_asgi(),
        behaviour!(an_exception_closes_a_websocket).of_asgi(),
        behaviour!(a_message_that_is_too_big_closes_a_websocket).of_asgi(),
        behaviour!(text_must_be_utf_8).of_asgi(),
        behaviour!(pings_are_answered_and_silent_clients_are_cut).of_asgi(),
        behaviour!(pings_follow_the_interval).of_asgi(),
        behaviour!(a_slow_reader_delays_only_its_sender).of_asgi(),
        behaviour!(a_cancelled_receive_loses_no_websocket_message).of_asgi(),
        behaviour!(a_reload_closes_idle_websockets).of_asgi(),
        behaviour!(a_stop_closes_websockets).of_asgi(),
        behaviour!(reloads_under_load_with_long_connections_lose_nothing)
            .of_asgi()
            .busy()
            .within(240),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn has_client() -> bool {
    has_modules(frameworks_python(), &["websockets"])
}

type Socket = WebSocket<Connection>;

fn serving(cell: &Cell) -> Setup {
    Setup::new(cell).app("asgi_sockets:application")
}

/// Opens a `WebSocket` on a connection.
fn open_on(
    connection: Connection,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (Socket, Response) {
    let mut request = format!("ws://test{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    client::client_with_config(request, connection, Some(config))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn open(server: &Server, path: &str) -> Socket {
    open_on(server.connect(), path, &[]).0
}

/// Reads up to the end of the connection, and returns the code and the reason of the Close frame.
fn closed(socket: &mut Socket) -> (u16, String) {
    let mut end = None;
    loop {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => {
                end = Some((frame.code.into(), frame.reason.to_string()));
            }
            Ok(Message::Close(None)) => end = Some((1005, String::new())),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Err(Error::ConnectionClosed) => return end.expect("a Close frame"),
            other => panic!("no end: {other:?}, after {end:?}"),
        }
    }
}

fn echoes(socket: &mut Socket, message: &Message) {
    socket.send(message.clone()).unwrap();
    assert!(socket.read().unwrap() == *message);
}

/// A frame of a client with a text of less than 126 bytes, whose mask changes nothing.
fn frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The server waits again after each byte; of a burst it keeps fewer messages for the application than there are.
fn messages_in_pieces_and_in_bursts_are_echoed(cell: &Cell) {
    const BURST: usize = 500;
    let authority = Authority::new();
    let plain = serving(cell).start();
    let secured = serving(cell).secured(&authority.server()).start();
    let over_tls = secured.connect().over_tls(&authority.trusting()).unwrap();
    for connection in [plain.connect(), over_tls] {
        let mut socket = open_on(connection, "/echo", &[]).0;
        for byte in frame("piece by piece") {
            socket.get_mut().write_all(&[byte]).unwrap();
        }
        assert_eq!(socket.read().unwrap(), Message::text("piece by piece"));
        let texts: Vec<String> = (0..BURST).map(|number| format!("message {number}")).collect();
        let frames: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
        // Two and a half, in two writes.
        let (first, rest) = frames.split_at(frames.len() / 2 + 3);
        for part in [first, rest] {
            socket.get_mut().write_all(part).unwrap();
        }
        for text in &texts {
            assert_eq!(socket.read().unwrap(), Message::text(text));
        }
        socket.close(None).unwrap();
        assert_eq!(closed(&mut socket).0, 1005);
    }
}

/// Sends this handshake, and returns the response.
fn shake(server: &Server, path: &str, fields: &str) -> Answer {
    let mut client = server.connect();
    client.send(handshake(path, fields)).unwrap();
    client.answer("GET").unwrap()
}

fn handshake(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
    )
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn messages_are_echoed(mut socket: Socket) {
    for text in ["hello", "", "\u{fc}\u{1f600}"] {
        echoes(&mut socket, &Message::text(text));
    }
    echoes(&mut socket, &Message::binary(vec![0, 255, 128]));
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    echoes(&mut socket, &Message::binary(large));
    echoes(&mut socket, &Message::text("x".repeat(1_000_000)));
    for number in 0..100 {
        socket.write(Message::text(number.to_string())).unwrap();
    }
    socket.flush().unwrap();
    for number in 0..100 {
        assert_eq!(socket.read().unwrap(), Message::text(number.to_string()));
    }
    socket.close(None).unwrap();
    closed(&mut socket);
}

fn websocket_messages_are_echoed(cell: &Cell) {
    for flags in ["--asgi-loop asyncio", "--asgi-loop auto"] {
        let server = serving(cell).flags(flags).start();
        messages_are_echoed(open(&server, "/echo"));
        server.log.line(&["echo: websocket.disconnect 1005 ''"], SOON);
        server.until_workers("it is over", |workers| workers.iter().all(|w| w.busy == 0));
        assert!(!server.stop().log.contains("Traceback"));
    }
}

fn websocket_messages_are_echoed_over_tls(cell: &Cell) {
    let authority = Authority::new();
    let server = serving(cell).secured(&authority.server()).start();
    let connect = || server.connect().over_tls(&authority.trusting()).unwrap();
    messages_are_echoed(open_on(connect(), "/echo", &[]).0);
    let scope = scope_of(open_on(connect(), "/facts", &[]).0);
    assert_eq!(scope["scheme"], "wss");
    assert_eq!(scope["extensions"]["tls"]["tls_version"], 0x0304);
    server.stop();
}

fn websocket_messages_are_compressed(cell: &Cell) {
    for (flags, compression) in [("", "yes"), ("--no-websocket-compression", "no")] {
        let server = serving(cell).flags(flags).start();
        let Address::Tcp(address) = server.address().clone() else { panic!("no TCP address") };
        let mut client = Command::new(frameworks_python().unwrap());
        client.arg(apps().join("asgi_websocket_client.py"));
        let output = client.args([&format!("ws://{address}"), compression]).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}");
        assert!(!server.stop().log.contains("Traceback"));
    }
}

fn scope_of(mut socket: Socket) -> Value {
    let scope = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
    socket.close(None).unwrap();
    closed(&mut socket);
    scope
}

fn a_websocket_has_a_scope(cell: &Cell) {
    let server = serving(cell).flags("--root-path /top").start();
    let headers = [("sec-websocket-protocol", "first, second"), ("x-mixed", "VaLue")];
    let (socket, response) = open_on(server.connect(), "/facts/caf%C3%A9?a=1", &headers);
    assert_eq!(response.headers()["sec-websocket-protocol"], "second");
    let own: Vec<_> = response.headers().get_all("x-own").iter().collect();
    assert_eq!(own, ["one", "two"]);
    let scope = scope_of(socket);
    for (name, value) in [
        ("type", json!("websocket")),
        ("asgi", json!({"version": "3.0", "spec_version": "2.5"})),
        ("http_version", json!("1.1")),
        ("scheme", json!("ws")),
        ("path", json!("/top/facts/caf\u{e9}")),
        ("raw_path", json!("b:/top/facts/caf%C3%A9")),
        ("query_string", json!("b:a=1")),
        ("root_path", json!("/top")),
        ("subprotocols", json!(["first", "second"])),
        ("extensions", json!({"websocket.http.response": {}})),
    ] {
        assert_eq!(scope[name], value, "{name}");
    }
    assert!(scope.get("method").is_none());
    assert!(scope["headers"].as_array().unwrap().contains(&json!(["b:x-mixed", "b:VaLue"])));
}

fn a_websocket_can_be_denied(cell: &Cell) {
    let server = serving(cell).start();
    let good = [KEY, VERSION].concat();
    let answer = shake(&server, "/refuses", &good);
    assert_eq!((answer.status, answer.text().as_str()), (403, ""));
    let answer = shake(&server, "/denies", &good);
    assert_eq!((answer.status, answer.text().as_str()), (401, "who are you"));
    assert_eq!(answer.field("X-Own"), Some("denied"));
    let mut client = server.connect();
    client.send(handshake("/denies_at_length", &good)).unwrap();
    server.log.line(&["gave up b"], SOON);
    let body = client.answer("GET").unwrap().body;
    assert_eq!(runs(&body), [(b'a', LARGE), (b'b', LARGE)], "whole and in order");
    assert!(!server.log.text().contains("Traceback"));
    let mut client = server.connect();
    client.send(handshake("/denies_in_part", &good)).unwrap();
    assert!(matches!(client.answer("GET"), Err(Broken::Cut(_))));
    server.log.line(&["without completing its response to the handshake"], SOON);
    assert_eq!(shake(&server, "/returns", &good).status, 500);
    server.log.line(&["returned without accepting or closing the WebSocket"], SOON);
    assert_eq!(shake(&server, "/fails_early", &good).status, 500);
    server.log.line(&["LookupError: before the handshake"], SOON);
}

fn bad_handshakes_are_refused(cell: &Cell) {
    let server = serving(cell).start();
    let answer = shake(&server, "/echo", &format!("{KEY}Sec-WebSocket-Version: 8\r\n"));
    assert_eq!((answer.status, answer.field("Sec-WebSocket-Version")), (426, Some("13")));
    for fields in [VERSION.to_owned(), format!("{VERSION}Sec-WebSocket-Key: short\r\n")] {
        assert_eq!(shake(&server, "/echo", &fields).status, 400, "{fields}");
    }
    let answer = shake(&server, "/echo", &[KEY, VERSION].concat());
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.field("Sec-WebSocket-Extensions"), None, "not offered");
    assert!(!server.log.text().contains("Traceback"));
}

fn close_codes_pass_in_both_directions(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/echo");
    socket
        .close(Some(CloseFrame { code: CloseCode::from(4001), reason: "enough".into() }))
        .unwrap();
    assert_eq!(closed(&mut socket).0, 4001, "the code is returned");
    server.log.line(&["echo: websocket.disconnect 4001 'enough'"], SOON);
    for (sent, code, reason) in
        [("1000 done", 1000, "done"), ("3999 why", 3999, "why"), ("1008 policy", 1008, "policy")]
    {
        let mark = server.log.mark();
        let mut socket = open(&server, "/closes");
        socket.send(Message::text(sent)).unwrap();
        assert_eq!(closed(&mut socket), (code, reason.to_owned()));
        server.log.line_after(mark, &["send raised ConnectionResetError"], SOON);
        server.log.line_after(mark, &[&format!("then received websocket.disconnect {code}")], SOON);
    }
    let mut socket = open(&server, "/ends");
    assert_eq!(closed(&mut socket).0, 1000, "at the end of the task");
    assert!(!server.stop().log.contains("Traceback"));
}

/// Also if its task has ended before the connection, and if it could take longer to end.
fn a_websocket_that_is_over_is_freed(cell: &Cell) {
    let server = serving(cell).flags("--asgi-disconnect-grace-period 60").start();
    for _ in 0..10 {
        let mut socket = open(&server, "/ends");
        assert_eq!(closed(&mut socket).0, 1000);
        drop(open(&server, "/ends"));
        drop(open(&server, "/echo"));
    }
    let mut socket = open(&server, "/tasks");
    wait::until("only the task that counts", SOON, || {
        socket.send(Message::text("how many?")).unwrap();
        let count = socket.read().unwrap().into_text().unwrap();
        if count == "1" { Ok(()) } else { Err(format!("{count} tasks")) }
    });
}

/// Also if the application has received so little that the server has stopped to read.
fn a_close_behind_unread_messages_ends_the_connection(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/deaf");
    server.log.line(&["deaf: accepted"], SOON);
    for _ in 0..100 {
        socket.write(Message::text("unheard")).unwrap();
    }
    socket.flush().unwrap();
    server.log.line(&["deaf: received one message"], SOON);
    server.write("released", "");
    let closing = Instant::now();
    assert_eq!(closed(&mut socket).0, 4000);
    // A client that does not reply is given ten seconds; this one has replied.
    assert!(closing.elapsed() < Duration::from_secs(5), "{:?}", closing.elapsed());
}

fn a_lost_client_is_a_disconnect(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/echo");
    echoes(&mut socket, &Message::text("there"));
    drop(socket);
    server.log.line(&["echo: websocket.disconnect 1006 ''"], SOON);
    server.until_workers("it is over", |workers| workers.iter().all(|w| w.busy == 0));
    assert!(!server.stop().log.contains("Traceback"));
}

/// However the client ends the connection, and whether the task has received that or not.
fn the_task_of_a_lost_client_is_cancelled(cell: &Cell) {
    let flags = "--asgi-disconnect-grace-period 0.3 --websocket-ping-interval 0.2 --websocket-ping-timeout 0.2";
    let server = serving(cell).flags(flags).start();
    for path in ["/stubborn", "/stubborn_receiver"] {
        let ends: [fn(Socket) -> Option<Socket>; 3] = [
            |mut socket| {
                socket.close(None).unwrap();
                socket.flush().unwrap();
                Some(socket)
            },
            |_left| None,
            |silent| Some(silent),
        ];
        for end in ends {
            let start = server.log.mark();
            let _kept = end(open(&server, path));
            server.log.line_after(start, &["stubborn task cancelled"], SOON);
        }
    }
    assert!(!server.stop().log.contains("Traceback"));
}

fn an_exception_closes_a_websocket(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/fails");
    socket.send(Message::text("go")).unwrap();
    assert_eq!(closed(&mut socket).0, 1011);
    server.log.line(&["LookupError: after the handshake"], SOON);
    let log = server.stop().log;
    assert_eq!(log.matches("Traceback").count(), 1, "{log}");
    assert!(log.contains("in fails\n"), "{log}");
}

fn a_message_that_is_too_big_closes_a_websocket(cell: &Cell) {
    let server = serving(cell).flags("--websocket-max-message-size 1000").start();
    let mut socket = open(&server, "/echo");
    echoes(&mut socket, &Message::binary(vec![1; 1000]));
    socket.send(Message::binary(vec![1; 1001])).unwrap();
    assert_eq!(closed(&mut socket).0, 1009);
    server.log.line(&["echo: websocket.disconnect 1009"], SOON);
}

fn text_must_be_utf_8(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/echo");
    // A text frame with the mask 0 and one byte that no text contains.
    socket.get_mut().send([0x81, 0x81, 0, 0, 0, 0, 0xff]).unwrap();
    assert_eq!(closed(&mut socket).0, 1007);
}

fn pings_are_answered_and_silent_clients_are_cut(cell: &Cell) {
    let flags = "--websocket-ping-interval 0.5 --websocket-ping-timeout 0.5";
    let server = serving(cell).flags(flags).start();
    let mut socket = open(&server, "/echo");
    socket.send(Message::Ping("payload".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("payload".into()));
    // A client that answers stays: each read() sends the pong of the ping before.
    for _ in 0..3 {
        assert!(matches!(socket.read().unwrap(), Message::Ping(_)));
        socket.flush().unwrap();
    }
    echoes_between_pings(&mut socket);
    let mut silent = server.connect();
    silent
        .send(format!("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}{VERSION}\r\n"))
        .unwrap();
    let begun = Instant::now();
    assert!(silent.ends(SOON), "the silent client is cut");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.log.line(&["echo: websocket.disconnect 1006 ''"], SOON);
}

/// Also an interval of less than a second, beside connections that are opened later.
fn pings_follow_the_interval(cell: &Cell) {
    for flags in ["--asgi-loop asyncio", "--asgi-loop auto"] {
        let server = serving(cell).flags(flags).flags("--websocket-ping-interval 0.3").start();
        let mut socket = open(&server, "/echo");
        let begun = Instant::now();
        let mut others = Vec::new();
        for _ in 0..6 {
            assert!(matches!(socket.read().unwrap(), Message::Ping(_)));
            socket.flush().unwrap();
            others.push(open(&server, "/echo"));
        }
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(1700), "6 pings in {passed:?}");
        assert!(passed < Duration::from_millis(3500), "6 pings in {passed:?}");
        for other in &mut others {
            assert!(matches!(other.read().unwrap(), Message::Ping(_)));
        }
    }
}

/// An echo, with pings before it.
fn echoes_between_pings(socket: &mut Socket) {
    socket.send(Message::text("still here")).unwrap();
    loop {
        match socket.read().unwrap() {
            Message::Ping(_) => {}
            other => return assert_eq!(other, Message::text("still here")),
        }
    }
}

fn a_slow_reader_delays_only_its_sender(cell: &Cell) {
    let server = serving(cell).start();
    let mut slow = open(&server, "/floods");
    let mut other = open(&server, "/echo");
    echoes(&mut other, &Message::text("not delayed"));
    for number in 0..50_u8 {
        assert!(slow.read().unwrap() == Message::binary(vec![number; 100_000]));
    }
    slow.close(None).unwrap();
    closed(&mut slow);
}

fn a_cancelled_receive_loses_no_websocket_message(cell: &Cell) {
    let server = serving(cell).start();
    let mut socket = open(&server, "/impatient");
    for number in 0..5 {
        let mark = server.log.mark();
        server.log.line_after(mark, &["receive() cancelled"], SOON);
        echoes(&mut socket, &Message::text(number.to_string()));
    }
    for number in 0..200 {
        echoes(&mut socket, &Message::text(number.to_string()));
    }
}

fn a_reload_closes_idle_websockets(cell: &Cell) {
    let server = serving(cell).flags("--graceful-timeout 30").start();
    let mut sockets: Vec<_> = (0..100).map(|_| open(&server, "/echo")).collect();
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    for socket in &mut sockets {
        assert_eq!(closed(socket).0, 1012);
    }
    server.until_workers("a successor alone", |workers| {
        workers.len() == 1 && workers[0].generation == 2 && workers[0].state == "ready"
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(server.log.count("echo: websocket.disconnect 1012"), 100);
    echoes(&mut open(&server, "/echo"), &Message::text("served by the next"));
    let log = server.stop().log;
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}

fn a_stop_closes_websockets(cell: &Cell) {
    let server = serving(cell).start();
    let mut sockets: Vec<_> = (0..3).map(|_| open(&server, "/echo")).collect();
    server.signal(Signal::SIGTERM);
    for socket in &mut sockets {
        assert_eq!(closed(socket).0, 1012);
    }
    assert!(!server.stop().log.contains("Traceback"));
}

fn reloads_under_load_with_long_connections_lose_nothing(cell: &Cell) {
    const RELOADS: usize = 20;
    const EACH: usize = 100;
    const GRACEFUL_TIMEOUT: Duration = Duration::from_secs(10);
    let both = "import asgi_requests, asgi_sockets\nasync def application(scope, receive, send):\n    \
                module = asgi_sockets if scope['type'] == 'websocket' else asgi_requests\n    await \
                module.application(scope, receive, send)\n";
    let setup = Setup::new(cell).file("both.py", both).app("both");
    let server = setup.flags("--workers 2 --graceful-timeout 10").start();
    server.until_ready_workers(2);
    let ask = |_| get("/context");
    let load = Load::start(server.address(), Plan { clients: 4, ask, ..Plan::default() });
    for _ in 0..RELOADS {
        let sockets: Vec<_> = (0..EACH).map(|_| open(&server, "/echo")).collect();
        let streams: Vec<_> = (0..EACH)
            .map(|_| {
                let mut client = server.connect();
                client.send_get("/events").unwrap();
                assert!(client.fill().unwrap() > 0);
                client
            })
            .collect();
        load.flows(20, SOON);
        let begun = Instant::now();
        let reload = thread::scope(|scope| {
            let reload = scope.spawn(|| server.ctl(&["reload"]));
            // Each client closes its side as soon as the server has.
            for mut socket in sockets {
                assert_eq!(closed(&mut socket).0, 1012);
            }
            for mut stream in streams {
                assert!(stream.rest().unwrap().ends_with(b"\r\n0\r\n\r\n"));
            }
            reload.join().unwrap()
        });
        reload.done();
        assert!(begun.elapsed() < GRACEFUL_TIMEOUT, "{:?}", begun.elapsed());
    }
    load.finish().assert_nothing_lost();
    let log = server.stop().log;
    for end in ["echo: websocket.disconnect 1012", "stream of events disconnected"] {
        assert_eq!(log.matches(end).count(), RELOADS * EACH, "{end}");
    }
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}
