//! `hostctl` from the outside: its output and its exit statuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn hostctl(socket: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostctl"));
    command.arg("--socket").arg(socket).args(words).output().unwrap()
}

/// Sends `answer` to one request; returns the request and the output of hostctl.
fn answered(answer: &'static str, words: &[&str]) -> (String, Output) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
        writeln!(stream, "{answer}").unwrap();
        request.trim().to_owned()
    });
    let output = hostctl(&path, words);
    (server.join().unwrap(), output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn commands_send_their_requests() {
    for (words, request) in [
        (&["reload"][..], r#"{"request":"reload"}"#),
        (&["reload", "-k", "sync"], r#"{"request":"reload","worker_class":"sync"}"#),
        (&["swap", "/x.so"], r#"{"request":"reload","worker_class":"/x.so"}"#),
        (
            &["swap", "--canary", "2", "/x.so"],
            r#"{"request":"reload","worker_class":"/x.so","canary":2}"#,
        ),
        (&["promote"], r#"{"request":"promote"}"#),
        (&["rollback"], r#"{"request":"rollback"}"#),
        (&["generation", "rollback", "3"], r#"{"request":"rollback","generation":3}"#),
        (&["workers", "kill", "12"], r#"{"request":"kill_worker","pid":12}"#),
        (&["scale", "4"], r#"{"request":"scale","workers":4}"#),
        (&["stop"], r#"{"request":"stop"}"#),
    ] {
        let (asked, output) = answered(r#"{"ok":true}"#, words);
        assert_eq!(asked, request);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn the_exit_status_reflects_the_result() {
    let (_, refused) = answered(r#"{"ok":false,"error":"no such class"}"#, &["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(text(&refused.stderr), "refused: no such class\n");
    assert_eq!(hostctl(Path::new("/nonexistent"), &["stop"]).status.code(), Some(69));
    assert_eq!(hostctl(Path::new("/nonexistent"), &["nonsense"]).status.code(), Some(2));
}

#[test]
fn responses_are_printed_as_text_or_json() {
    let status = r#"{"ok":true,"status":{"version":"1","pid":7,"state":"running","memory_kib":1,
        "listeners":["http://x"],"generations":[{"id":2,"state":"serving","class":"sync 1",
        "app":"hello","worker_api":"1","target":1,"age":3,"mold":null,"workers":[{"pid":9,"age":1,
        "class":"sync","state":"ready","busy":0,"in_flight":[],"requests":5,"accepted":5,
        "uptime":3,"silent_ms":1,"memory_kib":2048}]}],
        "past":[{"id":1,"class":"gthread 1","app":"hello","worker_class":"gthread"}]}}"#;
    let line: &'static str = Box::leak(status.replace('\n', "").into_boxed_str());
    let (_, output) = answered(line, &["status"]);
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().next(), Some("host 1 (pid 7), running, listening at http://x"));
    assert!(lines.contains("worker       9  ready     2.0 MiB  busy 0  requests 5"), "{lines}");
    let (_, output) = answered(line, &["generation", "list"]);
    assert_eq!(
        text(&output.stdout),
        "generation 1: past, gthread 1, hello\n\
         generation 2: serving, sync 1, hello, 1 of 1 workers\n"
    );
    let (_, output) = answered(line, &["--json", "status"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["status"]["generations"][0]["workers"][0]["pid"], 9);
    let (_, output) = answered(line, &["top", "-n", "1"]);
    assert!(text(&output.stdout).contains("\n0 requests/s, 0 in flight, 1 workers ready\n"));
    let (_, output) = answered(r#"{"ok":true,"config":"workers = 1\n"}"#, &["config", "show"]);
    assert_eq!(text(&output.stdout), "workers = 1\n");
}

#[test]
fn hostctl_waits_no_longer_than_requested() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let _silent = UnixListener::bind(&path).unwrap();
    for command in ["status", "reload", "stop"] {
        let output = hostctl(&path, &["--timeout", "0.2", command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(text(&output.stderr).starts_with("error: no response within 0.2 s"), "{command}");
    }
}

#[test]
fn several_servers_require_the_socket_option() {
    let directory = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostctl"));
        command.env("XDG_RUNTIME_DIR", directory.path()).args(["--timeout", "0.2", "status"]);
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (status, message) = run();
    assert_eq!(status, Some(69), "{message}");
    // A leftover socket is not a server.
    drop(UnixListener::bind(directory.path().join("host.ctl")).unwrap());
    let _second = UnixListener::bind(directory.path().join("host.ctl.12")).unwrap();
    let (status, message) = run();
    assert!(status == Some(1) && message.starts_with("error: no response within"), "{message}");
    let _third = UnixListener::bind(directory.path().join("host.ctl.34")).unwrap();
    let (status, message) = run();
    assert_eq!(status, Some(69));
    assert!(message.contains("--socket") && message.contains("host.ctl.12, "), "{message}");
}

#[test]
fn completions_and_manual_pages_need_no_server() {
    let nowhere = Path::new("/nonexistent");
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&hostctl(nowhere, &["completions", shell]).stdout);
        assert!(script.contains("canary"), "{shell}");
    }
    let page = text(&hostctl(nowhere, &["man"]).stdout);
    assert!(page.contains(".TH hostctl"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let output = hostctl(nowhere, &["man", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    for name in ["hostctl.1", "hostctl-swap.1", "host.1"] {
        assert!(directory.path().join(name).exists(), "{name}");
    }
    let path = directory.path().to_str().unwrap();
    assert_eq!(hostctl(nowhere, &["completions", "zsh", path]).status.code(), Some(0));
    for name in ["host", "jimu", "hostctl", "jimuctl"] {
        let script = std::fs::read_to_string(directory.path().join(format!("_{name}"))).unwrap();
        assert!(script.starts_with(&format!("#compdef {name}\n")), "{name}");
    }
}

#[test]
fn a_closed_reader_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostctl"));
    let output = command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_gunicorn_file_is_converted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gunicorn.conf.py");
    std::fs::write(
        &file,
        "import os\nprint('not an answer')\nbind = ['127.0.0.1:0']\nworkers = 2 * 2\n\
         worker_class = 'gthread'\nthreads = 8\nuser = os.getuid()\ncertfile = None\n\
         worker_tmp_dir = '/dev/shm'\nlogger_class = dict\nhelper = 1\n\
         def post_fork(server, worker):\n    pass\n",
    )
    .unwrap();
    let output = hostctl(directory.path(), &["convert", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let errors = text(&output.stderr);
    for left in ["worker_tmp_dir", "logger_class", "post_fork"] {
        let line = format!("not converted: {left}: ");
        assert_eq!(errors.matches(&line).count(), 1, "{left}: {errors}");
    }
    let toml = directory.path().join("host.toml");
    std::fs::write(&toml, &output.stdout).unwrap();
    let (settings, _) = host::settings::Sources {
        args: vec!["--config".into(), toml.into()],
        directory: directory.path().to_owned(),
        ..Default::default()
    }
    .load()
    .unwrap();
    assert_eq!((settings.workers, settings.threads, settings.class()), (4, 8, "gthread"));
    assert_eq!(settings.bind.len(), 1);

    std::fs::write(&file, "raise RuntimeError('on purpose')\n").unwrap();
    let output = hostctl(directory.path(), &["convert", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("gunicorn.conf.py:1: RuntimeError: on purpose"));
}

#[test]
fn what_a_gunicorn_file_depends_on_is_not_frozen_silently() {
    let directory = tempfile::tempdir().unwrap();
    let convert = |lines: &str| {
        let file = directory.path().join("gunicorn.conf.py");
        std::fs::write(&file, lines).unwrap();
        let file = file.to_str().unwrap();
        let output = hostctl(directory.path(), &["convert", file]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, toml, errors) = convert(
        "import os, getpass\nworkers = int(os.environ.get('POOL', '3'))\n\
         bind = '127.0.0.1:' + os.getenv('TEST_PORT', '1')\n",
    );
    assert_eq!(status, Some(0), "{errors}");
    for name in ["POOL", "TEST_PORT"] {
        assert!(toml.contains(&format!("# the file reads the environment variable {name};")));
        let line = format!("warning: the file reads the environment variable {name};");
        assert_eq!(errors.matches(&line).count(), 1, "{errors}");
    }
    let gevents = "class GeventWorker: __module__ = 'gunicorn.workers.ggevent'\n";
    let (status, toml, errors) =
        convert(&format!("{gevents}class Own(GeventWorker): pass\nworker_class = Own\n"));
    assert_eq!(status, Some(0), "{errors}");
    assert!(toml.contains("worker_class = \"gevent\""), "{toml}");
    assert!(
        errors.contains("warning: worker_class: __config__.Own is derived from gunicorn.workers")
    );
    for class in ["'own.module.Worker'", "type('Own', (), {})", "'hypercorn.workers.Worker'"] {
        let (status, toml, errors) = convert(&format!("worker_class = {class}\n"));
        assert_eq!((status, toml.as_str()), (Some(1), ""), "{errors}");
        assert!(errors.contains("gunicorn.conf.py: worker_class = "), "{errors}");
    }
}
