//! User IDs and capabilities of a server's processes if root has started it for another user.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;

use nix::unistd::{Pid, geteuid};
use support::mounts::{self, Change};
use support::process;

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![all_processes_but_the_arbiter_have_only_the_users_rights];

/// Returns the lines of a process's status that show its user, groups and capabilities.
fn rights_of(pid: Pid) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let names = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:"];
    let lines = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let words = lines.flat_map(str::split_whitespace);
    Some(words.collect::<Vec<_>>().join(" "))
}

fn all_processes_but_the_arbiter_have_only_the_users_rights() {
    if !geteuid().is_root() {
        crate::skip("it takes root");
    }
    let accounts = tempfile::tempdir().unwrap();
    let at = |name: &str| accounts.path().join(name);
    let replaced: Vec<Change> = [("passwd", c"/etc/passwd"), ("group", c"/etc/group")]
        .map(|(name, path)| {
            Change::Replace(path, CString::new(at(name).into_os_string().into_vec()).unwrap())
        })
        .into();
    let passwd = "root:x:0:0::/:/bin/sh\njimu:x:4711:4712::/:/bin/sh\n";
    std::fs::write(at("passwd"), passwd).unwrap();
    let group = "root:x:0:root\njimu:x:4712:\nmail:x:4713:jimu\nother:x:4714:root\n";
    std::fs::write(at("group"), group).unwrap();
    if !mounts::are_possible(replaced.clone()) {
        crate::skip("mount namespaces need privileges");
    }
    let script = "read() { grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs):' /proc/self/status; }; \
                  echo hook: $(read)";
    let config = format!("user = \"jimu\"\n[hooks]\nwhen_ready = ['sh', '-c', \"{script}\"]\n");
    std::fs::write(at("host.toml"), config).unwrap();
    let config = at("host.toml");
    let flags = ["-c", config.to_str().unwrap(), "-w", "2", "--metrics-bind", "127.0.0.1:0"];
    let more = ["--health-path", "/health", "--reload", "--health-timeout", "10"];
    let flags = [&flags[..], &more].concat();
    let server =
        Server::start_with(|command| mounts::change(command, replaced), "slow-health", &flags);
    let hook = server.wait_for("hook: ");
    // Short-lived processes keep their last observed state.
    let mut seen = BTreeMap::new();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        while !reload.is_finished() {
            for child in process::children(server.pid()).iter().filter(|child| child.state != 'Z') {
                if let Some(rights) = rights_of(child.pid) {
                    seen.insert(child.pid, rights);
                }
            }
            // Processes come and go without an event here; this one must not take the processor from them.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(reload.join().unwrap().ok, "{}", server.log());
    });
    // Two molds, four workers, two watchers, the status process, and the one that requested the health path.
    assert!(seen.len() >= 10, "{seen:?}\n{}", server.log());
    let words = [
        "Uid: 4711 4711 4711 4711 Gid: 4712 4712 4712 4712 Groups: 4712 4713 ",
        "CapEff: 0000000000000000 CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
    ];
    for (pid, rights) in &seen {
        assert!(words.iter().all(|words| rights.contains(words)), "{pid}: {rights}");
    }
    assert!(words.iter().all(|words| hook.contains(words)), "{hook}");
    server.stop();
}
