//! gunicorn.conf.py as the settings file, through the command `host`: which file is read, how its values become
//! settings, who evaluates it, and how an invalid one is refused.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Output of `host` in a directory.
struct Said {
    status: Option<i32>,
    output: String,
    errors: String,
}

fn host(directory: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    for name in ["GUNICORN_CMD_ARGS", "JIMU_CMD_ARGS", "PORT", "WEB_CONCURRENCY"] {
        command.env_remove(name);
    }
    let done = command.current_dir(directory).env("PWD", directory).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { status: done.status.code(), output: text(done.stdout), errors: text(done.stderr) }
}

/// A directory that every user can enter, with files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn printed(directory: &Path, args: &[&str]) -> String {
    let said = host(directory, &[&["--print-config"], args].concat());
    assert_eq!(said.status, Some(0), "{}", said.errors);
    said.output
}

fn refused(directory: &Path, args: &[&str]) -> String {
    let said = host(directory, &[&["--print-config"], args].concat());
    assert_eq!((said.status, said.output.as_str()), (Some(78), ""), "{}", said.errors);
    assert_eq!(said.errors.lines().count(), 1, "{}", said.errors);
    said.errors.replace(&format!("{}/", directory.display()), "")
}

#[test]
fn the_files_values_are_settings_with_their_lines() {
    let directory = directory(&[(
        "gunicorn.conf.py",
        "import multiprocessing\nprint('not a setting')\nworkers = 1 + 2 * 1\n\
         bind = '127.0.0.1:1, unix:x'\n\nif workers > 2:\n    threads = 4\nelse:\n    threads = 8\n\
         accesslog = '-'\nworker_tmp_dir = '/dev/shm'\nworker_class = 'egg:gunicorn#gthread'\n\
         my_own = object()\ncertfile = None\n\n\ndef post_fork(server, worker):\n    pass\n",
    )]);
    let path = directory.path();
    let file = path.join("gunicorn.conf.py").display().to_string();
    let text = printed(path, &["--backlog", "7"]);
    for line in [
        format!("workers = 3  # {file}:3"),
        format!("bind = [\"127.0.0.1:1\", \"unix:{}/x\"]  # {file}:4", path.display()),
        format!("threads = 4  # {file}"),
        format!("worker_class = \"gthread\"  # {file}:12"),
        format!("hooks_module = {file:?}  # {file}"),
        "backlog = 7  # command line".to_owned(),
        "# certfile is unset".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
    }
}

#[test]
fn the_file_has_gunicorns_names() {
    let conf = "workers = 2\nfrom helper import threads\n";
    let files = [
        ("own.py", conf),
        ("own.conf", conf),
        ("helper.py", "threads = 5\n"),
        ("json.py", "1 / 0\n"),
    ];
    let directory = directory(&files);
    let path = directory.path();
    for name in ["own.py", "./own.py", "file:own.py", "file:own.conf", "python:own"] {
        let text = printed(path, &["-c", name]);
        assert!(text.contains("\nworkers = 2  # ") && text.contains("\nthreads = 5  # "), "{text}");
    }
    assert!(
        refused(path, &["-c", "none.py"]).starts_with("error: none.py: cannot be read: No such")
    );
    let none = refused(path, &["-c", "python:none"]);
    assert_eq!(none, "error: none: ModuleNotFoundError: No module named 'none'\n");
}

#[test]
fn a_toml_file_comes_before_the_python_file() {
    let files = [("host.toml", "workers = 2\n"), ("gunicorn.conf.py", "workers = 3\n")];
    let directory = directory(&files);
    assert!(printed(directory.path(), &[]).contains("\nworkers = 2  # "));
    let named = printed(directory.path(), &["-c", "gunicorn.conf.py"]);
    assert!(named.contains("\nworkers = 3  # "), "{named}");
    let checked = host(directory.path(), &["--check-config", "none:app"]);
    let warning = checked.errors.lines().find(|line| line.contains("gunicorn.conf.py: not read"));
    assert!(warning.is_some_and(|line| line.contains("host.toml as well")), "{}", checked.errors);
}

#[test]
fn a_wrong_file_is_refused_in_one_line() {
    for (text, line) in [
        ("a = 1\nb = (\n", "error: gunicorn.conf.py:2: SyntaxError: "),
        ("a = 1\n\nb = a / 0\n", "error: gunicorn.conf.py:3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('no')\n", "error: gunicorn.conf.py:2: SystemExit: no"),
        ("import os\nos._exit(3)\n", "error: gunicorn.conf.py: Python has ended without a result"),
        (
            "\nworkers = 'x'\n",
            "error: gunicorn.conf.py:2: workers: expected a whole number from 1 ",
        ),
        (
            "protocol = 'uwsgi'\n",
            "error: gunicorn.conf.py:1: unknown key \"protocol\" (of gunicorn)",
        ),
        (
            "worker_class = 'own.Worker'\n",
            "error: gunicorn.conf.py:1: worker_class: a worker class is",
        ),
        (
            "proc_name = 'x' * (1 << 21)\n",
            "error: gunicorn.conf.py: its settings are longer than 1024",
        ),
    ] {
        let directory = directory(&[("gunicorn.conf.py", text)]);
        let refused = refused(directory.path(), &[]);
        assert!(refused.starts_with(line), "{refused} is not {line}");
    }
    let plain = directory(&[("gunicorn.conf.py", "workers = 2\n")]);
    let missing = refused(plain.path(), &["--python", "/no/python"]);
    assert!(missing.contains("cannot run the Python interpreter /no/python"), "{missing}");
}

#[test]
fn a_file_that_takes_too_long_is_refused() {
    let directory = directory(&[("gunicorn.conf.py", "while True:\n    pass\n")]);
    let start = Instant::now();
    let line = refused(directory.path(), &["--boot-timeout", "1"]);
    assert_eq!(line, "error: gunicorn.conf.py: not evaluated within 1 s (boot_timeout)\n");
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Root must not run another user's code.
#[test]
fn root_evaluates_the_file_as_another_user() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can change the user");
    }
    let ids = "import os\nworker_connections = os.getuid() or 10**6\nbacklog = os.getgid() or 1\n";
    let python = ["--python", "/usr/bin/python3"];
    let run_in = |text: &str, owner: u32, of_directory: u32, args: &[&str]| {
        let directory = directory(&[("gunicorn.conf.py", text)]);
        chown(directory.path().join("gunicorn.conf.py"), Some(owner), Some(owner)).unwrap();
        chown(directory.path(), Some(of_directory), Some(of_directory)).unwrap();
        let text = printed(directory.path(), &[&python, args].concat());
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok()).unwrap()
        };
        (value("worker_connections"), value("backlog"))
    };
    let run = |text: &str, owner: u32, args: &[&str]| run_in(text, owner, 0, args);
    assert_eq!(run(ids, 0, &["--user", "4711", "--group", "4712"]), (4711, 4712));
    assert_eq!(run(&format!("{ids}user = 4713\ngroup = '4714'\n"), 0, &[]), (4713, 4714));
    assert_eq!(run(ids, 4715, &[]), (4715, 4715));
    assert_eq!(run_in(ids, 0, 4716, &[]), (4716, 4716));
    assert_eq!(run(ids, 0, &[]).0, 1_000_000);
    // The first of them.
    let flags = ["--user", "4711", "--group", "4712"];
    assert_eq!(run(&format!("{ids}user = 4713\n"), 4715, &flags), (4711, 4712));
}
