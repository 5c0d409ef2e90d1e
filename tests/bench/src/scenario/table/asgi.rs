//! The scenarios of ASGI servers, all with uvloop.

use super::{Contender, Kind, Python, Request, Scenario, Served};
use crate::contender::App;

pub(super) const HELLO: Scenario =
    asgi("asgi-hello", "Hello, keep-alive, ASGI", super::KEPT_ALIVE, get("/"));
pub(super) const JSON: Scenario =
    asgi("asgi-json", "10 KB of JSON, keep-alive, ASGI", super::KEPT_ALIVE, get("/json"));
pub(super) const ECHO: Scenario = asgi(
    "asgi-echo",
    "Echo of 10 KB, keep-alive, ASGI",
    super::KEPT_ALIVE,
    Request { body: 10 * 1024, ..get("/echo") },
);
pub(super) const SLEEP: Scenario = asgi(
    "asgi-sleep",
    "512 clients, each request sleeps for 10 ms, ASGI",
    Kind::Pauses { connections: 512, pause_ms: 10 },
    get("/sleep"),
);
pub(super) const SLEEPERS: Scenario = Scenario {
    // A round of the others takes minutes.
    python: &[(APP, &[Contender::Jimu("asgi"), Contender::Fastpysgi, Contender::Granian])],
    ..asgi(
        "asgi-sleepers",
        "1,000 clients, each request sleeps for 100 ms, ASGI",
        Kind::Pauses { connections: 1000, pause_ms: 100 },
        get("/long-sleep"),
    )
};
pub(super) const EVENTS: Scenario = asgi(
    "asgi-events",
    "A stream of 100 server-sent events, keep-alive, ASGI",
    super::KEPT_ALIVE,
    get("/events"),
);
pub(super) const WEBSOCKET: Scenario = asgi(
    "asgi-websocket",
    "Echo of a WebSocket message, 32 clients, ASGI",
    Kind::WebSocket { connections: 32 },
    get("/"),
);
pub(super) const FASTAPI: Scenario = Scenario {
    python: &[(FASTAPI_APP, SERVERS)],
    ..asgi(
        "asgi-fastapi",
        "A page of a FastAPI application, keep-alive",
        super::KEPT_ALIVE,
        get("/books/items?first=5&limit=10"),
    )
};
pub(super) const MEMORY: Scenario = Scenario {
    python: &[(FASTAPI_APP, SERVERS)],
    ..asgi(
        "asgi-memory",
        "Memory of 4 workers with a preloaded FastAPI application, and of the first process when idle",
        Kind::Memory { workers: 4 },
        get("/books/items?first=5&limit=10"),
    )
};

const fn asgi(name: &'static str, title: &'static str, kind: Kind, request: Request) -> Scenario {
    Scenario { name, title, kind, request, native: &[], python: &[(APP, SERVERS)] }
}

const fn get(target: &'static str) -> Request {
    Request { native: "", python: target, ..super::HELLO }
}

const APP: Served = Served { app: App::Asgi("hello_asgi:application"), python: Python::Asgi };
const FASTAPI_APP: Served =
    Served { app: App::Asgi("site_fastapi:application"), python: Python::Asgi };
const SERVERS: &[Contender] = &[
    Contender::Jimu("asgi"),
    Contender::Fastpysgi,
    Contender::Granian,
    Contender::Uvicorn,
    Contender::Gunicorn("asgi"),
    Contender::Hypercorn,
];
