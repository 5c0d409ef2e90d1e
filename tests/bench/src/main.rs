//! The command `jimu-bench [SCENARIO…] [--rounds N] [--seconds S] [--against DIR] [--profile] [--list] [--report]`.
//! Without scenarios, all are measured. A SCENARIO may be the name of a group, such as `asgi`. `jimu-bench history SCENARIO…`
//! prints the figures of earlier commits.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bench::result::Measured;
use bench::scenario::{Effort, Results, SCENARIOS, Scenario, measure};
use bench::setup::{SERVER, Setup, root};
use bench::target::rounds_of;
use bench::{history, report, server};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(words) => {
            eprintln!("bench: {words}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        for scenario in SCENARIOS {
            println!("{:<18} {}", scenario.name, scenario.title);
        }
        return ExitCode::SUCCESS;
    }
    let done = if options.history { show_history(&options) } else { run(&options) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints how the figures of scenarios changed from commit to commit.
fn show_history(options: &Options) -> io::Result<()> {
    for scenario in &options.scenarios {
        let ratios = history::ratios(&root().join("docs"), scenario.name)?;
        println!("## {}\n\n{ratios}", scenario.title);
    }
    Ok(())
}

fn run(options: &Options) -> io::Result<()> {
    // The connections of one scenario exceed the usual limit, which servers inherit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let executable = env::current_exe()?;
    let built = executable.parent().unwrap_or(&executable).to_owned();
    let kept = built.join("../bench");
    let setup = Setup::new(built, options.against.clone());
    server::settle();
    for scenario in &options.scenarios {
        let rounds = options.rounds.unwrap_or_else(|| rounds_of(scenario.name).max(ROUNDS));
        let effort = Effort { rounds, seconds: options.seconds, profile: options.profile };
        let Results { measured, profiles } = measure(scenario, &setup, effort)?;
        println!("{}", report::summary(scenario, &measured));
        // The page compares with servers that others can install too.
        if options.against.is_none() {
            measured.save(&kept)?;
            remember(scenario, &measured, &profiles)?;
        }
    }
    if options.against.is_none() {
        report::write(&kept, &root().join("docs"), &setup)?;
    }
    Ok(())
}

/// Adds the figures to those of earlier commits, and replaces the profiles if there are new ones.
fn remember(
    scenario: &Scenario,
    measured: &Measured,
    profiles: &[(String, String)],
) -> io::Result<()> {
    let docs = root().join("docs");
    let commit = history::commit(root());
    report::write_profiles(&docs, scenario, measured, commit.as_deref(), profiles)?;
    match (report::ranking(measured), commit) {
        (Some(metric), Some(commit)) => history::append(&docs, measured, metric, &commit),
        (None, _) => Ok(()),
        (_, None) => {
            eprintln!("{}: not added to the history: git names no commit", measured.scenario);
            Ok(())
        }
    }
}

/// Parsed command line.
struct Options {
    scenarios: Vec<&'static Scenario>,
    /// Number of rounds, if it is not the scenario's.
    rounds: Option<usize>,
    seconds: f64,
    /// Directory of another build.
    against: Option<PathBuf>,
    /// Whether profiles are recorded too.
    profile: bool,
    list: bool,
    /// Whether earlier figures are printed, instead of measuring.
    history: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            scenarios: Vec::new(),
            rounds: None,
            seconds: SECONDS,
            against: None,
            profile: false,
            list: false,
            history: false,
        };
        let mut measures = true;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => options.list = true,
                "history" => options.history = true,
                "--profile" => options.profile = true,
                "--report" => measures = false,
                "--rounds" => options.rounds = Some(value(&word, words.next())?),
                "--seconds" => options.seconds = value(&word, words.next())?,
                "--against" => options.against = Some(build(words.next())?),
                name => {
                    let before = options.scenarios.len();
                    let selected =
                        SCENARIOS.iter().filter(|scenario| scenario.is_selected_by(name));
                    options.scenarios.extend(selected);
                    if options.scenarios.len() == before {
                        return Err(format!("no scenario {name:?}: see --list"));
                    }
                }
            }
        }
        if options.profile && options.against.is_some() {
            return Err("--profile and --against exclude each other".into());
        }
        if options.rounds == Some(0) || options.seconds <= 0.0 {
            return Err("nothing is measured in no time".into());
        }
        if options.scenarios.is_empty() && measures {
            options.scenarios = SCENARIOS.iter().collect();
        }
        Ok(options)
    }
}

fn value<T: std::str::FromStr>(option: &str, word: Option<String>) -> Result<T, String> {
    let word = word.ok_or_else(|| format!("{option} needs a number"))?;
    word.parse().map_err(|_| format!("{option} needs a number, not {word:?}"))
}

/// Returns the absolute path of a directory with another build: servers run in another working directory.
fn build(word: Option<String>) -> Result<PathBuf, String> {
    let directory = word.ok_or("--against needs a directory")?;
    let path = PathBuf::from(&directory);
    if !path.join(SERVER).is_file() {
        return Err(format!("--against {directory}: this directory contains no {SERVER}"));
    }
    path.canonicalize().map_err(|error| format!("--against {directory}: {error}"))
}

/// An odd number has a median that was measured.
const ROUNDS: usize = 7;
/// Long compared to the resolution of the CPU clock, 10 ms.
const SECONDS: f64 = 2.0;
