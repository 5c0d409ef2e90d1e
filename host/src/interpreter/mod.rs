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
//! | `runtime` | the runtime, and the private copy that is loaded |
//! | `handover` | what the mold hands over |
//! | `bootstrap.py` | runs in the interpreter before the runtime |

mod handover;
mod program;
mod runtime;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::unistd::execv;

pub use handover::{Handover, HandoverError, Purpose};
pub use program::Program;
pub use runtime::{Runtime, RuntimeError};

use crate::message::Channel;
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
    /// The server's runtime for Python cannot be loaded.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The state of the mold cannot be handed over.
    #[error("cannot hand over to the Python interpreter: {0}")]
    Handover(#[from] HandoverError),
}

/// Replaces this process by the interpreter, in which what `hand_over` returns is resumed. Returns only if that fails.
pub fn execute(
    program: Program,
    settings: &Settings,
    command: Option<&Channel>,
    hand_over: impl FnOnce(&Runtime) -> Result<Handover, HandoverError>,
) -> ExecuteError {
    match prepare(&program, settings, command, hand_over) {
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
    _runtime: Runtime,
}

fn prepare(
    program: &Program,
    settings: &Settings,
    command: Option<&Channel>,
    hand_over: impl FnOnce(&Runtime) -> Result<Handover, HandoverError>,
) -> Result<Prepared, ExecuteError> {
    let path = program.path();
    let runtime = Runtime::of_server(settings)?;
    let state = hand_over(&runtime)?.write()?;
    let number = |number: RawFd| OsString::from(number.to_string());
    let command = command.map_or(-1, AsRawFd::as_raw_fd);
    let mut words: Vec<OsString> = vec![path.into()];
    words.extend(settings.python_options.words().iter().map(OsString::from));
    words.extend(["-c".into(), BOOTSTRAP.into()]);
    words.extend([number(state.as_raw_fd()), number(command), runtime.opened.clone().into()]);
    words.push(settings.program.clone());
    words.extend(settings.arguments.iter().cloned());
    let text = |word: &OsStr| {
        CString::new(word.as_bytes()).map_err(|_| HandoverError::Descriptor(Errno::EINVAL))
    };
    let arguments = words.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
    Ok(Prepared { program: text(path.as_os_str())?, arguments, _state: state, _runtime: runtime })
}

/// What runs in the interpreter first.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
