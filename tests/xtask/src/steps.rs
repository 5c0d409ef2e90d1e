//! The steps of each command.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use crate::{
    count::{self, Counts},
    paths::target,
    python,
    run::{cargo, succeeds},
};

/// Maximum number of failed tests that are run again alone.
const ALONE_MAX: usize = 12;

/// Number of tests of a binary that run at once, whatever the number of processors: most of them wait most of the time.
const AT_ONCE: &str = "4";

/// Options of the test command.
#[derive(Debug, Default)]
pub(crate) struct TestOptions {
    release: bool,
    no_python: bool,
    only: Option<String>,
}

impl TestOptions {
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--release" => options.release = true,
                "--no-python" => options.no_python = true,
                "--only" => options.only = Some(words.next().ok_or("--only WORD")?.clone()),
                other => return Err(format!("test has no option {other:?}")),
            }
        }
        Ok(options)
    }
}

/// Builds everything and executes `host`.
pub(crate) fn serve(flags: &[String]) -> ExitCode {
    if !succeeds(cargo().args(["build", "--release", "--workspace"])) {
        return ExitCode::FAILURE;
    }
    let mut host = Command::new(target().join("release/host"));
    if !flags.iter().any(|flag| flag == "-b" || flag.starts_with("--bind")) {
        host.args(["--bind", "127.0.0.1:8000"]);
    }
    let error = host.args(flags).exec();
    eprintln!("xtask: {}: {error}", host.get_program().display());
    ExitCode::FAILURE
}

/// Builds what the tests need, runs all of them and prints the counts last.
pub(crate) fn test(options: &TestOptions) -> ExitCode {
    let begun = Instant::now();
    let python = if options.no_python { Ok(None) } else { python::environments().map(Some) };
    let python = match python {
        Ok(python) => python,
        Err(missing) => {
            eprintln!(
                "xtask: {missing} (or leave the Python tests out: cargo xtask test --no-python)"
            );
            return ExitCode::FAILURE;
        }
    };
    let profile: &[&str] = if options.release { &["--release"] } else { &[] };
    if !succeeds(cargo().args(["build", "--workspace"]).args(profile)) {
        return closing(Counts { failed: 1, ..Counts::default() }, "the workspace does not build");
    }
    let built = begun.elapsed();
    let tests = || {
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]).args(profile);
        command.env("JIMU_BUILT", "1").env("TEST_PYTHON", python.clone().unwrap_or_default());
        command.env("RUST_TEST_THREADS", AT_ONCE);
        command
    };
    let mut command = tests();
    command.args(options.only.as_deref().map(|word| ["--", word]).into_iter().flatten());
    let (mut counts, failed, ended_well) = counted(&mut command);
    if !ended_well && counts.failed == 0 {
        counts.failed = 1;
    }
    let passed_alone = alone(&failed, tests);
    counts.passed += passed_alone;
    counts.failed -= passed_alone;
    let times = format!("{} s to build, {} s in all", built.as_secs(), begun.elapsed().as_secs());
    closing(counts, &times)
}

/// Builds everything and measures it.
pub(crate) fn bench(words: &[String]) -> ExitCode {
    let features = ["--features", "jimu-bench/linked"];
    if !succeeds(cargo().args(["build", "--release", "--workspace"]).args(features)) {
        return ExitCode::FAILURE;
    }
    let done = succeeds(Command::new(target().join("release/jimu-bench")).args(words));
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks formatting, clippy's lints, and the conventions that the `tidy` test knows.
pub(crate) fn lint() -> ExitCode {
    let mut commands = [cargo(), cargo(), cargo()];
    let [formatting, clippy, tidy] = &mut commands;
    formatting.args(["fmt", "--all", "--check"]);
    clippy.args(["clippy", "--workspace", "--all-targets", "--features", "jimu-bench/linked"]);
    clippy.args(["--", "-D", "warnings"]);
    // Of the whole workspace, so that its dependencies are built with the features that the other tests need.
    tidy.args(["test", "--quiet", "--workspace", "--test", "tidy"]);
    // One that fails does not hide what the others find.
    let failed = commands.iter_mut().filter_map(|command| (!succeeds(command)).then_some(()));
    if failed.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs failed tests again, each alone: on a busy machine a test with processes and timeouts may fail for that
/// reason. Reports each, and returns how many passed. If many failed, the machine is not the reason.
fn alone(failed: &[String], tests: impl Fn() -> Command) -> u64 {
    if failed.len() > ALONE_MAX {
        return 0;
    }
    let mut passed = 0;
    for name in failed {
        println!("\n{name} failed among others; alone:");
        let (counts, _, ended_well) =
            counted(tests().args(["--", "--exact", name, "--test-threads=1"]));
        let well = ended_well && counts.failed == 0 && counts.passed == 1;
        println!("{name} {} alone", if well { "passes" } else { "fails" });
        passed += u64::from(well);
    }
    passed
}

/// Runs a command that runs tests, shows its output, sums up its counts, and collects the names of failed tests.
fn counted(command: &mut Command) -> (Counts, Vec<String>, bool) {
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("xtask: cargo: {error}");
            return (counts, failed, false);
        }
    };
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            counts.add_line(&line);
            failed.extend(count::failed_test(&line).map(str::to_owned));
            println!("{line}");
        }
    }
    (counts, failed, child.wait().is_ok_and(|status| status.success()))
}

/// Prints the last lines of a test run.
fn closing(counts: Counts, remark: &str) -> ExitCode {
    let mut text = format!("\n{remark}\n");
    let _ = writeln!(text, "{counts}");
    print!("{text}");
    if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
