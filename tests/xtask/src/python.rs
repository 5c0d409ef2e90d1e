//! The virtual environments of the Python tests, created once in target/ from tests/requirements*.txt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::paths::{root, target};

/// Asks the interpreter for its version, whether it is supported, and its shared library.
const PROBE: &str = "\
import sys, os, ctypes, sysconfig as s
name = s.get_config_var('INSTSONAME') or ''
dirs = [s.get_config_var('LIBDIR') or '', '/usr/lib/' + (s.get_config_var('MULTIARCH') or '')]
found = '.so' in name and any(os.path.exists(os.path.join(d, name)) for d in dirs)
try: import ensurepip; pip = True
except ImportError: pip = False
print('%d.%d' % sys.version_info[:2], int(found), int(pip))
";

/// Creates the environments unless they exist, and returns the first one's interpreter, or one line that says
/// what to install.
pub(crate) fn environments() -> Result<PathBuf, String> {
    made("venv-httpbin", "tests/requirements-httpbin.txt")?;
    made("venv", "tests/requirements.txt")
}

fn made(name: &str, requirements: &str) -> Result<PathBuf, String> {
    let requirements = root().join(requirements);
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let directory = target().join(name);
    let interpreter = directory.join("bin/python");
    let stamp = directory.join("requirements.txt");
    if interpreter.exists() && fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(interpreter);
    }
    usable()?;
    let log = target().join(format!("{name}.log"));
    step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory), &log)?;
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r"]);
    step(install.arg(&requirements), &log)?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(interpreter)
}

/// Checks whether `python3` can create virtual environments and be embedded.
fn usable() -> Result<(), String> {
    let output = Command::new("python3").args(["-c", PROBE]).stderr(Stdio::null()).output();
    let Ok(output) = output else {
        return Err("Python 3.10 or later is needed: apt-get install python3 python3-venv".into());
    };
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = answer.split_whitespace().collect();
    let [version, library, pip] = words[..] else {
        return Err("python3 does not run".into());
    };
    let mut missing = Vec::new();
    if pip == "0" {
        missing.push("python3-venv".to_owned());
    }
    if library == "0" {
        missing.push(format!("libpython{version}"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the Python tests need packages: apt-get install {}", missing.join(" ")))
}

/// Runs one step; its output is kept to explain a failure.
fn step(command: &mut Command, log: &Path) -> Result<(), String> {
    let bad = |why: String| format!("the virtual environment cannot be made: {why}");
    let file = fs::File::create(log).map_err(|error| bad(format!("{}: {error}", log.display())))?;
    let other = file.try_clone().map_err(|error| bad(error.to_string()))?;
    match command.stdin(Stdio::null()).stdout(file).stderr(other).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            let text = fs::read_to_string(log).unwrap_or_default();
            let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output");
            Err(bad(format!("{last} (see {})", log.display())))
        }
        Err(error) => Err(bad(error.to_string())),
    }
}
