//! The replacement of one generation by the next.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host::control::Request;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use support::process;

use crate::Test;
use crate::server::Server;

pub(crate) const TESTS: &[Test] = &tests![
    a_reload_replaces_everything_and_responds_once_it_is_done,
    reloads_lose_no_connection_and_leave_nothing_behind,
    invalid_settings_are_refused_with_the_reason,
    an_invalid_settings_file_changes_nothing,
    a_changed_bind_opens_and_closes_the_difference,
    reloads_requested_during_a_reload_become_one,
    a_superseded_reload_gets_the_response_of_its_successor,
    signals_act_at_once_also_during_a_reload,
    a_client_that_left_costs_nothing,
    a_reload_has_its_boot_timeout_for_mold_and_workers_together,
];

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

fn a_reload_replaces_everything_and_responds_once_it_is_done() {
    let server = Server::start("one", &["-w", "2"]);
    let before = server.workers();
    server.behave("two");
    let request = Request::Reload { worker_class: Some("other".to_owned()), canary: None };
    assert!(server.ask(&request).ok);
    let status = server.status();
    assert_eq!(status.generations.len(), 1, "the old one is gone");
    assert_eq!(status.generations[0].class.as_deref(), Some("other 0.0.0"));
    assert!(server.workers().iter().all(|pid| !before.contains(pid)));
    assert!(server.talk("hi").ends_with(" two\n"));
    server.stop();
}

fn a_reload_has_its_boot_timeout_for_mold_and_workers_together() {
    let server = Server::start("hello", &["--boot-timeout", "2"]);
    // Neither exceeds its limit alone.
    server.behave("all-slow");
    let asked = Instant::now();
    let answer = server.reload();
    assert!(!answer.ok);
    let reason = answer.error.unwrap_or_default();
    assert!(reason.contains("boot_timeout"), "{reason}");
    assert!(asked.elapsed() < Duration::from_secs(4), "refused after {:?}", asked.elapsed());
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}

fn a_superseded_reload_gets_the_response_of_its_successor() {
    let server = Server::start("hello", &["-w", "1", "--graceful-timeout", "3"]);
    let before = server.workers();
    // A worker that cannot exit: its generation lasts until the limit.
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.reload());
        server.wait_until("a second generation", |server| {
            server.log().contains("generation 2 serves")
        });
        assert!(server.reload().ok);
        assert!(first.join().unwrap().ok);
    });
    assert_eq!(server.status().generations.len(), 1, "both are answered when all before is gone");
    server.stop();
}

fn reloads_lose_no_connection_and_leave_nothing_behind() {
    let server = Server::start("hello", &["-w", "2"]);
    for _ in 0..20 {
        assert!(server.reload().ok);
    }
    let before = descriptors(&server);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, server) = (&done, &server);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert!(server.talk("hi").ends_with(" hello\n"));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for _ in 0..20 {
            assert!(server.reload().ok);
        }
        done.store(true, Ordering::Relaxed);
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered > 20, "{answered} answers");
    });
    server.wait_until("as it was", |server| descriptors(server) <= before);
    // The heap may still reach its size, with some more clients at a time than before. A leak grows in each
    // round.
    let memory = || server.status().memory_kib.unwrap();
    let round = || {
        let memory_before = memory();
        (0..20).for_each(|_| assert!(server.reload().ok));
        memory().saturating_sub(memory_before)
    };
    let is_still = (0..5).any(|_| round() < 64);
    assert!(is_still, "the arbiter grew by 64 KiB or more in each of 5 rounds of 20 reloads");
    server.stop();
}

fn invalid_settings_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    std::fs::write(&file, "workers = 1\n").unwrap();
    let server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    let before = server.workers();
    std::fs::write(&file, "workerz = 1\n").unwrap();
    let error = server.reload().error.unwrap();
    assert!(error.contains("workerz") && error.contains("workers"), "{error}");
    assert_eq!(server.workers(), before);
    std::fs::write(&file, "workers = 3\n").unwrap();
    assert!(server.reload().ok);
    assert_eq!(server.workers().len(), 3);
    server.stop();
}

type Replace = fn(&Path);

/// The arbiter reads the file itself, so it must neither exit nor block, whatever exists at that path.
fn an_invalid_settings_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.toml");
    std::fs::write(&file, "workers = 1\n").unwrap();
    let server = Server::start("hello", &["-c", file.to_str().unwrap()]);
    let before = server.workers();
    let replacements: [(Replace, &str); 4] = [
        (|_| (), "No such file"),
        (|file| std::fs::create_dir(file).unwrap(), "not a regular file"),
        (|file| nix::unistd::mkfifo(file, Mode::S_IRWXU).unwrap(), "not a regular file"),
        (|file| std::fs::write(file, [0xff, 0, 1]).unwrap(), "valid UTF-8"),
    ];
    std::fs::remove_file(&file).unwrap();
    for (refusal, (replace, reason)) in (1..).zip(replacements) {
        replace(&file);
        server.signal(Signal::SIGHUP);
        let line = server.wait_for_nth("reload refused: ", refusal);
        assert!(line.contains("host.toml: cannot be read: ") && line.contains(reason), "{line}");
        assert_eq!(server.workers(), before);
        let _ = std::fs::remove_dir(&file).or_else(|_| std::fs::remove_file(&file));
    }
    assert!(server.talk("hi").ends_with(" hello\n"));
    server.stop();
}

fn a_changed_bind_opens_and_closes_the_difference() {
    let directory = tempfile::tempdir().unwrap();
    let (file, first, second) = (
        directory.path().join("host.toml"),
        directory.path().join("a"),
        directory.path().join("b"),
    );
    let bind = |path: &Path| format!("bind = [\"unix:{}\"]\n", path.display());
    std::fs::write(&file, bind(&first)).unwrap();
    // The harness's own bind would override the file: this server is started without it.
    let server = Server::start_without_bind("hello", &["-c", file.to_str().unwrap()]);
    assert!(first.exists());
    std::fs::write(&file, bind(&second)).unwrap();
    assert!(server.reload().ok);
    assert!(second.exists() && !first.exists());
    std::fs::write(&file, bind(&directory.path().join("no/such/directory"))).unwrap();
    let error = server.reload().error.unwrap();
    assert!(error.contains("cannot listen on"), "{error}");
    assert!(second.exists());
    server.stop();
}

fn reloads_requested_during_a_reload_become_one() {
    let server = Server::start("hello", &[]);
    server.behave("load-hang");
    server.signal(Signal::SIGHUP);
    for count in 2..=10 {
        server.wait_for_nth("Handling signal: hup", count - 1);
        server.signal(Signal::SIGHUP);
    }
    server.wait_for_nth("Handling signal: hup", 10);
    assert_eq!(server.count("reloading"), 1, "{}", server.log());
    // The first one exits here without having read the message for the next one; that is for all the others.
    let mold = server.status().generations.pop().unwrap().mold.unwrap().pid;
    let mold = Pid::from_raw(i32::try_from(mold).unwrap());
    let signal = |signal| process::signal(mold, signal);
    signal(Signal::SIGSTOP);
    server.wait_until("stopped", |_| process::stat(mold).is_some_and(|stat| stat.state == 'T'));
    server.behave("hello");
    signal(Signal::SIGKILL);
    server.wait_for("reload refused");
    server.wait_for("serves; retiring generation");
    // Another reload would have started in the same iteration, before this response.
    server.status();
    assert_eq!(server.count("reloading"), 2, "{}", server.log());
    server.stop();
}

fn signals_act_at_once_also_during_a_reload() {
    let server = Server::start("hello", &[]);
    server.behave("load-hang");
    server.signal(Signal::SIGHUP);
    server.wait_for_nth("loads", 2);
    server.signal(Signal::SIGTTIN);
    server.wait_until("two workers", |server| server.workers().len() == 2);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
}

fn a_client_that_left_costs_nothing() {
    use std::io::Write as _;
    let server = Server::start("hello", &["--boot-timeout", "2"]);
    server.behave("load-hang");
    let path = server.directory().join("control");
    let mut client = std::os::unix::net::UnixStream::connect(path).unwrap();
    client.write_all(b"{\"request\":\"reload\"}\n").unwrap();
    drop(client);
    server.wait_for_nth("loads", 2);
    let cpu = || process::stat(server.pid()).unwrap().ticks;
    let before = cpu();
    server.wait_for("loading did not finish within 2.0 s");
    assert!(cpu() - before < 20, "the arbiter span: {} ticks in 2 s", cpu() - before);
    server.stop();
}
