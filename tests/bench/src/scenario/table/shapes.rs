//! The response of the scenarios `hello` to load of other shapes: a short and a long head, few threads, few and many
//! connections, one and four workers, pipelined requests, another load generator.

use super::{
    APP, HELLO, HELLO_NATIVE, KEEPING, KEEPING_NATIVE, KEPT_ALIVE, Kind, Request, Scenario,
};
use crate::contender::Contender::{self, Bjoern, Fastpysgi, Granian, Jimu, Pywsgi, Threads};
use crate::scenario::head::Head;
use crate::setup::Build;

pub(super) const MINIMAL_NATIVE: Scenario =
    native("minimal-native", "Hello, head with Host only, keep-alive, native", Head::Minimal);
pub(super) const MINIMAL_WSGI: Scenario =
    wsgi("minimal-wsgi", "Hello, head with Host only, keep-alive, WSGI", Head::Minimal);
pub(super) const BROWSER_NATIVE: Scenario =
    native("browser-native", "Hello, head of a browser, keep-alive, native", Head::Browser);
pub(super) const BROWSER_WSGI: Scenario =
    wsgi("browser-wsgi", "Hello, head of a browser, keep-alive, WSGI", Head::Browser);

pub(super) const THREADS_WSGI: Scenario = Scenario {
    python: &[(APP, THREADS)],
    ..wsgi("threads-wsgi", "Hello, 1, 2 and 8 threads, keep-alive, WSGI", Head::Three)
};
pub(super) const THREADS_MINIMAL: Scenario = Scenario {
    python: &[(APP, THREADS)],
    ..wsgi(
        "threads-minimal",
        "Hello, head with Host only, 1, 2 and 8 threads, keep-alive, WSGI",
        Head::Minimal,
    )
};
pub(super) const CONNECTIONS_NATIVE: Scenario = Scenario {
    kind: CONNECTIONS,
    native: KEEPING_NATIVE,
    ..native("connections-native", "Hello, 1 to 2,048 busy connections, native", Head::Three)
};
pub(super) const CONNECTIONS_WSGI: Scenario = Scenario {
    kind: CONNECTIONS,
    // uWSGI serves one kept-alive connection at a time, and gunicorn needs minutes.
    python: &[(
        APP,
        &[
            Jimu("gthread"),
            Jimu("eventlet"),
            Jimu("gevent"),
            Jimu("pywsgi"),
            Bjoern,
            Fastpysgi,
            Granian,
        ],
    )],
    ..wsgi("connections-wsgi", "Hello, 1 to 2,048 busy connections, WSGI", Head::Three)
};

pub(super) const WORKERS_NATIVE: Scenario = Scenario {
    kind: WORKERS,
    native: KEEPING_NATIVE,
    ..native("workers-native", "Hello, 1 and 4 workers on 2 processors, native", Head::Three)
};
pub(super) const WORKERS_WSGI: Scenario = Scenario {
    kind: WORKERS,
    // bjoern and gevent's server have one process.
    python: &[(
        APP,
        &[
            Jimu("gthread"),
            Jimu("eventlet"),
            Jimu("gevent"),
            Jimu("pywsgi"),
            Fastpysgi,
            Granian,
            Contender::Gunicorn("gthread"),
        ],
    )],
    ..wsgi("workers-wsgi", "Hello, 1 and 4 workers on 2 processors, WSGI", Head::Three)
};
pub(super) const PIPELINED_NATIVE: Scenario = Scenario {
    kind: PIPELINED,
    native: KEEPING_NATIVE,
    ..native("pipelined-native", "Hello, 16 pipelined requests at a time, native", Head::Three)
};
pub(super) const PIPELINED_WSGI: Scenario = Scenario {
    kind: PIPELINED,
    // bjoern and uWSGI close a connection on which a second request comes before the first response.
    python: &[(
        APP,
        &[
            Jimu("gthread"),
            Jimu("eventlet"),
            Jimu("gevent"),
            Jimu("pywsgi"),
            Fastpysgi,
            Granian,
            Contender::Gunicorn("gthread"),
            Pywsgi,
        ],
    )],
    ..wsgi("pipelined-wsgi", "Hello, 16 pipelined requests at a time, WSGI", Head::Three)
};
pub(super) const WRK_NATIVE: Scenario = Scenario {
    kind: WRK,
    ..native("wrk-native", "Hello, keep-alive, native, with wrk", Head::Three)
};
pub(super) const WRK_WSGI: Scenario =
    Scenario { kind: WRK, ..wsgi("wrk-wsgi", "Hello, keep-alive, WSGI, with wrk", Head::Three) };
pub(super) const WRK_MINIMAL: Scenario = Scenario {
    kind: WRK,
    ..wsgi("wrk-minimal", "Hello, head with Host only, keep-alive, WSGI, with wrk", Head::Minimal)
};

const WORKERS: Kind = Kind::Workers { connections: 32, counts: &[1, 4] };
const PIPELINED: Kind = Kind::Pipelined { connections: 32, depth: 16 };
const WRK: Kind = Kind::Wrk { connections: 32 };
const CONNECTIONS: Kind = Kind::Connections { counts: &[1, 32, 256, 2048] };
const THREADS: &[Contender] = &[
    Threads(Build::This, 1),
    Threads(Build::This, 2),
    Threads(Build::This, 8),
    Bjoern,
    Fastpysgi,
    Granian,
    Contender::Gunicorn("gthread"),
];

const fn native(name: &'static str, title: &'static str, head: Head) -> Scenario {
    let request = Request { head, ..HELLO };
    Scenario { name, title, kind: KEPT_ALIVE, request, native: HELLO_NATIVE, python: &[] }
}

const fn wsgi(name: &'static str, title: &'static str, head: Head) -> Scenario {
    let request = Request { head, ..HELLO };
    Scenario { name, title, kind: KEPT_ALIVE, request, native: &[], python: &[(APP, KEEPING)] }
}
