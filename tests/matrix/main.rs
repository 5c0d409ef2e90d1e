//! Behaviors of the server, each as one test for every worker class (and application) that it concerns.
//!
//! Each module's list says in which cells a behavior is run, what it requires of a class and how long it may
//! take.
// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::needless_for_each)]

mod asgi;
mod asgi_clients;
mod asgi_frameworks;
mod asgi_lifespan;
mod asgi_tasks;
mod asgi_websockets;
mod beside;
mod buffers;
mod c_faults;
mod c_plugins;
mod clients;
mod closing;
mod confined;
mod contract;
mod control;
mod deaths;
mod debuggers;
mod drain;
mod fairness;
mod figures;
mod fleet;
mod footprint;
mod front;
mod go;
mod hangs;
mod interpreters;
mod libraries;
mod logs;
mod outgoing;
mod panics;
mod peers;
mod processes;
mod program;
mod projects;
mod python;
mod python_boot;
mod python_config;
mod python_django;
mod python_environ;
mod python_hooks;
mod python_logs;
mod python_preload;
mod python_response;
mod raw;
mod readiness;
mod refusals;
mod releases;
mod reload;
mod scaling;
mod serving;
mod signals;
mod sockets;
mod start;
mod tls;
mod tower;
mod upgrade;
mod watch;
mod websockets;
mod zig;

fn main() {
    let lists = [
        start::behaviours(),
        scaling::behaviours(),
        serving::behaviours(),
        front::behaviours(),
        raw::behaviours(),
        clients::behaviours(),
        buffers::behaviours(),
        closing::behaviours(),
        sockets::behaviours(),
        tls::behaviours(),
        signals::behaviours(),
        drain::behaviours(),
        reload::behaviours(),
        readiness::behaviours(),
        releases::behaviours(),
        confined::behaviours(),
        beside::behaviours(),
        refusals::behaviours(),
        libraries::behaviours(),
        c_plugins::behaviours(),
        c_faults::behaviours(),
        go::behaviours(),
        program::behaviours(),
        projects::behaviours(),
        tower::behaviours(),
        zig::behaviours(),
        deaths::behaviours(),
        debuggers::behaviours(),
        watch::behaviours(),
        hangs::behaviours(),
        outgoing::behaviours(),
        panics::behaviours(),
        upgrade::behaviours(),
        websockets::behaviours(),
        logs::behaviours(),
        interpreters::behaviours(),
        python::behaviours(),
        python_boot::behaviours(),
        python_config::behaviours(),
        python_django::behaviours(),
        python_environ::behaviours(),
        python_response::behaviours(),
        python_hooks::behaviours(),
        python_logs::behaviours(),
        python_preload::behaviours(),
        asgi::behaviours(),
        asgi_lifespan::behaviours(),
        asgi_tasks::behaviours(),
        asgi_frameworks::behaviours(),
        asgi_websockets::behaviours(),
        asgi_clients::behaviours(),
        processes::behaviours(),
        peers::behaviours(),
        contract::behaviours(),
        control::behaviours(),
        fairness::behaviours(),
        footprint::behaviours(),
        figures::behaviours(),
        fleet::behaviours(),
    ];
    jimu_tests::runner::run(lists.into_iter().flatten().collect())
}
