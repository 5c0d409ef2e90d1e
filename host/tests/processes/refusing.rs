//! A kernel that refuses system calls, as a container's seccomp profile does.

use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::process::End;
use support::seccomp;

use crate::Test;
use crate::server::{Server, ends};

pub(crate) const TESTS: &[Test] =
    &tests![a_server_starts_without_memfds, an_upgrade_needs_no_pidfd];

fn a_server_starts_without_memfds() {
    for error in [Errno::EPERM, Errno::ENOSYS] {
        let calls = [
            libc::SYS_memfd_create,
            libc::SYS_pidfd_open,
            libc::SYS_close_range,
            libc::SYS_clone3,
            libc::SYS_epoll_pwait2,
        ];
        let metrics = ["-w", "2", "--metrics-bind", "127.0.0.1:0"];
        let refuse = |command: &mut Command| seccomp::refuse(command, &calls, error as i32);
        let server = Server::start_with(refuse, "hello", &metrics);
        assert_eq!(server.count("cannot create a memfd for the scoreboard"), 1);
        assert!(server.talk("hi").ends_with(" hello\n"));
        assert!(server.reload().ok, "{}", server.log());
        server.wait_until("all workers", |server| server.workers().len() == 2);
        let victim = server.workers()[0];
        kill(Pid::from_raw(i32::try_from(victim).unwrap()), Signal::SIGKILL).unwrap();
        server.wait_until("replaced", |server| {
            let workers = server.workers();
            workers.len() == 2 && !workers.contains(&victim)
        });
        assert!(server.talk("hi").ends_with(" hello\n"));
        server.stop();
    }
}

fn an_upgrade_needs_no_pidfd() {
    for error in [Errno::EPERM, Errno::ENOSYS] {
        let calls = [libc::SYS_pidfd_open];
        let refuse = |command: &mut Command| seccomp::refuse(command, &calls, error as i32);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let flags = ["--pid", path.to_str().unwrap()];
        let mut server = Server::start_with(refuse, "hello", &flags);
        server.signal(Signal::SIGUSR2);
        server.wait_for_nth("Server is ready", 2);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), End::Status(0));
        server.wait_for("upgrade complete");
        let read = || std::fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok();
        let old = server.pid().as_raw().unsigned_abs();
        server.wait_until("renamed", |_| read().is_some_and(|pid| pid != old));
        let new = read().unwrap();
        kill(Pid::from_raw(i32::try_from(new).unwrap()), Signal::SIGTERM).unwrap();
        assert!(ends(new), "{}", server.log());
    }
}
