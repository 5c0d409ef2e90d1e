//! A server confined by a sandbox: system calls refused by seccomp, and file systems that are not mounted.

use std::{fs, process::Command};

use jimu_tests::{
    behaviour,
    cell::Cell,
    mounts::{self, Change},
    process::{self, End},
    runner::Behaviour,
    seccomp,
    server::{PATIENCE, Server, Setup},
};
use nix::{sys::signal::Signal, unistd::Pid};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    const UNPRIVILEGED: &str = "mount namespaces need privileges";
    vec![
        behaviour!(no_refused_system_call_is_missed).of_class().within(120),
        behaviour!(all_calls_refused_at_once_are_not_missed).of_python(),
        behaviour!(without_proc_it_serves)
            .of_python()
            .only_if(mounts::are_changeable, UNPRIVILEGED),
        behaviour!(with_hidden_pids_it_serves)
            .of_class()
            .only_if(mounts::are_changeable, UNPRIVILEGED),
        behaviour!(without_a_directory_for_copies_the_file_is_loaded)
            .of_host()
            .only_if(mounts::are_changeable, UNPRIVILEGED),
        behaviour!(a_private_copy_leaves_nothing_behind).of_host(),
    ]
}

/// Newer calls that container runtimes refuse, one each.
fn no_refused_system_call_is_missed(cell: &Cell) {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for (name, call) in CALLS {
            if needs_threads(cell, call, errno) {
                continue;
            }
            // A failing test shows the environment.
            let shown = format!("{name} is refused with {errno}");
            let setup = Setup::new(cell).env("REFUSED", shown);
            live(setup.with(|command| seccomp::refuse(command, &[call], errno)));
        }
    }
}

fn all_calls_refused_at_once_are_not_missed(cell: &Cell) {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let calls = CALLS.map(|(_, call)| call);
        let calls: Vec<_> =
            calls.into_iter().filter(|call| !needs_threads(cell, *call, errno)).collect();
        live(Setup::new(cell).with(|command| seccomp::refuse(command, &calls, errno)));
    }
}

/// The C library starts no thread if clone3 fails with an error other than ENOSYS, and some classes need threads. Ours
/// reports that (see `readiness`).
fn needs_threads(cell: &Cell, number: libc::c_long, errno: i32) -> bool {
    cell.class.has_threads() && number == libc::SYS_clone3 && errno != libc::ENOSYS
}

fn without_proc_it_serves(cell: &Cell) {
    let changes = &[Change::Unmount(c"/proc"), Change::Cover(c"/dev/shm")];
    live(
        Setup::new(cell).flags("--health-path /").with(|command| mounts::change(command, changes)),
    );
}

fn with_hidden_pids_it_serves(cell: &Cell) {
    live(Setup::new(cell).with(|command| mounts::change(command, &[Change::HidePids])));
}

/// Everything that an operator does to a server, from start to stop.
fn live(setup: Setup) {
    let mut server = setup.flags("--workers 2 --pid host.pid").start();
    let old = server.pid();
    server.until_ready_workers(2);
    server.ctl(&["reload"]).done();
    let victim = server.until_ready_workers(2)[0];
    process::signal(victim, Signal::SIGKILL);
    assert!(process::gone(victim, PATIENCE));
    assert!(!server.until_ready_workers(2).contains(&victim));
    assert_eq!(server.get("/").status, 200);
    let mark = server.log.mark();
    server.signal(Signal::SIGUSR2);
    server.log.line_after(mark, &["Server is ready"], PATIENCE);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.leader_ended(PATIENCE), End::Status(0));
    server.log.line(&["upgrade complete"], PATIENCE);
    let new = arbiter_of(&server);
    assert_ne!(new, old);
    server.until_ready_workers(2);
    server.ctl(&["reload"]).done();
    assert_eq!(server.get("/").status, 200);
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
}

fn arbiter_of(server: &Server) -> Pid {
    let status = server.ctl(&["status"]).done();
    let number = status.split_once("(pid ").and_then(|(_, rest)| rest.split_once(')'));
    let number = number.and_then(|(number, _)| number.parse().ok());
    Pid::from_raw(number.unwrap_or_else(|| panic!("{status}")))
}

fn without_a_directory_for_copies_the_file_is_loaded(cell: &Cell) {
    const READ_ONLY: &[Change] =
        &[Change::Cover(c"/var/tmp"), Change::Cover(c"/dev/shm"), Change::Cover(c"/run")];
    let setup = Setup::new(cell).env("TMPDIR", "/nowhere");
    let server = setup
        .with(|command| {
            mounts::change(command, READ_ONLY);
            seccomp::refuse(command, &[libc::SYS_memfd_create], libc::EPERM);
        })
        .start();
    assert_eq!(server.get("/").status, 200);
    let line = server.log.line(&["cannot create a private copy", "do not overwrite"], PATIENCE);
    assert!(line.contains("memfd_create: Operation not permitted"), "{line}");
    assert!(line.contains("/nowhere: No such file"), "{line}");
}

/// Neither while it serves nor after it has stopped: the file has no name once the library is loaded.
fn a_private_copy_leaves_nothing_behind(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let left = || fs::read_dir(place.path()).unwrap().count();
    let setup = Setup::new(cell).env("TMPDIR", place.path());
    let refuse =
        |command: &mut Command| seccomp::refuse(command, &[libc::SYS_memfd_create], libc::EPERM);
    let server = setup.with(refuse).start();
    assert_eq!(left(), 0);
    server.stop();
    assert_eq!(left(), 0);
}

const CALLS: [(&str, libc::c_long); 6] = [
    ("memfd_create", libc::SYS_memfd_create),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("close_range", libc::SYS_close_range),
    ("clone3", libc::SYS_clone3),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
];
