//! Panics of native applications: what the log has of them, and what that costs the worker.

use std::time::Duration;

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    process,
    runner::Behaviour,
    server::{Server, Setup},
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_panic_is_logged_with_its_stack_once).of_class(),
        behaviour!(a_panic_does_not_grow_the_worker).of_class(),
        behaviour!(without_a_mold_stacks_have_offsets).of_class(),
        behaviour!(a_flood_of_panics_delays_no_one).of_class().busy(),
    ]
}

/// Names are found by another process, on a machine that may be busy.
const LONG: Duration = Duration::from_secs(40);
/// The function of the application that panics, as a stack names it: with line tables alone, by its bare name.
const FUNCTION: &str = ": call";

/// Ways in which a class reaches the application, whose stacks differ: after it has waited for a connection, and without
/// that.
const WAYS: usize = 2;

/// The first record of a panic.
const PANIC: &str = "[ERROR] panic at ";

fn a_panic_is_logged_with_its_stack_once(cell: &Cell) {
    let server = start(cell);
    let worker = server.serving_pid();
    let _ = server.try_get("/panic");
    assert_eq!(server.serving_pid(), worker, "others are served");
    let line = server.log.line(&["panic at", "a client asked for a panic"], LONG);
    assert!(line.contains(&format!("[{worker}] [ERROR]")), "{line}");
    let line = server.log.line(&["stack of the panic at", "lib.rs"], LONG);
    assert!(line.contains(&format!("[{worker}] [ERROR]")), "{line}");
    server.log.line(&[FUNCTION], LONG);
    for _ in 0..WAYS {
        let _ = server.try_get("/panic");
    }
    server.log.line(&["stack of the panic at", "again"], LONG);
    // The last panic may be logged after the stack of the one before it.
    server.log.until(LONG, |log| (log.matches(PANIC).count() > WAYS).then_some(()));
    let log = server.log.text();
    assert!(server.log.count(FUNCTION) <= WAYS, "{log}");
    assert_eq!(server.log.count(PANIC), WAYS + 1, "{log}");
    for word in ["std::panicking", "core::panicking", "worker_api::guard"] {
        assert!(!log.contains(word), "{word:?} in {log}");
    }
    server.stop();
}

fn a_panic_does_not_grow_the_worker(cell: &Cell) {
    let server = start(cell);
    let worker = server.serving_pid();
    let before = process::peak_kib(worker);
    let _ = server.try_get("/panic");
    server.log.line(&[FUNCTION], LONG);
    let grown = process::peak_kib(worker) - before;
    assert!(grown < 8 << 10, "by {grown} KiB");
    assert_eq!(server.serving_pid(), worker);
}

fn without_a_mold_stacks_have_offsets(cell: &Cell) {
    let server = start(cell);
    let worker = server.serving_pid();
    let mold = server.molds()[0];
    process::signal(mold, Signal::SIGKILL);
    server.log.line(&["mold", &mold.to_string()], LONG);
    let _ = server.try_get("/panic");
    let line = server.log.line(&["stack of the panic at", "lib.rs"], LONG);
    assert!(line.contains(&format!("[{worker}] [ERROR]")), "{line}");
    server.log.line(&["libhello_app.so+0x"], LONG);
    assert_eq!(server.serving_pid(), worker);
}

fn a_flood_of_panics_delays_no_one(cell: &Cell) {
    let server = start(cell);
    let worker = server.serving_pid();
    for _ in 0..200 {
        let _ = server.try_get("/panic");
    }
    assert_eq!(server.serving_pid(), worker);
    server.log.line(&[FUNCTION], LONG);
    let all = server.log.until(LONG, |text| (text.matches(PANIC).count() == 200).then_some(()));
    assert!(all.is_some(), "{}", server.log.count(PANIC));
    server.stop();
}

fn start(cell: &Cell) -> Server {
    Setup::new(cell).app(artifacts::library("hello_app")).start()
}
