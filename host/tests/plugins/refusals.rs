//! Messages and exit statuses of `host` if worker class or application cannot be loaded: each case is one run of
//! the command.

use std::process::{Command, Output};

use crate::built;

/// A case: variables, worker class, application, further arguments, the status, and parts of the line with the
/// reason. `CLASS` and `APP` stand for the faulty libraries, `HELLO` for a good one.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a [&'a str], i32, &'a [&'a str]);

#[test]
fn a_server_without_its_plugins_exits_with_one_line_of_explanation() {
    let cases: &[Case<'_>] = &[
        (
            &[],
            "nonesuch",
            "HELLO",
            &[],
            78,
            &["worker class \"nonesuch\" not found", "JIMU_PLUGIN_PATH"],
        ),
        (&[], "/no/such.so", "HELLO", &[], 78, &["/no/such.so: no such file"]),
        (&[], "CLASS", "CLASS", &[], 78, &["CLASS: is a worker class, expected an application"]),
        (
            &[("FAULTY_CLASS", "setup=config")],
            "CLASS",
            "HELLO",
            &[],
            78,
            &["CLASS: the worker class refuses to start"],
        ),
        (
            &[("FAULTY_CLASS", "setup=panic")],
            "CLASS",
            "HELLO",
            &[],
            78,
            &["CLASS: the worker class refuses", "panicked"],
        ),
        (
            &[("FAULTY_APP", "new=load")],
            "CLASS",
            "APP",
            &[],
            4,
            &["APP: the application refuses to start"],
        ),
        (
            &[("FAULTY_APP", "new=error")],
            "CLASS",
            "APP",
            &[],
            78,
            &["APP: the application refuses to start"],
        ),
        (
            &[("FAULTY_APP", "load=load")],
            "CLASS",
            "APP",
            &["--preload"],
            4,
            &["APP: the application refuses to start"],
        ),
        (
            &[("FAULTY_APP", "needs=later")],
            "CLASS",
            "APP",
            &[],
            78,
            &[
                "APP: the application responds after its call has returned",
                "faulty does not support",
            ],
        ),
        (
            &[("FAULTY_APP", "needs=loop")],
            "CLASS",
            "APP",
            &[],
            78,
            &["APP: the application runs its own event loop", "faulty does not support"],
        ),
    ];
    for (variables, class, app, options, status, words) in cases {
        let output = host(variables, class, app, &[&["--check-config"], *options].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{class} {app} {variables:?}: {text}");
        let line = text.lines().rfind(|line| line.starts_with("error: ")).expect(&text);
        for words in *words {
            assert!(line.contains(&named(words)), "{words:?} in {line:?}");
        }
    }
}

#[test]
fn a_library_that_ends_its_process_is_named() {
    let cases: &[Case<'_>] = &[
        (
            &[("FAULTY_CLASS", "constructor=abort")],
            "CLASS",
            "HELLO",
            &[],
            78,
            &["CLASS: opening the worker class", "SIGABRT"],
        ),
        (
            &[("FAULTY_APP", "constructor=segfault")],
            "CLASS",
            "APP",
            &[],
            78,
            &["APP: opening the application", "SIGSEGV"],
        ),
        (
            &[("FAULTY_APP", "constructor=exit0")],
            "CLASS",
            "APP",
            &[],
            78,
            &["APP: opening the application", "exited with status 0"],
        ),
        (
            &[("FAULTY_CLASS", "setup=exit3")],
            "CLASS",
            "HELLO",
            &[],
            78,
            &["CLASS: setting up the worker class", "status 3"],
        ),
        (
            &[("FAULTY_APP", "new=hang")],
            "CLASS",
            "APP",
            &["--boot-timeout=0.5"],
            78,
            &["APP: creating the application did not finish within 0.5 s"],
        ),
        (
            &[("FAULTY_CLASS", "new=error")],
            "CLASS",
            "HELLO",
            &["--boot-failures-max=1"],
            3,
            &["CLASS: the worker class cannot boot"],
        ),
        (
            &[("FAULTY_APP", "load=load")],
            "CLASS",
            "APP",
            &[],
            4,
            &["APP: the application cannot boot"],
        ),
        (
            &[("FAULTY_CLASS", "init_process=config")],
            "CLASS",
            "HELLO",
            &[],
            78,
            &["CLASS: the worker class cannot boot"],
        ),
    ];
    for (variables, class, app, options, status, words) in cases {
        let output = host(variables, class, app, &[&SERVE, *options].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{class} {app} {variables:?}: {text}");
        let lines = text.lines().filter(|line| line.contains("[ERROR]"));
        let fits = |line: &&str| words.iter().all(|words| line.contains(&named(words)));
        // Once: an attempt that cannot succeed is not repeated.
        assert_eq!(lines.filter(fits).count(), 1, "{words:?} in {text}");
    }
}

/// Runs the command in a directory without a settings file, until it exits.
fn host(variables: &[(&str, &str)], class: &str, app: &str, options: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_host"))
        .current_dir(directory.path())
        .envs(variables.iter().copied())
        .args(options)
        .args(["--worker-class", &named(class), &named(app)])
        .output()
        .unwrap()
}

/// Replaces the placeholders in the expected words by the paths.
fn named(words: &str) -> String {
    let path = |name: &str| built(name).display().to_string();
    words
        .replace("CLASS", &path("faulty_worker"))
        .replace("APP", &path("faulty_app"))
        .replace("HELLO", &path("hello_app"))
}

/// Arguments of a run that tries to serve.
const SERVE: [&str; 3] = ["--bind=127.0.0.1:0", "--no-control-socket", "--workers=1"];
