//! User IDs and capabilities of a server's processes if root has started it for another user.

use std::collections::BTreeMap;
use std::ffi::CString;

use nix::libc;
use nix::unistd::geteuid;

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![all_processes_but_the_arbiter_have_only_the_users_rights];

/// Environment variable of a directory with a `passwd` and a `group` that replace the system's in this process.
const ACCOUNTS: &str = "JIMU_TEST_ACCOUNTS";

/// Replaces the files of the system's accounts, for this process and all that it starts.
pub(crate) fn obey_environment() {
    let Ok(directory) = std::env::var(ACCOUNTS) else { return };
    if let Err(error) = mount_accounts(&directory) {
        eprintln!("error: no accounts: {error}");
        std::process::exit(99);
    }
}

fn mount_accounts(directory: &str) -> std::io::Result<()> {
    let text = |text: &str| CString::new(text).unwrap();
    let check = |result: i32| {
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: takes flags.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let mount = |from: &str, to: &str, flags| {
        let (from, to) = (text(from), text(to));
        let none = std::ptr::null();
        // SAFETY: the texts end with zeros and live for the call; no type and no data are needed for these
        // flags.
        check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, flags, none.cast()) })
    };
    mount("none", "/", libc::MS_REC | libc::MS_PRIVATE)?;
    for name in ["passwd", "group"] {
        mount(&format!("{directory}/{name}"), &format!("/etc/{name}"), libc::MS_BIND)?;
    }
    Ok(())
}

/// Returns the lines of a process's status that show its user, groups and capabilities.
fn rights_of(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let names = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:"];
    let lines = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let words = lines.flat_map(str::split_whitespace);
    Some(words.collect::<Vec<_>>().join(" "))
}

/// Returns the processes whose parent is `parent`.
fn children_of(parent: i32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let is_child = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut words = rest.split_whitespace();
        words.next().is_some_and(|state| state != "Z") && words.next() == Some(&parent.to_string())
    };
    names.filter(|name| name.parse::<u32>().is_ok()).filter(is_child).collect()
}

fn all_processes_but_the_arbiter_have_only_the_users_rights() {
    if !geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let accounts = tempfile::tempdir().unwrap();
    let at = |name: &str| accounts.path().join(name);
    let passwd = "root:x:0:0::/:/bin/sh\njimu:x:4711:4712::/:/bin/sh\n";
    std::fs::write(at("passwd"), passwd).unwrap();
    let group = "root:x:0:root\njimu:x:4712:\nmail:x:4713:jimu\nother:x:4714:root\n";
    std::fs::write(at("group"), group).unwrap();
    let script = "read() { grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs):' /proc/self/status; }; \
                  echo hook: $(read)";
    let config = format!("user = \"jimu\"\n[hooks]\nwhen_ready = ['sh', '-c', \"{script}\"]\n");
    std::fs::write(at("host.toml"), config).unwrap();
    let config = at("host.toml");
    let flags = ["-c", config.to_str().unwrap(), "-w", "2", "--metrics-bind", "127.0.0.1:0"];
    let more = ["--health-path", "/health", "--reload", "--health-timeout", "10"];
    let variables = [(ACCOUNTS, accounts.path().to_str().unwrap())];
    let flags = [&flags[..], &more].concat();
    let Some(server) = Server::start_unless(99, &variables, "slow-health", &flags) else {
        return eprintln!("skipped: no mount namespace here");
    };
    let hook = server.wait_for("hook: ");
    // Short-lived processes keep their last observed state.
    let mut seen = BTreeMap::new();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        while !reload.is_finished() {
            for pid in children_of(server.pid().as_raw()) {
                if let Some(rights) = rights_of(&pid) {
                    seen.insert(pid, rights);
                }
            }
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
