//! Hook plugins, in a whole server: the content of the journal at the end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use support::launch::Launched;
use support::process::{End, signal};
use support::wait;

use crate::built;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_hook_plugin_receives_events_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let section = format!("[hooks]\njournal = {journal:?}\n");
    fs::write(directory.path().join("host.toml"), section).unwrap();
    let mut server = start(directory.path(), &built("journal_hooks"));
    wait_for(&journal, "post_worker_init");
    wait_for(&journal, "when_ready");
    signal(server.pid(), Signal::SIGTTIN);
    wait_for(&journal, "nworkers_changed 2 1");
    let text = fs::read_to_string(&journal).unwrap();
    let words = text.lines().find_map(|line| line.strip_prefix("post_worker_init ")).unwrap();
    let worker: i32 = words.split(' ').next().unwrap().parse().unwrap();
    signal(Pid::from_raw(worker), Signal::SIGABRT);
    wait_for(&journal, &format!("worker_abort {words}\n"));
    wait_for(&journal, &format!("child_exit {words} -6\n"));
    signal(server.pid(), Signal::SIGHUP);
    wait_for(&journal, "on_reload");
    wait_for(&journal, "worker_exit");
    signal(server.pid(), Signal::SIGTERM);
    assert_eq!(server.wait(PATIENCE), Some(End::Status(0)));
    let text = fs::read_to_string(&journal).unwrap();
    let events: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let first = |event: &str| {
        events.iter().position(|found| *found == event).unwrap_or_else(|| panic!("{event}: {text}"))
    };
    assert_eq!(events[0], "on_starting", "{text}");
    assert_eq!(text.lines().nth(1), Some("pre_fork 1"));
    let order = ["pre_fork", "post_fork", "post_worker_init", "when_ready", "on_reload", "on_exit"];
    assert!(order.map(first).is_sorted(), "{text}");
    let count = |event: &str| events.iter().filter(|found| **found == event).count();
    assert_eq!(count("child_exit"), count("post_fork"), "{text}");
    assert_eq!(events.last(), Some(&"on_exit"), "{text}");
    assert!(events.contains(&"worker_exit"), "{text}");
}

#[test]
fn a_library_that_is_not_a_hook_plugin_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(directory.path(), &built("hello_app"));
    assert_eq!(server.wait(PATIENCE), Some(End::Status(78)));
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(log.contains("is an application, expected a hook plugin"), "{log}");
}

fn start(directory: &Path, hooks: &Path) -> Launched {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.current_dir(directory).args(["--bind", "127.0.0.1:0", "--no-control-socket"]);
    command.args(["--log-file", "log", "--hooks"]).arg(hooks);
    command.arg("-k").arg(built("faulty_worker")).arg(built("hello_app"));
    Launched::start(command)
}

fn wait_for(journal: &Path, event: &str) {
    wait::until(event, PATIENCE, || {
        let text = fs::read_to_string(journal).unwrap_or_default();
        if text.contains(event) { Ok(()) } else { Err(text) }
    });
}
