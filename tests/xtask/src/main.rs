//! The project's commands, `cargo xtask ...`. Not part of the product: it only calls cargo, Python, `host` and packaging tools.

mod count;
mod debian;
mod dist;
mod files;
mod matrix;
mod paths;
mod python;
mod run;
mod stage;
mod steps;
mod wheel;

use std::{env, path::Path, process::ExitCode};

use run::report;
use stage::{Linker, Machine};

const HELP: &str = "\
cargo xtask serve [FLAGS]   build everything (release) and serve the welcome page on 127.0.0.1:8000;
                            FLAGS are passed on to host
cargo xtask test [OPTIONS]  build what the tests need and run all of them
    --release               with the release profile instead of dev
    --no-python             leave the Python tests out
    --only WORD             only the tests whose names contain WORD
cargo xtask bench [SCENARIO...] [OPTIONS]
                            measure against the peers that there are, and write docs/performance.md and
                            docs/performance-history.tsv;
                            SCENARIO may be a group, such as asgi
    --list                  list the scenarios
    --rounds N              rounds instead of 7, or of what the scenario's targets need
    --seconds S             length of a round instead of 2
    --profile               record a profile of each class with perf, and write it to docs/profiles/SCENARIO.txt
    --against DIR           measure also the host and the libraries in DIR, another build's target/release, print
                            the ratios, and leave docs/performance.md as it is
cargo xtask bench history SCENARIO...
                            print the figures of earlier commits, with the ratio from each commit to the next
cargo xtask lint            formatting, clippy (warnings are errors), conventions of the source
cargo xtask wheel [MACHINE] make the wheel in target/wheels, for every CPython from 3.9 on;
                            MACHINE is x86_64 or aarch64 instead of this one
cargo xtask sdist           make the source distribution in target/wheels
cargo xtask dist            make archives of the installed server, its debug information, and the matrix of behaviors, in
                            target/dist
cargo xtask deb             make a Debian package in target/dist
cargo xtask stage PREFIX    build (release), and lay out the installed server in PREFIX
cargo xtask matrix PREFIX   build the matrix of behaviors as a program, and lay it out in PREFIX
cargo xtask python          make the virtual environments of the Python tests, and print the interpreter
";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help", ..] => help(),
        // All flags are host's.
        ["serve", flags @ ..] => steps::serve(flags),
        words if words.iter().any(|word| ["-h", "--help"].contains(word)) => help(),
        ["test", options @ ..] => match steps::TestOptions::parse(options) {
            Ok(options) => steps::test(&options),
            Err(message) => refuse(&message),
        },
        ["bench", options @ ..] => steps::bench(options),
        ["lint"] => steps::lint(),
        ["wheel"] => make_wheel(env::consts::ARCH),
        ["wheel", machine] => make_wheel(machine),
        ["sdist"] => report(wheel::source()),
        ["dist"] => report(dist::archives()),
        ["deb"] => report(debian::package()),
        ["stage", prefix] => report(stage::stage(Linker::Own, Path::new(prefix), None)),
        ["matrix", prefix] => report(matrix::stage(Linker::Own, Path::new(prefix))),
        ["python"] => match python::environments() {
            Ok(path) => {
                println!("{}", path.display());
                ExitCode::SUCCESS
            }
            Err(message) => refuse(&message),
        },
        words => refuse(&format!(
            "expected a command of `cargo xtask help`, found {:?}",
            words.join(" ")
        )),
    }
}

fn make_wheel(machine: &str) -> ExitCode {
    match Machine::named(machine) {
        Some(machine) => report(wheel::wheel(machine)),
        None => refuse(&format!("expected x86_64 or aarch64, found {machine:?}")),
    }
}

fn help() -> ExitCode {
    print!("{HELP}");
    ExitCode::SUCCESS
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("xtask: {message}");
    ExitCode::from(2)
}
