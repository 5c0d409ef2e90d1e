//! The table of scenarios.

mod asgi;
mod shapes;

use super::head::Head;
use super::{Entry, Kind, Request};
use crate::contender::{App, Contender};
use crate::environment::Python;
use crate::setup::Build;

/// One line of the table.
#[derive(Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Heading of its table.
    pub title: &'static str,
    /// Method of measuring.
    pub(super) kind: Kind,
    /// The request that clients send.
    pub(super) request: Request,
    /// Contenders that serve a native application, or respond without one.
    native: &'static [Contender],
    /// Contenders that serve a Python application, and which.
    python: &'static [(Served, &'static [Contender])],
}

/// A Python application and its interpreter.
#[derive(Clone, Copy, Debug)]
struct Served {
    app: App,
    python: Python,
}

impl Scenario {
    /// Contenders. Empty if no server takes part.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let entry = |contender, app, python| Entry {
            contender,
            app,
            python,
            connections: None,
            workers: None,
        };
        let native = self.native.iter().map(move |&one| entry(one, App::Native, Python::Usual));
        let python = self.python.iter().flat_map(move |&(served, contenders)| {
            contenders.iter().map(move |&one| entry(one, served.app, served.python))
        });
        native.chain(python).flat_map(|entry| self.with_numbers(entry))
    }

    /// Returns an entry for each number of connections or workers, if the scenario has several.
    fn with_numbers(&self, entry: Entry) -> Vec<Entry> {
        let of = |counts: &[usize], with: fn(Entry, usize) -> Entry| {
            counts.iter().map(|&count| with(entry, count)).collect()
        };
        match self.kind {
            Kind::Connections { counts } => {
                of(counts, |entry, count| Entry { connections: Some(count), ..entry })
            }
            Kind::Workers { counts, .. } => {
                of(counts, |entry, count| Entry { workers: Some(count), ..entry })
            }
            _ => vec![entry],
        }
    }

    /// Returns whether a word of the command line selects it: its name, or that of its group, which is the part
    /// of the name before a hyphen.
    pub fn is_selected_by(&self, word: &str) -> bool {
        self.name == word || self.name.split_once('-').is_some_and(|(group, _)| group == word)
    }
}

/// All scenarios, in the order of the page.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hello-native",
        title: "Hello, keep-alive, native",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: HELLO_NATIVE,
        python: &[],
    },
    Scenario {
        name: "hello-wsgi",
        title: "Hello, keep-alive, WSGI",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: &[],
        python: &[(APP, KEEPING)],
    },
    shapes::MINIMAL_NATIVE,
    shapes::MINIMAL_WSGI,
    shapes::BROWSER_NATIVE,
    shapes::BROWSER_WSGI,
    shapes::THREADS_WSGI,
    shapes::THREADS_MINIMAL,
    shapes::CONNECTIONS_NATIVE,
    shapes::CONNECTIONS_WSGI,
    shapes::WORKERS_NATIVE,
    shapes::WORKERS_WSGI,
    shapes::PIPELINED_NATIVE,
    shapes::PIPELINED_WSGI,
    shapes::WRK_NATIVE,
    shapes::WRK_WSGI,
    shapes::WRK_MINIMAL,
    Scenario {
        name: "close-native",
        title: "Hello, one connection per request, native",
        kind: Kind::Load { connections: 32, keep_alive: false },
        request: HELLO,
        native: &[
            Jimu("sync"),
            Jimu("gthread"),
            Jimu("eventlet"),
            Jimu("gevent"),
            Jimu("pywsgi"),
            Nginx,
            Bare,
        ],
        python: &[],
    },
    Scenario {
        name: "close-wsgi",
        title: "Hello, one connection per request, WSGI",
        kind: Kind::Load { connections: 32, keep_alive: false },
        request: HELLO,
        native: &[],
        python: &[(APP, ALL)],
    },
    Scenario {
        name: "json",
        title: "10 KB of JSON, keep-alive, WSGI",
        kind: KEPT_ALIVE,
        request: Request { native: "/json", python: "/json", ..HELLO },
        native: &[],
        python: &[(APP, KEEPING)],
    },
    Scenario {
        name: "file",
        title: "A file of 1 MB, keep-alive",
        kind: Kind::Load { connections: 8, keep_alive: true },
        request: Request { native: "/file?path=megabyte", python: "/file", ..HELLO },
        native: &[Jimu("gthread"), Jimu("gevent"), Nginx],
        python: &[(APP, KEEPING)],
    },
    Scenario {
        name: "upload",
        title: "An upload of 1 MB, keep-alive, WSGI",
        kind: Kind::Load { connections: 8, keep_alive: true },
        request: Request { native: "/echo", python: "/upload", body: 1 << 20, ..HELLO },
        native: &[],
        python: &[(APP, KEEPING)],
    },
    Scenario {
        name: "upload-whole",
        title: "An upload of 1 MB that the application reads at once, keep-alive, WSGI",
        kind: Kind::Load { connections: 8, keep_alive: true },
        request: Request { native: "/echo", python: "/upload-whole", body: 1 << 20, ..HELLO },
        native: &[],
        python: &[(APP, KEEPING)],
    },
    Scenario {
        name: "sleep",
        title: "1,000 clients, each request sleeps for 100 ms",
        kind: Kind::Pauses { connections: 1000, pause_ms: 100 },
        request: Request { native: "/sleep?ms=100", python: "/sleep", ..HELLO },
        native: &[Jimu("eventlet"), Jimu("gevent"), Jimu("pywsgi")],
        python: &[(
            APP,
            &[Jimu("eventlet"), Jimu("gevent"), Jimu("pywsgi"), Gunicorn("gevent"), Pywsgi],
        )],
    },
    Scenario {
        name: "idle",
        title: "10,000 idle connections beside 32 busy ones",
        kind: Kind::Idle { connections: 10_000 },
        request: HELLO,
        native: KEEPING_NATIVE,
        python: &[(
            APP,
            &[
                Jimu("gthread"),
                Jimu("eventlet"),
                Jimu("gevent"),
                Jimu("pywsgi"),
                Gunicorn("gthread"),
                Gunicorn("gevent"),
                Granian,
            ],
        )],
    },
    Scenario {
        name: "django",
        title: "A page of a Django project, keep-alive",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: &[],
        python: &[(DJANGO, DJANGO_SERVERS), (DJANGO_ON_DEBIAN, DJANGO_SERVERS)],
    },
    Scenario {
        name: "memory",
        title: "Memory of 4 workers with a preloaded Django project, and of the first process when idle",
        kind: Kind::Memory { workers: 4 },
        request: Request { native: "/", python: "/admin/login/", ..HELLO },
        native: &[Jimu("sync")],
        python: &[(
            DJANGO,
            &[
                Jimu("sync"),
                Jimu("gthread"),
                Jimu("gevent"),
                Gunicorn("sync"),
                Gunicorn("gthread"),
                Gunicorn("gevent"),
                Uwsgi,
            ],
        )],
    },
    Scenario {
        name: "start",
        title: "From start to first response",
        kind: Kind::Start,
        request: HELLO,
        native: &[Jimu("sync"), Jimu("gthread"), Jimu("gevent"), Nginx, Bare],
        python: &[(APP, &[Jimu("sync"), Gunicorn("sync"), Granian, Uwsgi, Bjoern])],
    },
    Scenario {
        name: "block-close",
        title: "Cost of the shared library: sync, one connection per request",
        kind: Kind::Load { connections: 32, keep_alive: false },
        request: HELLO,
        native: &[Jimu("sync"), Linked("sync")],
        python: &[],
    },
    Scenario {
        name: "block-kept",
        title: "Cost of the shared library: gthread, keep-alive",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: &[Jimu("gthread"), Linked("gthread")],
        python: &[],
    },
    Scenario {
        name: "metrics",
        title: "Cost of metrics: scraped once a second, keep-alive",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: &[Jimu("gthread"), Metered("gthread"), Jimu("gevent"), Metered("gevent")],
        python: &[],
    },
    Scenario {
        name: "parse",
        title: "Parsing a browser's request head of 700 bytes",
        kind: Kind::Parse,
        request: HELLO,
        native: &[],
        python: &[],
    },
    Scenario {
        name: "door",
        title: "Cost of jimu.h: hello, keep-alive, native, in Rust and in C",
        kind: KEPT_ALIVE,
        request: HELLO,
        native: &[Jimu("gevent"), InC("gevent"), Jimu("gthread"), InC("gthread")],
        python: &[],
    },
    Scenario {
        name: "door-calls",
        title: "Cost of a call through jimu.h: 2,000 writes of 16 bytes, native, in Rust and in C",
        kind: Kind::Load { connections: 4, keep_alive: true },
        request: Request { native: "/stream?n=2000&size=16", python: "/", ..HELLO },
        native: &[Jimu("gevent"), InC("gevent"), Jimu("gthread"), InC("gthread")],
        python: &[],
    },
    asgi::HELLO,
    asgi::JSON,
    asgi::ECHO,
    asgi::SLEEP,
    asgi::SLEEPERS,
    asgi::EVENTS,
    asgi::WEBSOCKET,
    asgi::FASTAPI,
    asgi::MEMORY,
];

use Contender::{
    Bare, Bjoern, Fastpysgi, Granian, Gunicorn, InC, Jimu, Linked, Metered, Nginx, Pywsgi, Threads,
    Uwsgi,
};

const HELLO: Request = Request { native: "/", python: "/", body: 0, head: Head::Three };
const KEPT_ALIVE: Kind = Kind::Load { connections: 32, keep_alive: true };
const APP: Served = Served { app: App::Wsgi("hello:application"), python: Python::Usual };
const DJANGO: Served = Served { app: App::Wsgi("site_django:application"), python: Python::Usual };
const DJANGO_ON_DEBIAN: Served = Served { python: Python::Debian, ..DJANGO };
const HELLO_NATIVE: &[Contender] =
    &[Jimu("gthread"), Jimu("eventlet"), Jimu("gevent"), Jimu("pywsgi"), Nginx, Bare];
const KEEPING_NATIVE: &[Contender] =
    &[Jimu("gthread"), Jimu("eventlet"), Jimu("gevent"), Jimu("pywsgi"), Nginx];
/// Contenders that keep connections alive. Those that are compared run close to each other, so that a short
/// disturbance of the machine affects both.
const KEEPING: &[Contender] = &[
    Jimu("eventlet"),
    Jimu("gevent"),
    Jimu("gthread"),
    Granian,
    Bjoern,
    Fastpysgi,
    Jimu("pywsgi"),
    Uwsgi,
    Gunicorn("gthread"),
    Gunicorn("gevent"),
    Pywsgi,
];
/// In the same order, with the class sync of both, and with gthread's default of one thread.
const DJANGO_SERVERS: &[Contender] = &[
    Jimu("eventlet"),
    Jimu("gevent"),
    Jimu("gthread"),
    Threads(Build::This, 1),
    Bjoern,
    Uwsgi,
    Fastpysgi,
    Jimu("sync"),
    Gunicorn("sync"),
    Granian,
    Jimu("pywsgi"),
    Gunicorn("gthread"),
    Gunicorn("gevent"),
    Pywsgi,
];
const ALL: &[Contender] = &[
    Jimu("sync"),
    Jimu("gthread"),
    Jimu("eventlet"),
    Jimu("gevent"),
    Jimu("pywsgi"),
    Bjoern,
    Fastpysgi,
    Granian,
    Uwsgi,
    Gunicorn("sync"),
    Gunicorn("gthread"),
    Gunicorn("gevent"),
    Pywsgi,
];
