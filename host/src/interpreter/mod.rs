//! The mold of a Python application is the user's own interpreter: the mold executes it, and it loads the server's
//! runtime, this crate as an extension module, and continues as the mold.
//!
//! ```text
//!     host (mold)                                  python
//!     settings, log, directory, privileges
//!     Handover ──▶ unnamed file ──inherited──▶ bootstrap.py: version, `sys.argv`, imports the runtime
//!     execve ─────────────────────────────────▶ resume(): adopts descriptors, loads the payload, forks workers
//! ```
//!
//! So the interpreter may be linked statically, finds its packages and reads its variables by itself, and is to
//! debuggers and profilers what they expect.
//!
//! | module | purpose |
//! | --- | --- |
//! | `program` | which interpreter to execute |
//! | `handover` | what the mold hands over |
//! | `bootstrap.py` | runs in the interpreter before the runtime |

mod handover;
mod program;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::execv;

pub use handover::{Handover, HandoverError, Purpose};
pub use program::Program;

use crate::message::Channel;
use crate::plugin::SealedCopy;
use crate::process;
use crate::settings::Settings;

/// Why the interpreter could not be executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The program cannot be executed.
    #[error("cannot run the Python interpreter {program}: {}", .reason.desc())]
    Program {
        /// The program, and where its name comes from.
        program: Program,
        /// The system's error.
        reason: Errno,
    },
    /// The runtime is not beside the executable.
    #[error(
        "the server's runtime for Python, {RUNTIME}, is not in {directories}; install it beside the executable"
    )]
    NoRuntime {
        /// The directories that were searched.
        directories: String,
    },
    /// The runtime cannot be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Runtime {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        reason: std::io::Error,
    },
    /// The state of the mold cannot be handed over.
    #[error("cannot hand over to the Python interpreter: {0}")]
    Handover(#[from] HandoverError),
}

/// Replaces this process by the interpreter, in which `handover` is resumed. Returns only if that fails.
pub fn execute(
    program: Program,
    settings: &Settings,
    handover: &Handover,
    command: Option<&Channel>,
) -> ExecuteError {
    match prepare(&program, settings, handover, command) {
        Ok(prepared) => {
            process::block_arbiters_signals();
            let Err(reason) = execv(&prepared.program, &prepared.arguments);
            ExecuteError::Program { program, reason }
        }
        Err(error) => error,
    }
}

/// Arguments of execve(2), and what the program inherits.
struct Prepared {
    program: CString,
    arguments: Vec<CString>,
    _state: File,
    _runtime: SealedCopy,
}

fn prepare(
    program: &Program,
    settings: &Settings,
    handover: &Handover,
    command: Option<&Channel>,
) -> Result<Prepared, ExecuteError> {
    let path = program.path();
    let runtime = open_runtime(settings)?;
    let kept = |descriptor| process::keep_over_exec(descriptor).map_err(HandoverError::Descriptor);
    kept(runtime.file().as_fd())?;
    let state = handover.write()?;
    let number = |number: RawFd| OsString::from(number.to_string());
    let command = command.map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
    let mut words: Vec<OsString> = vec![path.into()];
    words.extend(settings.python_options.words().iter().map(OsString::from));
    words.extend(["-c".into(), BOOTSTRAP.into()]);
    words.extend([number(state.as_raw_fd()), number(command), runtime.path().into()]);
    words.push(settings.program.clone());
    words.extend(settings.arguments.iter().cloned());
    let text = |word: &OsStr| {
        CString::new(word.as_bytes()).map_err(|_| HandoverError::Descriptor(Errno::EINVAL))
    };
    let arguments = words.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
    Ok(Prepared { program: text(path.as_os_str())?, arguments, _state: state, _runtime: runtime })
}

/// Opens a private copy of the runtime, so that overwriting the file harms no process that runs it.
fn open_runtime(settings: &Settings) -> Result<SealedCopy, ExecuteError> {
    let search = crate::plugin::SearchPath::of_server(&settings.program, &settings.start_directory);
    let path = search.file(RUNTIME).ok_or_else(|| {
        let shown = search.directories().iter().map(|path| path.display().to_string());
        ExecuteError::NoRuntime { directories: shown.collect::<Vec<_>>().join(", ") }
    })?;
    copy(&path).map_err(|reason| ExecuteError::Runtime { path, reason })
}

fn copy(path: &Path) -> std::io::Result<SealedCopy> {
    crate::plugin::Draft::new(path, &mut File::open(path)?)?.seal()
}

/// What runs in the interpreter first.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
/// File name of the runtime.
const RUNTIME: &str = "libjimu_runtime.so";
