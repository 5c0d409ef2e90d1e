//! A kernel that refuses system calls, as a container's seccomp profile does.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::server::{Server, lives};

pub(crate) const TESTS: &[Test] =
    &tests![a_server_starts_without_memfds, an_upgrade_needs_no_pidfd];

/// Environment variable with the numbers of system calls, and the error that they return.
const REFUSE: &str = "JIMU_TEST_REFUSE";

/// Refuses the system calls named in the environment, in this process and all that it starts.
pub(crate) fn obey_environment() {
    let Ok(words) = std::env::var(REFUSE) else { return };
    let mut numbers = words.split(',').map(|word| word.parse::<u32>().unwrap());
    let error = numbers.next().unwrap();
    let code = |class: u32, operation: u32, source: u32| (class | operation | source) as u16;
    let load = code(libc::BPF_LD, libc::BPF_W, libc::BPF_ABS);
    let compare = code(libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K);
    let answer = code(libc::BPF_RET, libc::BPF_K, 0);
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // A filter's input starts with the number of the system call.
    let mut filter = vec![step(load, 0, 0, 0)];
    for number in numbers {
        filter.push(step(compare, 0, 1, number));
        filter.push(step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | error));
    }
    filter.push(step(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live as long as the calls.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    Errno::result(result).unwrap();
}

fn refuse(error: Errno, calls: &[libc::c_long]) -> String {
    let mut words = vec![(error as i32).to_string()];
    words.extend(calls.iter().map(ToString::to_string));
    words.join(",")
}

fn a_server_starts_without_memfds() {
    for error in [Errno::EPERM, Errno::ENOSYS] {
        let calls = [
            libc::SYS_memfd_create,
            libc::SYS_pidfd_open,
            libc::SYS_close_range,
            libc::SYS_clone3,
            libc::SYS_epoll_pwait2,
        ];
        let refuse = refuse(error, &calls);
        let metrics = ["-w", "2", "--metrics-bind", "127.0.0.1:0"];
        let server = Server::start_in(&[(REFUSE, &refuse)], &metrics);
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
        let refuse = refuse(error, &[libc::SYS_pidfd_open]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let flags = ["--pid", path.to_str().unwrap()];
        let mut server = Server::start_in(&[(REFUSE, &refuse)], &flags);
        server.signal(Signal::SIGUSR2);
        server.wait_for_nth("Server is ready", 2);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
        server.wait_for("upgrade complete");
        let read = || std::fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok();
        let old = server.pid().as_raw().unsigned_abs();
        server.wait_until("renamed", |_| read().is_some_and(|pid| pid != old));
        let new = read().unwrap();
        kill(Pid::from_raw(i32::try_from(new).unwrap()), Signal::SIGTERM).unwrap();
        server.wait_until("over", |_| !lives(new));
    }
}
