//! Hooks that are commands, notifications of systemd, and workers that take too much memory.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::process::End;

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![
    commands_receive_the_arbiters_events_and_write_to_the_log,
    the_last_hook_runs_after_the_last_worker_has_exited,
    a_mold_killed_during_shutdown_delays_nothing,
    invalid_hook_commands_are_refused,
    a_worker_that_takes_too_much_memory_is_replaced,
    systemd_is_notified_of_each_stage_and_of_the_watchdog,
];

fn commands_receive_the_arbiters_events_and_write_to_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    let events =
        ["on_starting", "on_reload", "when_ready", "nworkers_changed", "child_exit", "on_exit"];
    let commands = events.map(|event| {
        format!("{event} = [\"sh\", \"-c\", \"echo heard $JIMU_EVENT: $JIMU_FACTS.\"]\n")
    });
    let slow = "pre_exec = [\"sleep\", \"60\"]\n";
    std::fs::write(&file, format!("[hooks]\n{}{slow}", commands.concat())).unwrap();
    let server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    server.wait_for("heard on_starting: 1.");
    server.wait_for("heard when_ready: 1.");
    server.signal(Signal::SIGTTIN);
    server.wait_for("heard nworkers_changed: 2 1.");
    server.talk("exit 3");
    let line = server.wait_for("heard child_exit: ");
    assert!(line.ends_with(" 3."), "{line}");
    assert!(server.reload().ok);
    server.wait_for("heard on_reload: 1.");
    server.signal(Signal::SIGTERM);
    server.wait_for("heard on_exit: 1.");
}

/// Also if a quick shutdown interrupts a graceful one.
fn the_last_hook_runs_after_the_last_worker_has_exited() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    // Commands run at the same time, so their output comes in any order. The kernel records the start of each.
    let command = "'''read -r stat < /proc/$$/stat; set -- $stat; echo heard $JIMU_EVENT: $JIMU_FACTS. ${22}'''";
    let hooks = format!(
        "[hooks]\nchild_exit = ['sh', '-c', {command}]\non_exit = ['sh', '-c', {command}]\n"
    );
    std::fs::write(&file, hooks).unwrap();
    let mut server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    server.wait_until("serving", |server| server.workers().len() == 1);
    let worker = server.workers()[0];
    let _busy = server.say("hang");
    server.signal(Signal::SIGTERM);
    server.wait_for("Handling signal: term");
    server.signal(Signal::SIGQUIT);
    server.wait();
    let started = |words: &str| -> u64 {
        let line = server.wait_for(words);
        line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
    };
    let child_exit = started(&format!("heard child_exit: {worker} "));
    assert!(child_exit <= started("heard on_exit: 1."), "{}", server.log());
    assert_eq!(server.count("heard on_exit"), 1, "{}", server.log());
}

/// Without the mold that runs the hooks, no hook runs at the end; the server exits nevertheless.
fn a_mold_killed_during_shutdown_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    std::fs::write(&file, "[hooks]\non_exit = [\"echo\", \"heard on_exit\"]\n").unwrap();
    let mut server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    let mold = server.serving().mold.unwrap().pid;
    let _busy = server.say("hang");
    server.signal(Signal::SIGTERM);
    // The mold is notified that it stays before the workers are signaled.
    server.wait_until("draining", |server| {
        let generations = server.status().generations;
        generations.iter().flat_map(|of| &of.workers).any(|worker| worker.state == "draining")
    });
    kill(Pid::from_raw(i32::try_from(mold).unwrap()), Signal::SIGKILL).unwrap();
    server.wait_for("no further hooks run");
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait(), End::Status(0), "{}", server.log());
    assert_eq!(server.count("heard on_exit"), 0, "{}", server.log());
}

fn invalid_hook_commands_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    std::fs::write(&file, "").unwrap();
    let server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    for (section, words) in [
        ("[hooks]\nwhen_ready = 'echo'\n", "hooks.when_ready: expected [\"COMMAND\""),
        ("[hooks]\npost_fork = ['echo']\n", "use a hook plugin for post_fork"),
    ] {
        std::fs::write(&file, section).unwrap();
        let error = server.reload().error.unwrap();
        assert!(error.contains(words), "{error}");
    }
    std::fs::write(&file, "[hooks]\non_reload = ['/no/such/command']\n").unwrap();
    assert!(server.reload().ok, "a command that fails changes nothing");
    server.wait_for("hook on_reload: cannot start \"/no/such/command\"");
    server.stop();
}

fn a_worker_that_takes_too_much_memory_is_replaced() {
    // Every process is bigger than this: the workers are replaced one after the other.
    let server = Server::start("hello", &["--max-worker-memory", "64k"]);
    server.wait_until("a worker", |server| server.workers().len() == 1);
    let before = server.workers();
    server.wait_for("(max_worker_memory)");
    server.wait_until("another", |server| {
        let workers = server.workers();
        workers.len() == 1 && workers != before
    });
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}

fn systemd_is_notified_of_each_stage_and_of_the_watchdog() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let hear = |words: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(words) {
                return text;
            }
        }
    };
    let supervised = |command: &mut Command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    };
    let server = Server::start_with(supervised, "hello", &[]);
    assert_eq!(hear("READY=1"), format!("READY=1\nMAINPID={}", server.pid()));
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    assert!(server.reload().ok);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    server.stop();
    hear("STOPPING=1");
}
