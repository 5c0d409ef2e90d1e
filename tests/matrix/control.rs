//! hostctl with a running server: what it shows, and how it stops one at once.

use std::time::{Duration, Instant};

use jimu_tests::{
    behaviour,
    cell::Cell,
    process::End,
    runner::Behaviour,
    server::{PATIENCE, Setup},
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(hostctl_shows_what_there_is).of_host(),
        behaviour!(a_control_socket_that_cannot_be_made_is_one_line).of_host(),
        behaviour!(hostctl_quit_ends_a_busy_server_at_once).of_class(),
    ]
}

fn hostctl_shows_what_there_is(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2 --keep-alive 7").start();
    let workers = server.until_ready_workers(2);
    let status = server.ctl(&["status"]).done();
    let head = format!("(pid {}), running, listening at http://", server.pid());
    assert!(status.lines().next().is_some_and(|line| line.contains(&head)), "{status}");
    for pid in workers {
        let line = format!("worker {pid:>7}  ready");
        assert!(status.lines().any(|found| found.trim_start().starts_with(&line)), "{status}");
    }
    let twice = server.ctl(&["top", "-n", "2", "--interval", "0.1"]).done();
    assert_eq!(twice.matches(", 0 in flight, 2 workers ready\n").count(), 2, "{twice}");
    assert_eq!(
        twice.matches("/s  busy 0").count(),
        2,
        "rates are known from the second on: {twice}"
    );
    let config = server.ctl(&["config", "show"]).done();
    assert!(config.contains("\nworkers = 2  # command line\n"), "{config}");
    let same = Setup::bare().file("shown.toml", &config).flags("-c shown.toml --check-config");
    assert_eq!(same.refused().end, End::Status(0), "what is shown can be a settings file");
    server.ctl(&["reload"]).done();
    let list = server.ctl(&["generation", "list"]).done();
    let stages: Vec<_> = list.lines().filter_map(|line| line.split([',', ':']).nth(1)).collect();
    assert_eq!(stages, [" past", " serving"], "{list}");
    assert!(list.ends_with(", 2 of 2 workers\n"), "{list}");
    server.ctl(&["generation", "rollback"]).done();
    assert!(server.ctl(&["rollback", "77"]).refused().contains("no such past generation"));
    assert_eq!(server.get("/").status, 200);
}

/// A directory that is read-only, even to root.
fn a_control_socket_that_cannot_be_made_is_one_line(cell: &Cell) {
    let setup = Setup::new(cell).flag("--control-socket", "/proc/nowhere/control");
    let server = setup.flags("--log-level debug").start();
    server.signal(Signal::SIGHUP);
    server.log.line(&["generation 2 serves"], PATIENCE);
    assert_eq!(server.get("/").status, 200);
    let ended = server.stop();
    assert_eq!(
        ended.log.matches("cannot create the control socket /proc/nowhere/control").count(),
        1
    );
    assert!(!ended.log.contains("[ERROR]"), "{}", ended.log);
}

fn hostctl_quit_ends_a_busy_server_at_once(cell: &Cell) {
    let mut server = Setup::new(cell).flags("--graceful-timeout 60").start();
    let mut client = server.connect();
    client.send_get("/sleep?ms=60000").unwrap();
    server.until_held("/sleep");
    let begun = Instant::now();
    server.ctl(&["quit"]).done();
    let ended = server.ended(Duration::from_secs(20));
    assert_eq!(ended.end, End::Status(0), "{}", ended.log);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(client.answer("GET").is_err(), "the response was not awaited");
}
