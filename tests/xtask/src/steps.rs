//! The steps of each command.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    thread,
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
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--release" => options.release = true,
                "--no-python" => options.no_python = true,
                "--only" => options.only = Some(words.next().ok_or("--only WORD")?.to_owned()),
                other => return Err(format!("test has no option {other:?}")),
            }
        }
        Ok(options)
    }
}

/// Builds everything and executes `host`.
pub(crate) fn serve(flags: &[&str]) -> ExitCode {
    if !succeeds(cargo().args(["build", "--release", "--workspace"])) {
        return ExitCode::FAILURE;
    }
    let mut host = Command::new(target().join("release/host"));
    if !flags.iter().any(|flag| *flag == "-b" || flag.starts_with("--bind")) {
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
    let Run { mut counts, failed, targets, ended_well } = counted(&mut command);
    if !ended_well && counts.failed == 0 {
        counts.failed = 1;
    }
    let passed_alone = alone(&failed, &targets, tests);
    counts.passed += passed_alone;
    counts.failed -= passed_alone;
    let times = format!("{} s to build, {} s in all", built.as_secs(), begun.elapsed().as_secs());
    closing(counts, &times)
}

/// Builds everything and measures it.
pub(crate) fn bench(words: &[&str]) -> ExitCode {
    let features = ["--features", "jimu-bench/linked"];
    if !succeeds(cargo().args(["build", "--release", "--workspace"]).args(features)) {
        return ExitCode::FAILURE;
    }
    let done = succeeds(Command::new(target().join("release/jimu-bench")).args(words));
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks formatting, clippy's lints, and the conventions that the `tidy` test knows.
pub(crate) fn lint() -> ExitCode {
    let mut commands = [cargo(), cargo(), cargo(), cargo()];
    let [formatting, clippy, build, tidy] = &mut commands;
    formatting.args(["fmt", "--all", "--check"]);
    clippy.args(["clippy", "--workspace", "--all-targets", "--features", "jimu-bench/linked"]);
    clippy.args(["--", "-D", "warnings"]);
    // `tidy` asks the programs for their options. The whole workspace has the features that the other tests need.
    build.args(["build", "--quiet", "--workspace"]);
    tidy.args(["test", "--quiet", "--workspace", "--test", "tidy"]);
    // One that fails does not hide what the others find.
    let failed = commands.iter_mut().map(succeeds).filter(|succeeded| !succeeded).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs failed tests of these targets again, each alone: on a busy machine a test with processes and timeouts may fail
/// for that reason. Reports each, and returns how many passed. If many failed, the machine is not the reason.
fn alone(failed: &[String], targets: &[String], tests: impl Fn() -> Command) -> u64 {
    if failed.len() > ALONE_MAX {
        return 0;
    }
    let mut passed = 0;
    for name in failed {
        println!("\n{name} failed among others; alone:");
        let mut command = tests();
        // cargo runs either documentation or other targets.
        let (doc, others): (Vec<_>, Vec<_>) = targets.iter().partition(|target| *target == "--doc");
        let targets = if count::is_of_documentation(name) { doc } else { others };
        command.args(targets.iter().flat_map(|target| target.split(' ')));
        let run = counted(command.args(["--", "--exact", name, "--test-threads=1"]));
        let well = run.ended_well && run.counts.failed == 0 && run.counts.passed == 1;
        println!("{name} {} alone", if well { "passes" } else { "fails" });
        passed += u64::from(well);
    }
    passed
}

/// What a command that runs tests has printed.
#[derive(Default)]
struct Run {
    counts: Counts,
    /// Names of tests.
    failed: Vec<String>,
    /// Options of cargo that select the targets to which these belong.
    targets: Vec<String>,
    ended_well: bool,
}

/// Runs a command that runs tests, and shows its output.
fn counted(command: &mut Command) -> Run {
    let mut run = Run::default();
    let mut child =
        match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("xtask: cargo: {error}");
                return run;
            }
        };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| {
            for line in stderr.into_iter().flat_map(lines) {
                run.targets.extend(count::failed_target(&line).map(str::to_owned));
                eprintln!("{line}");
            }
        });
        for line in stdout.into_iter().flat_map(lines) {
            run.counts.add_line(&line);
            run.failed.extend(count::failed_test(&line).map(str::to_owned));
            println!("{line}");
        }
    });
    run.targets.sort_unstable();
    run.targets.dedup();
    run.ended_well = child.wait().is_ok_and(|status| status.success());
    run
}

fn lines(output: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// Prints the last lines of a test run.
fn closing(counts: Counts, remark: &str) -> ExitCode {
    let mut text = format!("\n{remark}\n");
    let _ = writeln!(text, "{counts}");
    print!("{text}");
    if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
