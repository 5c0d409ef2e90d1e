//! `hostctl convert`: converts a gunicorn.conf.py to a host.toml. The file is a program, so Python evaluates it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use host::settings::gunicorn::{Converted, Found, convert};

/// Prints the settings, and what could not be converted also to standard error.
pub(crate) fn run(file: &Path, python: Option<PathBuf>) -> ExitCode {
    match converted(file, python) {
        Ok(converted) => {
            crate::say(format!("# Made from {}\n{}", file.display(), converted.to_toml()));
            for left in &converted.left {
                eprintln!("not converted: {left}");
            }
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn converted(file: &Path, python: Option<PathBuf>) -> Result<Converted, String> {
    let python = python.or_else(of_environment).unwrap_or_else(|| "python3".into());
    let answer = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(file)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", python.display()))?;
    if !answer.status.success() {
        return Err(format!("{} failed: Python's {}", file.display(), answer.status));
    }
    let found: Vec<(String, Found)> = serde_json::from_slice(&answer.stdout)
        .map_err(|error| format!("invalid output of {}: {error}", python.display()))?;
    Ok(convert(&found))
}

/// Returns the interpreter of the virtual environment, as `host` selects it.
fn of_environment() -> Option<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").filter(|path| !path.is_empty())?;
    Some(Path::new(&environment).join("bin/python"))
}

const SCRIPT: &str = include_str!("gunicorn_conf.py");
