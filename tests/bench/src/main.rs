//! The command `jimu-bench [SCENARIO…] [--rounds N] [--seconds S] [--list] [--report]`. Without scenarios, all
//! are measured.

use std::env;
use std::io;
use std::process::ExitCode;

use bench::result::Measured;
use bench::scenario::{Effort, SCENARIOS, Scenario, measure};
use bench::setup::{Setup, root};
use bench::{report, server};
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
            println!("{:<14} {}", scenario.name, scenario.title);
        }
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    // The connections of one scenario exceed the usual limit, which servers inherit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let executable = env::current_exe()?;
    let built = executable.parent().unwrap_or(&executable).to_owned();
    let kept = built.join("../bench");
    let setup = Setup::new(built);
    server::settle();
    for scenario in &options.scenarios {
        let measured: Measured = measure(scenario, &setup, options.effort)?;
        measured.save(&kept)?;
    }
    report::write(&kept, &root().join("docs"), &setup)
}

/// Parsed command line.
struct Options {
    scenarios: Vec<&'static Scenario>,
    effort: Effort,
    list: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            scenarios: Vec::new(),
            effort: Effort { rounds: ROUNDS, seconds: SECONDS },
            list: false,
        };
        let mut measures = true;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => options.list = true,
                "--report" => measures = false,
                "--rounds" => options.effort.rounds = value(&word, words.next())?,
                "--seconds" => options.effort.seconds = value(&word, words.next())?,
                name => {
                    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
                    let unknown = || format!("no scenario {name:?}: see --list");
                    options.scenarios.push(found.ok_or_else(unknown)?);
                }
            }
        }
        if options.effort.rounds == 0 || options.effort.seconds <= 0.0 {
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

/// An odd number has a median that was measured.
const ROUNDS: usize = 7;
/// Long compared to the resolution of the CPU clock, 10 ms.
const SECONDS: f64 = 2.0;
