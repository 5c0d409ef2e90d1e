//! Which Python: found by its name, asked once what it is, started as itself.
//!
//! Nothing here knows what is done with it afterwards.

use std::env;
use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use worker_api::{Failure, FailureKind, Result};

use crate::library::Library;
use crate::python::{SetProgramName, initialize};

/// An interpreter, as it describes itself.
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
    /// Finds the interpreter and asks it: `named` is the setting `python`.
    pub(crate) fn find(named: Option<&str>) -> Result<Self> {
        let (program, source) = program(named);
        let output = ask(&program).map_err(|error| {
            refused(format!(
                "cannot run the Python interpreter {}{source}: {error}",
                program.display()
            ))
        })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let message = format!(
                "the Python interpreter {}{source} does not work: {}",
                program.display(),
                output.status
            );
            return Err(refused(message).with_detail(words.trim_end()));
        }
        let found: Self = serde_json::from_slice(&output.stdout).map_err(|error| {
            refused(format!("{}{source} does not answer as a Python does", program.display()))
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
                "{name} is Python {major}.{minor}: 3.9 or later is needed"
            )));
        }
        if self.free_threaded {
            return Err(refused(format!(
                "{name} is a free-threaded build of Python {major}.{minor}, which cannot be used yet: take the ordinary build"
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

/// Runs the interpreter with the question.
fn ask(program: &Path) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(["-I", "-c", QUESTION]);
    // SAFETY: the closure does nothing. It makes std fork: the C library's posix_spawn(3) does without clone3 where
    // that is missing (ENOSYS), but not where it is refused (EPERM).
    unsafe { command.pre_exec(|| Ok(())) };
    command.output()
}

/// Loads an interpreter's library and starts it, on this thread, as itself: with its prefix, its paths, its site.
///
/// # Safety
/// Called once in a process, before another thread runs that reads the environment.
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
    unsafe { initialize(&library, || introduce(interpreter, &library)) }.map_err(failed)
}

/// Tells the library who it is, before it starts. It finds the virtual environment and everything else from the
/// path of its executable.
fn introduce(interpreter: &Interpreter, library: &Library) {
    let name: Option<Vec<libc::wchar_t>> = wide(&interpreter.executable);
    // SAFETY: the type is that of the function in every version; it is looked up and not linked because the
    // headers of 3.16 have lost it, while the library keeps it.
    let set = unsafe { library.function::<SetProgramName>("Py_SetProgramName") };
    if let (Some(name), Ok(set)) = (name, set) {
        // SAFETY: a string that ends with a zero and is never freed, before the start.
        unsafe { set(name.leak().as_ptr()) };
    }
    let wanted = env::var("PYTHONUTF8").map_or(interpreter.utf8, |value| value == "1");
    if wanted && let Ok(flag) = library.symbol("Py_UTF8Mode") {
        // SAFETY: an `int`, read when the interpreter starts. An embedded Python does not switch to UTF-8 in the C
        // locale by itself, as the command does (PEP 540).
        unsafe { flag.cast::<libc::c_int>().write(1) };
    }
}

/// The program to ask, and the words that say where it comes from.
fn program(named: Option<&str>) -> (PathBuf, &'static str) {
    if let Some(named) = named {
        let path = PathBuf::from(named);
        // The directory of a virtual environment will do, too.
        return if path.is_dir() {
            (path.join("bin/python"), " (setting `python`)")
        } else {
            (path, " (setting `python`)")
        };
    }
    match env::var_os("VIRTUAL_ENV").filter(|directory| !directory.is_empty()) {
        Some(directory) => (Path::new(&directory).join("bin/python"), " (of $VIRTUAL_ENV)"),
        None => (PathBuf::from("python3"), " (from PATH)"),
    }
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::LOAD, message)
}

/// The path as CPython takes it. A path that is not UTF-8 is left out: the interpreter then finds itself by its library.
fn wide(path: &Path) -> Option<Vec<libc::wchar_t>> {
    let text = path.to_str()?;
    CString::new(text).ok()?;
    Some(text.chars().map(|c| c as libc::wchar_t).chain([0]).collect())
}

/// The oldest version whose stable ABI has what is used here.
const OLDEST: (u32, u32) = (3, 9);

/// What the interpreter is asked.
const QUESTION: &str = include_str!("question.py");
