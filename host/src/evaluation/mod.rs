//! Evaluates a settings file in Python, gunicorn's `gunicorn.conf.py`, in a separate process.
//!
//! ```text
//!     host (at start), arbiter (at a reload)             python, as the workers' user
//!     Evaluation::start ──fork──▶ drops privileges ──execve──▶ gunicorn_conf.py: runs the file
//!     Evaluation::receive ◀──────────── one line of JSON, on a pipe ────────┘
//! ```
//!
//! The file is code. Root does not run it if the workers have another user, or if it belongs to another user:
//! [`PythonFile::settings`] names the user. What the process writes is data: it is bounded in size and in time, and
//! becomes settings as the text of a file does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, getpid};

pub use crate::settings::gunicorn::Report;

use crate::interpreter::Program;
use crate::settings::gunicorn::known_names;
use crate::settings::{Action, ConfigName, Error, Loading, PythonFile, Settings, Sources};
use crate::{clock, limits, privileges, process};

/// Settings, and what to do with them.
pub type Loaded = (Arc<Settings>, Action);

/// A process that evaluates a file.
#[derive(Debug)]
pub struct Evaluation {
    file: Box<PythonFile>,
    pid: Pid,
    has_exited: bool,
    output: File,
    received: Vec<u8>,
    /// `None` without a limit.
    deadline_ns: Option<u64>,
}

/// Reads the settings, and waits for Python if it has to evaluate the file. For a process that serves nothing yet.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    match sources.begin()? {
        Loading::Done(settings, action) => Ok((settings, action)),
        Loading::Python(file) => Evaluation::start(file)?.wait(),
    }
}

/// Returns the arguments of an interpreter that evaluates the file and writes a [`Report`] to its standard output.
pub fn arguments(name: &ConfigName) -> Vec<OsString> {
    let (kind, name) = match name {
        ConfigName::Python(path) | ConfigName::Toml(path) => ("file", path.into()),
        ConfigName::Module(name, _) => ("module", name.into()),
    };
    let known = known_names().collect::<Vec<_>>().join(",");
    vec!["-c".into(), SCRIPT.into(), kind.into(), name, known.into()]
}

impl Evaluation {
    /// Starts the process.
    pub fn start(file: Box<PythonFile>) -> Result<Self, Error> {
        let failed = |file: &PythonFile, error: Errno| {
            file.problem(0, format!("cannot be evaluated: {}", limits::describe(error)))
        };
        let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (output, far) = pipe.map_err(|error| failed(&file, error))?;
        process::set_nonblocking(output.as_fd(), true).map_err(|error| failed(&file, error))?;
        let parent = getpid();
        match process::fork_with_signals_blocked().map_err(|error| failed(&file, error))? {
            ForkResult::Child => run(&file, parent, far),
            ForkResult::Parent { child } => {
                let limit = file.settings().boot_timeout;
                Ok(Self {
                    file,
                    pid: child,
                    has_exited: false,
                    output: output.into(),
                    received: Vec::new(),
                    deadline_ns: limit.map(|limit| clock::now_ns() + clock::duration_ns(limit)),
                })
            }
        }
    }

    /// Returns the process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Notes that the process has been reaped.
    pub fn set_exited(&mut self) {
        self.has_exited = true;
    }

    /// Returns the time at which [`Evaluation::receive`] reports that the time is over.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    /// Returns the settings once the process has written its report. Does not wait.
    pub fn receive(&mut self) -> Option<Result<Loaded, Error>> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.output.read(&mut bytes) {
                Ok(0) => return Some(self.finish()),
                Ok(n) => self.received.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Some(Err(self.refused(&error.to_string()))),
            }
            if self.received.last() == Some(&b'\n') {
                return Some(self.finish());
            }
            if self.received.len() > REPORT_MAX {
                let words = format!("its settings are longer than {} KiB", REPORT_MAX / 1024);
                return Some(Err(self.refused(&words)));
            }
        }
        let is_late = self.deadline_ns.is_some_and(|deadline_ns| clock::now_ns() >= deadline_ns);
        is_late.then(|| {
            let limit = self.file.settings().boot_timeout.unwrap_or_default();
            Err(self
                .refused(&format!("not evaluated within {} s (boot_timeout)", limit.as_secs_f32())))
        })
    }

    /// Waits for the settings.
    fn wait(mut self) -> Result<Loaded, Error> {
        loop {
            if let Some(result) = self.receive() {
                let _ = kill(self.pid, Signal::SIGKILL);
                // It is a child of this process: an error says that it has been reaped.
                let _ = process::reap(Some(self.pid), true);
                self.has_exited = true;
                return result;
            }
            let left_ms = self.deadline_ns.map(|deadline_ns| {
                deadline_ns.saturating_sub(clock::now_ns()).div_ceil(NANOS_PER_MILLI)
            });
            let timeout = left_ms.map_or(PollTimeout::NONE, |left_ms| {
                PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
            });
            // An error is that of a signal, and the descriptor's own is found by reading.
            let _ = poll(&mut [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    fn finish(&self) -> Result<Loaded, Error> {
        if self.received.is_empty() {
            return Err(self.refused("Python has ended without a result"));
        }
        match serde_json::from_slice(&self.received) {
            Ok(report) => self.file.finish(report),
            Err(error) => Err(self.refused(&format!("invalid report: {error}"))),
        }
    }

    fn refused(&self, reason: &str) -> Error {
        self.file.problem(0, reason).into()
    }
}

impl AsFd for Evaluation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl Drop for Evaluation {
    fn drop(&mut self) {
        if !self.has_exited {
            // It may have exited already; its process ID is not reused before the arbiter reaps it.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Main function of the process, from the fork to the execution of the interpreter, which inherits nothing of the
/// arbiter.
fn run(file: &PythonFile, parent: Pid, output: OwnedFd) -> ! {
    process::settle_signals();
    let reason = match prepare(file, parent) {
        Ok(program) => {
            let error = command(file, &program, &output).exec();
            format!("cannot run the Python interpreter {program}: {error}")
        }
        Err(reason) => reason,
    };
    let report = Report::Failed { file: PathBuf::new(), line: 0, reason };
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    // If the parent is gone, no process needs the report.
    let _ = File::from(output).write_all(&line);
    process::exit_now(1)
}

fn prepare(file: &PythonFile, parent: Pid) -> Result<Program, String> {
    let settings = file.settings();
    std::env::set_current_dir(&settings.start_directory)
        .map_err(|error| format!("cannot change to the start directory: {error}"))?;
    privileges::drop_to(settings).map_err(|error| error.to_string())?;
    // After the change of user, which makes the kernel clear this setting.
    if !process::tie_to_parent(parent, Signal::SIGKILL) {
        process::exit_now(0);
    }
    Ok(Program::find(settings))
}

fn command(file: &PythonFile, program: &Program, output: &OwnedFd) -> Command {
    let mut command = Command::new(program.path());
    command
        .args(file.settings().python_options.words())
        .args(arguments(file.name()))
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_or_else(|_| Stdio::null(), Stdio::from));
    command
}

/// What the interpreter runs.
const SCRIPT: &str = include_str!("gunicorn_conf.py");
/// Upper bound of a report. Settings take some KiB.
const REPORT_MAX: usize = 1 << 20;
const NANOS_PER_MILLI: u64 = 1_000_000;
