//! The Python interpreter: found by its name, queried once for its properties, and started from its library.
//!
//! What runs in it is up to other modules.

use std::env;
use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use worker_api::{Failure, FailureKind, Result};

use crate::library::Library;
use crate::python::{SetProgramName, initialize};

/// An interpreter, as it describes itself: the output of `query.py`.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Interpreter {
    version: (u32, u32),
    implementation: String,
    free_threaded: bool,
    executable: PathBuf,
    pub(crate) prefix: PathBuf,
    library: Option<PathBuf>,
    library_name: String,
    utf8: bool,
}

impl Interpreter {
    /// Finds the interpreter and queries it. `named` is the setting `python`.
    pub(crate) fn find(named: Option<&str>) -> Result<Self> {
        let (program, source) = program(named);
        let output = query(&program).map_err(|error| {
            refused(format!(
                "cannot run the Python interpreter {}{source}: {error}",
                program.display()
            ))
        })?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let message = format!(
                "the Python interpreter {}{source} failed: {}",
                program.display(),
                output.status
            );
            return Err(refused(message).with_detail(stderr.trim_end()));
        }
        let found: Self = serde_json::from_slice(&output.stdout).map_err(|error| {
            refused(format!("{}{source} is not a Python interpreter", program.display()))
                .caused_by(&error)
        })?;
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        let (major, minor) = self.version;
        let name = self.executable.display();
        if self.implementation != "cpython" {
            return Err(refused(format!(
                "{name} is {}: only CPython can be embedded",
                self.implementation
            )));
        }
        if self.version < OLDEST {
            return Err(refused(format!(
                "{name} is Python {major}.{minor}: 3.9 or later is required"
            )));
        }
        if self.free_threaded {
            return Err(refused(format!(
                "{name} is a free-threaded build of Python {major}.{minor}, which is not supported: use the default build"
            )));
        }
        if self.library.is_none() {
            return Err(refused(format!(
                "{name} has no {}: it is linked statically; install its shared library, or build it with --enable-shared",
                self.library_name
            )));
        }
        Ok(())
    }
}

/// Runs `query.py` in the interpreter.
fn query(program: &Path) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(["-I", "-c", QUERY]);
    // SAFETY: the closure does nothing. It makes std use fork instead of posix_spawn(3), which in the C
    // library falls back from clone3 if that is missing (ENOSYS), but not if it is refused (EPERM).
    unsafe { command.pre_exec(|| Ok(())) };
    command.output()
}

/// Loads the library of an interpreter and starts it on this thread, with the prefix, the paths and the site
/// packages of its executable.
///
/// # Safety
/// Called once per process, before other threads that read the environment.
pub(crate) unsafe fn start(interpreter: &Interpreter) -> Result<()> {
    let path = interpreter.library.as_deref().unwrap_or(Path::new(&interpreter.library_name));
    let failed = |why: String| {
        let message = format!(
            "cannot load {} of {}: {why}",
            path.display(),
            interpreter.executable.display()
        );
        refused(message)
    };
    let library = Library::open(path).map_err(failed)?;
    // SAFETY: this function's contract is the same.
    unsafe { initialize(&library, || configure(interpreter, &library)) }.map_err(failed)
}

/// Sets the program name before the start. The library finds the virtual environment and everything else from the
/// path of its executable.
fn configure(interpreter: &Interpreter, library: &Library) {
    let name: Option<Vec<libc::wchar_t>> = wide(&interpreter.executable);
    // SAFETY: the type is that of the function in every version. It is looked up and not linked, because the
    // headers of 3.16 no longer declare it, while the library still exports it.
    let set = unsafe { library.function::<SetProgramName>("Py_SetProgramName") };
    if let (Some(name), Ok(set)) = (name, set) {
        // SAFETY: a zero-terminated string that is never freed, set before the start.
        unsafe { set(name.leak().as_ptr()) };
    }
    let wanted = env::var("PYTHONUTF8").map_or(interpreter.utf8, |value| value == "1");
    if wanted && let Ok(flag) = library.symbol("Py_UTF8Mode") {
        // SAFETY: an `int`, read when the interpreter starts. An embedded Python does not enable the UTF-8
        // mode in the C locale by itself, as the command does (PEP 540).
        unsafe { flag.cast::<libc::c_int>().write(1) };
    }
}

/// Returns the program to query, and where its name comes from, for messages.
fn program(named: Option<&str>) -> (PathBuf, &'static str) {
    if let Some(named) = named {
        let path = PathBuf::from(named);
        // The setting may also name the directory of a virtual environment.
        return if path.is_dir() {
            (path.join("bin/python"), " (setting `python`)")
        } else {
            (path, " (setting `python`)")
        };
    }
    match env::var_os("VIRTUAL_ENV").filter(|directory| !directory.is_empty()) {
        Some(directory) => (Path::new(&directory).join("bin/python"), " (from $VIRTUAL_ENV)"),
        None => (PathBuf::from("python3"), " (from PATH)"),
    }
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::LOAD, message)
}

/// Converts the path to CPython's type. A path that is not UTF-8 is left out: the interpreter then derives its
/// paths from its library.
fn wide(path: &Path) -> Option<Vec<libc::wchar_t>> {
    let text = path.to_str()?;
    CString::new(text).ok()?;
    Some(text.chars().map(|c| c as libc::wchar_t).chain([0]).collect())
}

/// Oldest version whose stable ABI has everything that is used here.
const OLDEST: (u32, u32) = (3, 9);

/// Program that prints an interpreter's properties.
const QUERY: &str = include_str!("query.py");
