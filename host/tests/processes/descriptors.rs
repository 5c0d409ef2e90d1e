//! The open descriptors of a server's processes: those that each was given, and those of the operator.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_link, read_to_string};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use support::mounts::{self, Change};
use support::{process, seccomp};

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![
    no_process_has_a_descriptor_that_it_was_not_given,
    without_close_range_no_process_has_more_descriptors,
    without_close_range_and_proc_no_process_has_more_descriptors,
];

fn no_process_has_a_descriptor_that_it_was_not_given() {
    check_descriptors(|_| {});
}

fn without_close_range_no_process_has_more_descriptors() {
    for error in [Errno::EPERM, Errno::ENOSYS] {
        check_descriptors(|command| {
            seccomp::refuse(command, &[libc::SYS_close_range], error as i32);
        });
    }
}

fn without_close_range_and_proc_no_process_has_more_descriptors() {
    let without_proc = vec![Change::Cover(c"/proc")];
    if !mounts::are_possible(without_proc.clone()) {
        crate::skip("mount namespaces need privileges");
    }
    check_descriptors(|command| {
        mounts::change(command, without_proc);
        seccomp::refuse(command, &[libc::SYS_close_range], Errno::EPERM as i32);
    });
}

/// Starts a server with everything that opens descriptors in the arbiter, and reloads it.
fn check_descriptors(change: impl FnOnce(&mut Command)) {
    let operators = tempfile::NamedTempFile::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let access = logs.path().join("access");
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    let syslog = format!("udp://{}", daemon.local_addr().unwrap());
    let flags = [
        &["-w", "2", "--metrics-bind", "127.0.0.1:0", "--reload", "--health-path", "/health"][..],
        &["--log-syslog", "--log-syslog-to", &syslog, "--disable-redirect-access-to-syslog"],
        &["--access-logfile", access.to_str().unwrap()],
    ];
    let descriptor = operators.as_file().as_raw_fd();
    let prepare = |command: &mut Command| {
        inherit(command, descriptor);
        change(command);
    };
    let server = Server::start_with(prepare, "slow-health", &flags.concat());
    let names = BTreeMap::from([
        (operators.path().to_str().unwrap().to_owned(), "operator's file"),
        (access.to_str().unwrap().to_owned(), "access log"),
        (listening(server.address().port()), "listener"),
        (listening(server.metrics_address().port()), "metrics"),
        (read_link(format!("/proc/{}/fd/2", server.pid())).unwrap().display().to_string(), "log"),
    ]);
    // Connections of the arbiter.
    let control = server.directory().join("control");
    let mut clients: Vec<UnixStream> =
        (0..3).map(|_| UnixStream::connect(&control).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"{").unwrap();
    }
    expect(&server, &names, 0);
    let mut check = Vec::new();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        while !reload.is_finished() {
            let seen = children_of(server.pid()).into_iter().map(|pid| describe(pid, &names));
            check.extend(
                seen.filter_map(|process| process.strip_prefix("arbiter: ").map(str::to_owned)),
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(reload.join().unwrap().ok, "{}", server.log());
    });
    // The status of the first generation: one more private listener in mold and workers.
    expect(&server, &names, 1);
    let at_work = [
        "1 log, 1 operator's file, 1 probe path, 3 socket",
        // Without /proc the name of the socket remains.
        "1 log, 1 operator's file, 3 socket",
    ];
    // Before, it has what it inherited; at its end, less.
    let is_at_work = |seen: &String| at_work.contains(&seen.as_str());
    assert!(check.iter().any(is_at_work), "health check: {check:#?}");
    server.stop();
}

/// Waits until the arbiter's children have exactly the descriptors that they need. `probes` is the number of private
/// sockets for health checks.
fn expect(server: &Server, names: &BTreeMap<String, &'static str>, probes: usize) {
    let common = "1 log, 1 operator's file";
    // Syslog, the generation's channel to the arbiter, and that to the watcher.
    let sockets = 3 + probes;
    let worker = format!(
        "worker: 1 access log, 1 anon_inode:[eventpoll], 2 anon_inode:[timerfd], 1 listener, {common}, 2 pipe, \
         {sockets} socket"
    );
    let mold = format!("mold: 1 access log, 1 listener, {common}, {} socket", sockets + 1);
    let status = "status: 1 log, 2 metrics, 1 operator's file, 2 socket".to_owned();
    let watcher = format!(
        "watcher: 1 anon_inode:[eventfd], 1 anon_inode:[eventpoll], 1 anon_inode:inotify, {common}, 3 socket"
    );
    let mut expected = [mold, status, watcher, worker.clone(), worker];
    expected.sort();
    let found = || {
        let children = children_of(server.pid());
        let mut found: Vec<String> = children.into_iter().map(|pid| describe(pid, names)).collect();
        found.sort();
        found
    };
    let start = std::time::Instant::now();
    while found() != expected && start.elapsed() < std::time::Duration::from_secs(10) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(found(), expected, "{}", server.log());
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let children = process::children(parent).into_iter();
    children.filter(|child| child.state != 'Z').map(|child| child.pid).collect()
}

/// Returns the role of a process, and how many descriptors of each kind it has besides the standard streams.
fn describe(pid: Pid, names: &BTreeMap<String, &'static str>) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let numbers = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let opened =
        numbers.filter(|entry| !["0", "1", "2"].iter().any(|of| entry.file_name() == **of));
    for link in opened.filter_map(|entry| read_link(entry.path()).ok()) {
        let link = link.display().to_string();
        let kind = match names.get(&link) {
            Some(name) => (*name).to_owned(),
            None if link.ends_with(" (deleted)") && link.contains("/host-") => {
                "probe path".to_owned()
            }
            None => link
                .split(":[")
                .next()
                .filter(|_| !link.starts_with("anon"))
                .unwrap_or(&link)
                .to_owned(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let role = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let role = role.trim().rsplit(": ").next().unwrap_or_default().to_owned();
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("{role}: {}", kinds.join(", "))
}

/// Makes the command inherit this descriptor alone, under a number that no process reaches by itself.
fn inherit(command: &mut Command, descriptor: RawFd) {
    let close_others_at_exec = move || {
        for number in (3..NUMBERS_MAX).filter(|number| *number != OPERATORS) {
            // SAFETY: the call changes at most the flag of a descriptor of this process.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: the number is not in use yet.
        Errno::result(unsafe { libc::dup2(descriptor, OPERATORS) })?;
        Ok(())
    };
    // SAFETY: the closure makes system calls alone.
    unsafe { command.pre_exec(close_others_at_exec) };
}

/// Returns the link of the socket that listens on a port.
fn listening(port: u16) -> String {
    let table = read_to_string("/proc/net/tcp").unwrap();
    let address = format!(":{port:04X}");
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words[1].ends_with(&address) && words[3] == LISTEN).unwrap();
    format!("socket:[{}]", line[9])
}

/// Number of the operator's descriptor.
const OPERATORS: RawFd = 200;
/// Bound on the numbers of descriptors that the tests themselves may have inherited.
const NUMBERS_MAX: RawFd = 4096;
/// The state `TCP_LISTEN`, as `/proc/net/tcp` shows it.
const LISTEN: &str = "0A";
