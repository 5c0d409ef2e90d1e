//! What a worker class supports.

use std::sync::{Mutex, PoisonError};

use crate::{
    artifacts,
    cell::{App, Cell, Class, Need},
    server::Setup,
};

impl Class {
    /// Returns whether the class supports it: from the table for a class of this workspace, otherwise by
    /// trying.
    pub fn can(&self, need: Need) -> bool {
        match KNOWN.iter().find(|(name, _)| self.is_ours() && *name == self.name) {
            Some((_, capabilities)) => capabilities.contains(&need),
            None => tried(self, need),
        }
    }
}

/// What the classes of this workspace support, so that losing it is a failure and not a skipped test.
const KNOWN: [(&str, &[Need]); 6] = [
    ("sync", &[]),
    ("gthread", &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Deferral]),
    ("eventlet", COOPERATIVE),
    ("gevent", COOPERATIVE),
    ("asgi", COOPERATIVE),
    ("pywsgi", COOPERATIVE),
];

const COOPERATIVE: &[Need] =
    &[Need::KeepAlive, Need::Concurrency, Need::SlowClients, Need::Loops, Need::Deferral];

/// What the host says of an application whose requirements the class does not meet.
const LACKS: &str = "choose another class with --worker-class";

/// Tries once per class and requirement.
fn tried(class: &Class, need: Need) -> bool {
    static TRIED: Mutex<Vec<(Class, Need, bool)>> = Mutex::new(Vec::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, can)) = tried.iter().find(|(c, n, _)| c == class && *n == need) {
        return *can;
    }
    let cell = Cell { class: class.clone(), app: App::Native };
    // A class whose setting `threads` is 1 by default can still serve several requests at once.
    let start = |flags| Setup::new(&cell).flags(flags).start();
    let can = match need {
        Need::KeepAlive => start("--threads 4").get("/").keeps(),
        Need::Loops => {
            let setup = Setup::new(&cell).app(artifacts::library("asyncio_app"));
            // It exits in any case: the application lacks its interpreter.
            let ended = setup.flags("--boot-failures-max 1").refused();
            !ended.log.contains(LACKS)
        }
        Need::Deferral => {
            let setup = Setup::new(&cell).app(artifacts::library("hello_axum_app"));
            // It exits in any case.
            let setup = setup.env("HELLO_AXUM_REFUSES", "only tried");
            !setup.flags("--boot-failures-max 1").refused().log.contains(LACKS)
        }
        Need::Concurrency => {
            let server = start("--threads 4");
            let mut slow = server.connect();
            slow.send_get("/sleep?ms=3000").is_ok()
                && server.get("/").status == 200
                && slow.left_over().is_empty()
                && slow.fresh()
        }
        Need::SlowClients => {
            let server = start("--threads 1 --body-timeout 4 --write-timeout 4");
            let (mut sender, mut reader) = (server.connect(), server.connect_narrow());
            let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n\r\n";
            sender.send(body).is_ok()
                && reader.send_get("/stream?n=1000&size=16384").is_ok()
                && reader.take_byte().is_some()
                && server.get("/").status == 200
                && sender.left_over().is_empty()
                && sender.fresh()
        }
    };
    tried.push((class.clone(), need, can));
    can
}
