//! ASGI frameworks as users run them: `FastAPI`, Starlette with sse-starlette, Django with Channels, Litestar, Quart,
//! `BlackSheep`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::{Cell, apps, asgi_python, frameworks_python, has_modules},
    http::{Answer, Connection},
    runner::Behaviour,
    server::{Server, Setup},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::client};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    let common = [
        behaviour!(fastapi_serves_requests),
        behaviour!(fastapi_ends_what_a_client_leaves),
        behaviour!(fastapi_serves_websockets),
        behaviour!(starlette_serves_requests),
        behaviour!(starlette_streams_events_until_a_reload),
        behaviour!(starlette_serves_websockets),
        behaviour!(django_serves_requests),
        behaviour!(django_channels_serve_websockets),
    ]
    .map(|one| one.of_asgi().only_if(has_frameworks, NO_FRAMEWORKS));
    let separate =
        [behaviour!(litestar_serves), behaviour!(quart_serves), behaviour!(blacksheep_serves)]
            .map(|one| one.of_asgi().only_if(has_separate_frameworks, NO_SEPARATE_FRAMEWORKS));
    common.into_iter().chain(separate).collect()
}

const SOON: Duration = Duration::from_secs(10);
const NO_FRAMEWORKS: &str =
    "the Python environment is older than tests/requirements-frameworks.txt";
const NO_SEPARATE_FRAMEWORKS: &str =
    "no Python environment with the packages of tests/requirements-asgi.txt";

fn has_frameworks() -> bool {
    has_modules(frameworks_python(), &["channels", "fastapi", "python_multipart", "sse_starlette"])
}

fn has_separate_frameworks() -> bool {
    has_modules(asgi_python(), &["blacksheep", "litestar", "quart"])
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn numbered_parts(count: usize) -> String {
    let parts: Vec<_> = (0..count).map(|number| format!("part {number}\n")).collect();
    parts.concat()
}

fn open(server: &Server, path: &str) -> WebSocket<Connection> {
    client(format!("ws://test{path}"), server.connect()).unwrap().0
}

fn json_from(socket: &mut WebSocket<Connection>) -> Value {
    serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
}

fn post(client: &mut Connection, target: &str, kind: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    client.send([head.as_bytes(), body].concat()).unwrap();
    client.answer("POST").unwrap()
}

/// A form with one file.
fn multipart(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--limit\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na title\r\n--limit\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: \
         application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n--limit--\r\n"].concat()
}

const MULTIPART: &str = "multipart/form-data; boundary=limit";

fn fastapi_serves_requests(cell: &Cell) {
    let server = Setup::new(cell).with_frameworks().app("fastapi_app:app").start();
    let mut client = server.connect();
    assert_eq!(json_of(&client.get("/").unwrap()), json!({"word": "from the lifespan"}));
    assert_eq!(json_of(&client.get("/thread").unwrap()), json!("of a thread"));
    let answer = post(&mut client, "/items/7", "application/json", br#"{"name":"n","price":1}"#);
    assert_eq!(json_of(&answer), json!({"number": 7, "name": "n", "price": 1.0}));
    let answer = post(&mut client, "/items/x", "application/json", b"{}");
    assert_eq!(answer.status, 422);
    assert_eq!(json_of(&client.get("/depends").unwrap()), json!("session"));
    assert_eq!(client.get("/forbidden").unwrap().status, 403);
    assert_eq!(json_of(&client.get("/background").unwrap()), json!("responded"));
    server.log.line(&["background task done"], SOON);
    assert_eq!(client.get("/stream").unwrap().text(), numbered_parts(100));
    let content = vec![b'x'; 3_000_000];
    let answer = post(&mut client, "/upload", MULTIPART, &multipart("a.bin", &content));
    assert_eq!(
        json_of(&answer).as_array().unwrap()[..3],
        [json!("a.bin"), json!("a title"), json!(3_000_000)]
    );
    assert_eq!(client.get("/fails").unwrap().status, 500);
    let log = server.stop().log;
    assert_eq!(log.matches("\nRuntimeError: asked for").count(), 1, "{log}");
    assert_eq!(log.matches("session opened").count(), 3, "{log}");
    assert_eq!(log.matches("session closed").count(), 3, "{log}");
    assert!(log.contains("lifespan ended"), "{log}");
}

fn fastapi_ends_what_a_client_leaves(cell: &Cell) {
    let server = Setup::new(cell).with_frameworks().app("fastapi_app:app").start();
    let mut client = server.connect();
    client.send_get("/endless").unwrap();
    assert!(client.fill().unwrap() > 0);
    drop(client);
    server.log.line(&["endless stream closed"], SOON);
    let log = server.stop().log;
    assert!(!log.contains("Traceback") && !log.contains("was destroyed"), "{log}");
}

fn fastapi_serves_websockets(cell: &Cell) {
    let server = Setup::new(cell).with_frameworks().app("fastapi_app:app").start();
    let mut socket = open(&server, "/ws/someone");
    let greeting = json!({"name": "someone", "session": "session", "word": "from the lifespan"});
    assert_eq!(json_from(&mut socket), greeting);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    server.signal(Signal::SIGHUP);
    server.log.line(&["disconnected with 1012"], SOON);
    server.log.line(&["session closed"], SOON);
    assert!(matches!(socket.read().unwrap(), Message::Close(Some(_))));
    drop(socket);
    assert!(!server.stop().log.contains("Traceback"));
}

fn starlette_serves_requests(cell: &Cell) {
    let server = Setup::new(cell)
        .with_frameworks()
        .app("starlette_app:app")
        .file("file", "of a file")
        .start();
    let mut client = server.connect();
    let answer = client.get("/visits?one").unwrap();
    assert_eq!((json_of(&answer), answer.field("X-Marked")), (json!(["one"]), Some("yes")));
    assert_eq!(json_of(&client.get("/visits?two").unwrap()), json!(["one", "two"]));
    let body = vec![b'x'; 50_000];
    assert!(client.post("/echo", &body).unwrap().body == body);
    assert_eq!(client.get("/file").unwrap().text(), "of a file");
    assert_eq!(client.get("/nothing").unwrap().status, 404);
    let answer = client.get("/events?n=3").unwrap();
    for number in 0..3 {
        assert!(answer.text().contains(&format!("event: count\r\ndata: {number}\r\n\r\n")));
    }
    assert!(!server.stop().log.contains("Traceback"));
}

fn starlette_streams_events_until_a_reload(cell: &Cell) {
    let setup = Setup::new(cell).with_frameworks().app("starlette_app:app");
    let server = setup.flags("--graceful-timeout 30").start();
    let mut client = server.connect();
    client.send_get("/events?n=1000000").unwrap();
    assert!(client.fill().unwrap() > 0);
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    let events = String::from_utf8(client.rest().unwrap()).unwrap();
    assert!(events.ends_with("\r\n0\r\n\r\n"), "{events}");
    server.log.line(&["events ended"], SOON);
    server.until_workers("a successor alone", |workers| {
        workers.len() == 1 && workers[0].generation == 2 && workers[0].state == "ready"
    });
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!server.stop().log.contains("Traceback"));
}

fn starlette_serves_websockets(cell: &Cell) {
    let server = Setup::new(cell).with_frameworks().app("starlette_app:app").start();
    let mut socket = open(&server, "/ws");
    socket.send(Message::binary(vec![1; 100_000])).unwrap();
    assert!(socket.read().unwrap() == Message::binary(vec![1; 100_000]));
    socket.close(None).unwrap();
    server.log.line(&["endpoint disconnected with 1005"], SOON);
}

fn serving_django(cell: &Cell) -> Setup {
    let setup = Setup::new(cell).with_frameworks().app("asgi:application");
    let data = setup.dir().to_owned();
    let mut migrate = Command::new(frameworks_python().unwrap());
    migrate.arg(apps().join("site/manage.py")).args(["migrate", "--verbosity", "0"]);
    let output =
        migrate.env("SITE_DATA", &data).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    setup.env("SITE_DATA", data).env("PYTHONPATH", apps().join("site"))
}

fn django_serves_requests(cell: &Cell) {
    let server = serving_django(cell).start();
    let mut client = server.connect();
    let answer = client.get("/").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "<h1>Visit 1</h1>\n"));
    assert!(answer.field("Set-Cookie").unwrap().starts_with("sessionid="));
    assert_eq!(client.get("/stream/").unwrap().text(), numbered_parts(50));
    let answer =
        post(&mut client, "/upload/", MULTIPART, &multipart("a.bin", &vec![b'x'; 3_000_000]));
    assert_eq!(json_of(&answer)["files"]["file"][1], 3_000_000);
    assert_eq!(json_of(&answer)["fields"], json!({"title": "a title"}));
    assert_eq!(client.get("/fails/").unwrap().status, 500);
    assert_eq!(client.get("/admin/login/").unwrap().status, 200);
}

fn django_channels_serve_websockets(cell: &Cell) {
    let server = serving_django(cell).start();
    let mut socket = open(&server, "/doubles/");
    for number in 1..4 {
        socket.send(Message::text(json!({"number": number}).to_string())).unwrap();
        assert_eq!(json_from(&mut socket), json!({"double": 2 * number}));
    }
    drop(socket);
    server.until_workers("it is over", |workers| workers.iter().all(|w| w.busy == 0));
    assert!(!server.stop().log.contains("Traceback"));
}

fn litestar_serves(cell: &Cell) {
    serves_common_routes(cell, "litestar_app:app");
}

fn quart_serves(cell: &Cell) {
    serves_common_routes(cell, "quart_app:app");
}

fn blacksheep_serves(cell: &Cell) {
    serves_common_routes(cell, "blacksheep_app:app");
}

/// The applications of these frameworks have the same routes.
fn serves_common_routes(cell: &Cell, app: &str) {
    let setup = Setup::new(cell).app(app).python(asgi_python().unwrap());
    let server = setup.flags("--graceful-timeout 30").start();
    let mut client = server.connect();
    let answer = client.get("/items/7?q=caf%C3%A9").unwrap();
    let item = json!({"number": 7, "q": "caf\u{e9}", "word": "from the lifespan"});
    assert_eq!(json_of(&answer), item);
    assert_eq!(client.get("/items/x?q=").unwrap().status, 404);
    let answer = post(&mut client, "/items", "application/json", br#"{"name":"n","price":1.5}"#);
    assert_eq!(json_of(&answer), json!({"name": "n", "price": 1.5}));
    let content = vec![b'x'; 3_000_000];
    let answer = post(&mut client, "/upload", MULTIPART, &multipart("a.bin", &content));
    assert_eq!(
        json_of(&answer).as_array().unwrap()[..3],
        [json!("a.bin"), json!("a title"), json!(3_000_000)]
    );
    assert_eq!(client.get("/stream").unwrap().text(), numbered_parts(100));
    assert_eq!(client.get("/background").unwrap().text(), "responded");
    server.log.line(&["background task done"], SOON);
    assert_eq!(client.get("/fails").unwrap().status, 500);
    let mut leaving = server.connect();
    leaving.send_get("/endless").unwrap();
    assert!(leaving.fill().unwrap() > 0);
    drop(leaving);
    server.log.line(&["endless stream closed"], SOON);
    let mut socket = open(&server, "/ws/someone");
    assert_eq!(json_from(&mut socket), json!({"name": "someone", "word": "from the lifespan"}));
    for text in ["one", "tw\u{f6}"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    let begun = Instant::now();
    server.signal(Signal::SIGHUP);
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1012);
    server.log.line(&["websocket ended"], SOON);
    drop(socket);
    server.log.line(&["lifespan ended"], SOON);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(server.get("/background").text(), "responded");
    let log = server.stop().log;
    assert_eq!(log.matches("lifespan ended").count(), 2, "{log}");
    assert!(!log.contains("was destroyed"), "{log}");
}
