//! The project's commands, `cargo xtask ...`. Not part of the product: it only calls cargo, Python and `host`.

mod count;
mod paths;
mod python;
mod steps;

use std::{env, process::ExitCode};

const HELP: &str = "\
cargo xtask serve [FLAGS]   build everything (release) and serve the welcome page on 127.0.0.1:8000;
                            FLAGS are passed on to host
cargo xtask test [OPTIONS]  build what the tests need and run all of them
    --release               with the release profile instead of dev
    --no-python             leave the Python tests out
    --only WORD             only the tests whose names contain WORD
cargo xtask bench [SCENARIO...] [--rounds N]
                            measure against the peers that there are, and write docs/performance.md;
                            --list names the scenarios
cargo xtask lint            formatting and clippy, warnings are errors
cargo xtask python          make the virtual environments of the Python tests, and print the interpreter
";

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    match command.as_str() {
        "serve" => steps::serve(&words),
        "test" => match steps::TestOptions::parse(&words) {
            Ok(options) => steps::test(&options),
            Err(message) => refuse(&message),
        },
        "bench" => steps::bench(&words),
        "lint" => steps::lint(),
        "python" => match python::environments() {
            Ok(path) => {
                println!("{}", path.display());
                ExitCode::SUCCESS
            }
            Err(message) => refuse(&message),
        },
        "" | "help" | "-h" | "--help" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        other => refuse(&format!("no command {other:?}\n{HELP}")),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("xtask: {message}");
    ExitCode::from(2)
}
