//! `hostctl convert`: converts a gunicorn.conf.py to a host.toml. The file is a program, so Python evaluates it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::evaluation::{self, Report};
use crate::exit_status::FAILED;
use crate::interpreter::Program;
use crate::settings::ConfigName;
use crate::settings::gunicorn::{Converted, convert};

/// Prints the settings, and what could not be converted also to standard error.
pub(super) fn run(file: &Path, python: Option<PathBuf>) -> i32 {
    match converted(file, python) {
        Ok(converted) => {
            super::say(format!("# Made from {}\n{}", file.display(), converted.to_toml()));
            for left in &converted.left {
                eprintln!("not converted: {left}");
            }
            for warning in &converted.warnings {
                eprintln!("warning: {warning}");
            }
            0
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            FAILED
        }
    }
}

fn converted(file: &Path, python: Option<PathBuf>) -> Result<Converted, String> {
    let python = python.unwrap_or_else(of_installation);
    let answer = Command::new(&python)
        .args(evaluation::arguments(&ConfigName::Python(file.to_owned())))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", python.display()))?;
    if !answer.status.success() {
        return Err(format!("{} failed: Python's {}", file.display(), answer.status));
    }
    match serde_json::from_slice(&answer.stdout) {
        Ok(Report::Evaluated(evaluated)) => {
            convert(&evaluated).map_err(|reason| format!("{}: {reason}", file.display()))
        }
        Ok(Report::Failed { file, line, reason }) => {
            Err(format!("{}:{line}: {reason}", file.display()))
        }
        Err(error) => Err(format!("invalid output of {}: {error}", python.display())),
    }
}

/// Returns the interpreter that `host` would use without the setting `python`.
fn of_installation() -> PathBuf {
    let program = std::env::args_os().next().unwrap_or_default();
    let directory = std::env::current_dir().unwrap_or_default();
    Program::of_installation(&program, &directory).path().to_owned()
}
