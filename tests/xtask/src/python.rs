//! Virtual environments, created once in target/: those of the Python tests from tests/requirements*.txt, that of the
//! packaging tools from python/tools.txt.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::paths::{root, target};

/// Exits with an error if the interpreter cannot create virtual environments.
const PROBE: &str = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))";

/// Lets the interpreter that runs this find the packages of the one that it names.
const ADD_PACKAGES: &str = "\
import subprocess, sys, sysconfig
ask = 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'
packages = subprocess.run([sys.argv[1], '-c', ask], check=True, capture_output=True, text=True)
with open(sysconfig.get_path('purelib') + '/base.pth', 'w') as file:
    file.write(packages.stdout)
";

/// Creates the environments unless they exist, and returns the first one's interpreter, or one line that says
/// what to install.
pub(crate) fn environments() -> Result<PathBuf, String> {
    made("venv-httpbin", "tests/requirements-httpbin.txt", None)?;
    made("venv-asgi", "tests/requirements-asgi.txt", None)?;
    let python = made("venv", "tests/requirements.txt", None)?;
    made("venv-frameworks", "tests/requirements-frameworks.txt", Some(&python))?;
    Ok(python)
}

/// Creates the environment of the packaging tools unless it exists, and returns the directory of their programs.
pub(crate) fn tools() -> Result<PathBuf, String> {
    made("tools", "python/tools.txt", None)?;
    Ok(target().join("tools/bin"))
}

/// Returns the search path for programs with a directory at its start.
pub(crate) fn path_with(directory: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(env::split_paths(&path));
    env::join_paths(directories).unwrap_or(path)
}

/// Creates an environment unless it exists, and returns its interpreter. It sees the packages of the environment of
/// `base`, too.
fn made(name: &str, requirements: &str, base: Option<&Path>) -> Result<PathBuf, String> {
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
    if let Some(base) = base {
        step(Command::new(&interpreter).args(["-c", ADD_PACKAGES]).arg(base), &log)?;
    }
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(interpreter)
}

/// Checks whether `python3` can create virtual environments.
fn usable() -> Result<(), String> {
    let output = Command::new("python3").args(["-c", PROBE]).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("this needs Python 3.10 or later with venv: apt-get install python3 python3-venv"
            .into()),
    }
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
