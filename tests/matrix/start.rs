//! Starting a server: the command of the README, short names, settings from all sources, and errors in them.

use std::{fs, process::Command, time::Duration};

use jimu_tests::{
    artifacts, behaviour,
    cell::Cell,
    executable,
    http::Address,
    process::End,
    runner::Behaviour,
    server::{Setup, address},
};
use nix::unistd::Pid;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(the_main_job).of_class(),
        behaviour!(a_short_name_is_found_beside_the_executable).of_host(),
        behaviour!(a_short_name_is_found_in_the_lib_directory).of_host(),
        behaviour!(a_short_name_is_found_on_the_plugin_path).of_host(),
        behaviour!(without_an_application_there_is_a_welcome_page).of_class(),
        behaviour!(settings_come_from_file_environment_and_flags).of_host(),
        behaviour!(wrong_settings_are_refused_by_name).of_host(),
        behaviour!(settings_can_be_checked_and_printed).of_host(),
        behaviour!(help_and_version_are_there).of_host(),
        behaviour!(ps_tells_processes_with_a_long_name_apart).of_class(),
        behaviour!(a_port_in_use_ends_with_status_1).of_host(),
        behaviour!(the_first_answer_comes_soon).of_host().heavy(),
    ]
}

fn the_main_job(cell: &Cell) {
    let server = Setup::new(cell).flags("--workers 2").start();
    let answer = server.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, world!\n"));
    assert_eq!(server.until_ready_workers(2).len(), 2);
    server.stop();
}

fn a_short_name_is_found_beside_the_executable(cell: &Cell) {
    let server = Setup::new(cell).class("sync").start();
    assert_eq!(server.get("/").status, 200);
}

fn a_short_name_is_found_in_the_lib_directory(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    let (bin, lib) = (place.path().join("bin"), place.path().join("lib/host"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    executable::copy(artifacts::executable("host"), bin.join("host"));
    fs::copy(&cell.class.path, lib.join("libsomewhere_worker.so")).unwrap();
    let app = artifacts::library("hello_app");
    let server = Setup::of(&bin.join("host")).class("somewhere").app(app).start();
    assert_eq!(server.get("/").status, 200);
}

fn a_short_name_is_found_on_the_plugin_path(cell: &Cell) {
    let place = tempfile::tempdir().unwrap();
    fs::copy(&cell.class.path, place.path().join("libelsewhere_worker.so")).unwrap();
    let path = format!("/nowhere:{}", place.path().display());
    let server = Setup::new(cell).class("elsewhere").env("JIMU_PLUGIN_PATH", path).start();
    assert_eq!(server.get("/").status, 200);
}

fn without_an_application_there_is_a_welcome_page(cell: &Cell) {
    let server = Setup::bare().class(&cell.class.path).start();
    let answer = server.get("/");
    assert_eq!(answer.status, 200);
    assert!(answer.field("Content-Type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(answer.text().contains("host"), "{}", answer.text());
}

fn settings_come_from_file_environment_and_flags(cell: &Cell) {
    let server = Setup::new(cell)
        .file("host.toml", "workers = 1\nkeepalive = 7\ntimeout = 11\n")
        .env("JIMU_CMD_ARGS", "--workers 2 --timeout 12")
        .flags("--workers 3")
        .start();
    assert_eq!(server.until_ready_workers(3).len(), 3);
    let printed = printed(&[("JIMU_CMD_ARGS", "--workers 2 --timeout 12")], &["--workers", "3"]);
    for line in ["workers = 3", "timeout = 12", "keepalive = 7"] {
        assert!(printed.lines().any(|l| l.starts_with(line)), "no {line:?} in\n{printed}");
    }
}

fn wrong_settings_are_refused_by_name(cell: &Cell) {
    for (file, words) in [
        ("\nworker = 3\n", &["host.toml", "2", "worker", "workers"][..]),
        ("workers = \"many\"\n", &["host.toml", "1", "workers"]),
        ("workers = 0\n", &["host.toml", "1", "workers"]),
        ("timeout = -1\n", &["host.toml", "1", "timeout"]),
        ("workers = 3 3\n", &["host.toml", "1"]),
        ("bind = \"nowhere:at:all\"\n", &["host.toml", "1", "bind"]),
    ] {
        let ended = Setup::new(cell).file("host.toml", file).refused();
        assert_eq!(ended.status(), 78, "{file:?}: {}", ended.log);
        for word in words {
            assert!(ended.log.contains(word), "no {word:?} for {file:?}: {}", ended.log);
        }
    }
    for flags in ["--wrokers 3", "--workers x", "--timeout never", "--log-level loud"] {
        let ended = Setup::new(cell).flags(flags).refused();
        assert_eq!(ended.status(), 78, "{flags}: {}", ended.log);
        let flag = flags.split(' ').next().unwrap_or_default();
        assert!(ended.log.contains(flag), "{flags} is not named: {}", ended.log);
    }
}

fn settings_can_be_checked_and_printed(cell: &Cell) {
    let right = Setup::new(cell).flags("--workers 3 --check-config").refused();
    assert_eq!(right.end, End::Status(0), "{}", right.log);
    let wrong = Setup::new(cell).flags("--check-config").file("host.toml", "x = 1").refused();
    assert_eq!(wrong.status(), 78);
    assert!(printed(&[], &["--graceful-timeout", "7"]).contains("graceful_timeout = 7"));
}

fn help_and_version_are_there(_: &Cell) {
    for program in ["host", "hostctl"] {
        for flag in ["--help", "--version"] {
            let output = Command::new(artifacts::executable(program)).arg(flag).output().unwrap();
            assert!(output.status.success(), "{program} {flag}");
            assert!(!output.stdout.is_empty(), "{program} {flag} prints nothing");
        }
    }
}

fn ps_tells_processes_with_a_long_name_apart(cell: &Cell) {
    let name = "a-project-with-a-long-name";
    let server = Setup::new(cell).flag("--name", name).start();
    let worker = server.until_ready_workers(1)[0];
    let title = |pid: Pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let short = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        format!("{} | {}", line.trim_end_matches('\0'), short.trim_end())
    };
    let mut titles: Vec<String> = server.processes().into_iter().map(title).collect();
    assert!(titles.contains(&title(worker)));
    titles.sort();
    let expected = [("arbiter", "a-proj"), ("mold", "a-project"), ("worker", "a-proje")];
    assert_eq!(titles, expected.map(|(role, cut)| format!("{name}: {role} | {cut}: {role}")));
}

fn a_port_in_use_ends_with_status_1(cell: &Cell) {
    let address = address();
    let _taken = std::net::TcpListener::bind(address).unwrap();
    let ended = Setup::new(cell).bind(Address::Tcp(address)).refused();
    assert_eq!(ended.status(), 1, "{}", ended.log);
    assert!(ended.log.contains(&address.to_string()), "{}", ended.log);
}

/// The limit is 50 ms more than a bare process takes; a debug build on a busy machine gets five times that.
fn the_first_answer_comes_soon(cell: &Cell) {
    let bare = |n: u32| {
        let begun = std::time::Instant::now();
        (0..n).for_each(|_| assert!(Command::new("/bin/true").status().unwrap().success()));
        begun.elapsed() / n
    };
    let process = bare(5);
    let best = (0..5)
        .map(|_| {
            let server = Setup::new(cell).start();
            assert_eq!(server.get("/").status, 200);
            server.age()
        })
        .min()
        .unwrap();
    let extra = best.saturating_sub(process);
    assert!(extra < Duration::from_millis(250), "{extra:?} more than a bare process");
}

/// Returns the output of `--print-config` with a file that sets `keepalive`.
fn printed(variables: &[(&str, &str)], flags: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("host.toml"), "keepalive = 7\n").unwrap();
    let mut command = Command::new(artifacts::executable("host"));
    command.args(flags).arg("--print-config").current_dir(dir.path());
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
