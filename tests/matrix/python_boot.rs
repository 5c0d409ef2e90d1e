//! How a Python application is loaded, refused and given up: what the operator reads about it.

use std::time::Duration;

use jimu_tests::{
    behaviour,
    cell::{Cell, Need},
    process::End,
    runner::Behaviour,
    server::Setup,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(an_asgi_application_is_refused_at_boot).of_python(),
        behaviour!(a_check_of_the_settings_loads_the_application).of_python(),
        behaviour!(a_mold_that_hangs_at_import_leaves_a_traceback).of_python(),
        behaviour!(a_worker_killed_while_it_drains_leaves_a_traceback).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn an_asgi_application_is_refused_at_boot(cell: &Cell) {
    let module = "async def application(scope, receive, send):\n    pass\n";
    let ended = Setup::new(cell).file("new.py", module).app("new:application").refused();
    assert_eq!(ended.status(), 4, "{}", ended.log);
    assert!(ended.log.contains("new:application is an ASGI application"), "{}", ended.log);
    assert!(!ended.log.contains("Traceback"), "{}", ended.log);
}

fn a_check_of_the_settings_loads_the_application(cell: &Cell) {
    let check = |file: &str, app: &str| {
        Setup::new(cell).file("checked.py", file).app(app).flags("--check-config").refused()
    };
    let good = "def application(environ, start_response):\n    return []\n";
    assert_eq!(check(good, "checked:application").status(), 0);
    for (file, app, word) in [
        (good, "checked:nosuch", "nosuch"),
        (good, "nosuch:application", "nosuch"),
        ("def application(:\n", "checked", "SyntaxError"),
        ("raise ValueError('at import')\n", "checked", "Traceback"),
    ] {
        let ended = check(file, app);
        assert_ne!(ended.status(), 0, "{app}, {file:?}: {}", ended.log);
        assert!(ended.log.contains(word), "no {word:?} for {app}, {file:?}: {}", ended.log);
    }
}

fn a_mold_that_hangs_at_import_leaves_a_traceback(cell: &Cell) {
    let module = "def hangs_here():\n    while True:\n        pass\nhangs_here()\n";
    let setup = Setup::new(cell).file("hanging.py", module).app("hanging");
    let ended = setup.flags("--preload --boot-timeout 4").refused();
    assert!(ended.log.contains("in hangs_here"), "{}", ended.log);
    assert!(ended.log.contains("(the setting boot_timeout)"), "{}", ended.log);
}

/// A worker whose request never yields does not end by itself, except where a thread serves it.
fn a_worker_killed_while_it_drains_leaves_a_traceback(cell: &Cell) {
    let setup = Setup::new(cell).app("faulty:application");
    let mut server = setup.flags("--graceful-timeout 1 --timeout 0").start();
    let mut client = server.connect();
    client.send_get("/spins").unwrap();
    server.until_held("/spins");
    server.signal(Signal::SIGTERM);
    let ended = server.ended(SOON);
    assert_eq!(ended.end, End::Status(0));
    if ended.log.contains("(the setting graceful_timeout)") {
        assert!(ended.log.contains("in spins"), "{}", ended.log);
    } else {
        assert!(cell.class.can(Need::Concurrency), "{}", ended.log);
    }
}
