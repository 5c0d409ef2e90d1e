//! The cost of an idle server, and that it does not grow.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use jimu_tests::{
    behaviour,
    cell::Cell,
    load::{Load, Plan},
    process,
    runner::Behaviour,
    server::Setup,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_arbiter_is_small).of_host(),
        behaviour!(the_arbiter_sleeps_when_idle).of_host(),
        behaviour!(the_arbiter_makes_no_call_when_idle)
            .of_host()
            .only_if(may_trace, "no strace here, or it may not trace"),
        behaviour!(a_worker_sleeps_when_idle),
        behaviour!(a_worker_does_not_grow).heavy().within(120),
        behaviour!(a_soak_ends_where_it_began).of_class().heavy().within(180),
    ]
}

/// Of its memory, what it has allocated. How much of its program is resident depends on the kernel's page cache.
fn the_arbiter_is_small(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 4").start();
    server.until_ready_workers(4);
    let kib = process::anonymous_kib(server.pid());
    assert!((1..2 << 10).contains(&kib), "the arbiter has {kib} KiB");
}

/// At most one system call per second; a process that sleeps otherwise makes one each time it wakes up.
fn the_arbiter_sleeps_when_idle(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    server.until_ready_workers(2);
    let before = process::sleeps(server.pid());
    assert!(!process::gone(server.pid(), Duration::from_secs(5)), "the arbiter ended");
    let woken = process::sleeps(server.pid()) - before;
    assert!(woken <= 6, "woken {woken} times in 5 idle seconds");
}

/// The same by strace: each line of its output is a call.
fn the_arbiter_makes_no_call_when_idle(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    server.until_ready_workers(2);
    let calls = server.dir().join("calls");
    let mut command = Command::new("timeout");
    command.args(["--signal", "INT", "5", "strace", "-q", "-p", &server.pid().to_string(), "-o"]);
    command.arg(&calls).stderr(Stdio::null()).status().unwrap();
    let text = fs::read_to_string(&calls).unwrap();
    assert!(!text.is_empty(), "strace saw no call, not even the one that was interrupted");
    let count = text.lines().filter(|line| !line.starts_with("strace:")).count();
    assert!(count <= 7, "{count} calls in 5 idle seconds:\n{text}");
}

/// Whether strace is installed and may attach to a process.
fn may_trace() -> bool {
    let Ok(mut child) = Command::new("sleep").arg("60").spawn() else { return false };
    let mut command = Command::new("timeout");
    command.args(["--signal", "INT", "1", "strace", "-q", "-o", "/dev/stdout", "-p"]);
    let output = command.arg(child.id().to_string()).stderr(Stdio::null()).output();
    let _ = child.kill();
    let _ = child.wait();
    output.is_ok_and(|output| !output.stdout.is_empty())
}

fn a_worker_sleeps_when_idle(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    let before = process::sleeps(worker);
    assert!(!process::gone(worker, Duration::from_secs(4)), "the worker ended");
    let woken = process::sleeps(worker) - before;
    assert!(woken <= 12, "woken {woken} times in 4 idle seconds");
}

fn a_worker_does_not_grow(cell: &Cell) {
    let server = Setup::new(cell).start();
    let worker = server.serving_pid();
    let descriptors = process::descriptors(worker);
    let load = Load::start(server.address(), Plan { think: Duration::ZERO, ..Plan::default() });
    load.flows(3000, Duration::from_secs(50));
    let memory = process::rss_kib(worker);
    load.flows(6000, Duration::from_secs(60));
    let grown = process::rss_kib(worker).saturating_sub(memory);
    load.finish().assert_nothing_lost();
    assert!(grown < 1 << 10, "{grown} KiB more after 6000 requests");
    assert_eq!(server.get("/").status, 200);
    server.until_workers("at rest", |workers| workers.iter().all(|worker| worker.busy == 0));
    let left = process::descriptors(worker).saturating_sub(descriptors);
    assert!(left <= 2, "{left} descriptors are left open");
    assert_eq!(server.serving_pid(), worker);
}

const WARM_UP: usize = 5;

/// In a quarter of a minute: reloads and kills under a mix of clients.
fn a_soak_ends_where_it_began(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let keeping = Load::start(server.address(), Plan { clients: 8, ..Plan::default() });
    let closing =
        Load::start(server.address(), Plan { clients: 4, keep: false, ..Plan::default() });
    let measure = || {
        let workers = server.until_ready_workers(2);
        let children = process::children(server.pid()).len();
        (
            process::anonymous_kib(server.pid()),
            process::descriptors(server.pid()),
            children,
            workers,
        )
    };
    let round = || {
        server.ctl(&["reload"]).done();
        keeping.flows(100, Duration::from_secs(20));
        let victim = server.until_ready_workers(2)[0];
        process::signal(victim, Signal::SIGKILL);
        closing.flows(20, Duration::from_secs(20));
    };
    // Buffers reach their size in the first rounds.
    (0..WARM_UP).for_each(|_| round());
    let start = measure();
    let (begun, mut kills) = (Instant::now(), WARM_UP);
    while begun.elapsed() < Duration::from_secs(8) {
        round();
        kills += 1;
    }
    let end = measure();
    for (tally, clients) in [(keeping.finish(), 8), (closing.finish(), 4)] {
        let lost = tally.failures.len() + tally.races.len();
        assert!(lost <= kills * clients, "{lost} lost by {kills} kills: {tally:#?}");
    }
    // The arbiter keeps the settings of the last generations for roll-backs: bounded, but not there at first.
    let grown = end.0.saturating_sub(start.0);
    assert!(grown <= start.0 / 20 + 256, "the arbiter: {} to {} KiB", start.0, end.0);
    assert_eq!((end.1, end.2), (start.1, start.2), "the arbiter's descriptors and children");
    server.stop();
}
