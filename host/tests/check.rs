//! `host --check-worker` against classes with one fault each: it must name that fault first.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Trial};

/// A fault of the class `broken`, the check that must fail for it, and words of its message.
const FAULTS: &[(&str, &str, &str)] = &[
    ("setup-fails", "loads", "the worker class refuses to start: the fault that was asked for"),
    ("setup-panics", "loads", "the fault that was asked for"),
    ("setup-exits", "loads", "ended the process"),
    ("setup-starts-thread", "fork-safe", "1 thread,"),
    ("new-panics", "boots", "the fault that was asked for"),
    ("init-fails", "boots", "cannot boot: the fault that was asked for"),
    ("boots-slowly", "boots", "it was not ready within 10.0 s"),
    ("run-panics", "boots", "the fault that was asked for"),
    ("run-returns", "boots", "exited with status 0"),
    ("closes-listener", "listeners", "closed its listening socket"),
    ("blocks-listener", "listeners", "made blocking"),
    ("answers-nothing", "serves", "did not arrive within 5 s"),
    ("answers-itself", "serves", "is not the application's response"),
    ("exits-after-first", "stays", "exited with status 0"),
    ("serves-one-at-a-time", "silent-client", "while two clients are silent"),
    ("dies-of-bad-clients", "bad-clients", "status 9"),
    ("leaks-descriptors", "descriptors", "descriptors before 100 requests"),
    ("leaks-memory", "memory", "KiB more"),
    ("records-nothing", "records", "were counted as 0"),
    ("counts-twice", "accepted", "20 connections were counted as 40"),
    ("has-no-heartbeat", "boots", "its loop has sent no heartbeat (Host::notify)"),
    ("spins-while-idle", "idle-cpu", "% of a processor"),
    ("is-silent-while-waiting", "heartbeat-waiting", "no heartbeat for 2.0 s"),
    ("beats-from-thread", "timeout", "the heartbeat continues"),
    ("is-deaf", "wake-up", "deliver_signals was not called"),
    ("looks-now-and-then", "wake-up", "delivered after"),
    ("ignores-term", "term", "did not exit within 5.0 s"),
    ("cuts-requests", "term", "a request in flight"),
    ("ends-with-error", "term", "the fault that was asked for"),
    ("drops-queue", "term-queue", "in the backlog were lost"),
    ("holds-idle", "term-idle", "with idle connections"),
    ("blocks-signals", "quit", "blocks SIGQUIT"),
    ("keeps-accepting", "reload", "host.remaining_backlog()"),
    ("never-retires", "max-requests", "did not call host.retire()"),
    ("outlives-arbiter", "parent-death", "still runs 5 s after the death of its arbiter"),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The checks mostly wait.
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    let faults = FAULTS.iter().map(|&(fault, check, words)| {
        trial(format!("a_class_is_named_that::{fault}"), move || {
            named(&run(&built("broken_worker"), Some(fault)), check, words);
        })
    });
    let others: [(&str, fn()); 5] = [
        ("a_class_without_a_fault_passes", passes),
        ("another_layout_is_named", another_layout),
        ("an_application_is_no_class", no_class),
        ("another_name_than_the_files_is_named", another_name),
        ("a_class_that_is_not_there_cannot_be_checked", not_there),
    ];
    let others = others.into_iter().map(|(name, test)| trial(name.to_owned(), test));
    libtest_mimic::run(&arguments, faults.chain(others).collect()).exit_code()
}

fn trial(name: String, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn passes() {
    let output = run(&built("broken_worker"), None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let checks = host::check::report::CHECKS.len();
    assert!(text.ends_with(&format!("{checks} passed, 0 failed, 0 not checked\n")), "{text}");
}

fn another_layout() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(built("broken_worker")).unwrap();
    let (from, to) = (b"content_length", b"content_lenght");
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    let class = directory.path().join("libbroken_worker.so");
    std::fs::write(&class, bytes).unwrap();
    named(&run(&class, None), "loads", "was built against worker-api");
}

fn no_class() {
    named(&run(&built("check_app"), None), "loads", "is an application");
}

fn another_name() {
    let directory = tempfile::tempdir().unwrap();
    let class = directory.path().join("libother_worker.so");
    std::fs::copy(built("broken_worker"), &class).unwrap();
    // A further fault, so that the check ends soon.
    named(&run(&class, Some("init-fails")), "name", "rename the file to libbroken_worker.so");
}

fn not_there() {
    let output = run(Path::new("nosuch"), None);
    assert_eq!(output.status.code(), Some(78));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.starts_with("error: worker class \"nosuch\" not found"), "{words}");
}

/// Checks a class with one fault.
fn run(class: &Path, fault: Option<&str>) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.env("JIMU_PLUGIN_PATH", program.parent().unwrap()).env_remove("BROKEN_CLASS");
    command.envs(fault.map(|fault| ("BROKEN_CLASS", fault)));
    command.arg("--check-worker").arg(class).output().unwrap()
}

/// Asserts that the first fault is that of the named check, with these words.
fn named(output: &Output, check: &str, words: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let fault = text.lines().find_map(|line| line.strip_prefix("fault: ")).unwrap();
    let said = fault.strip_prefix(check).and_then(|rest| rest.strip_prefix(": "));
    assert!(said.is_some_and(|said| said.contains(words)), "{check}: {words}\nin:\n{text}");
}

/// Returns a library that cargo built for this test as a dependency.
fn built(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name(format!("lib{name}.so"));
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Number of classes checked at the same time.
const AT_ONCE: usize = 6;
