//! The server's runtime for Python. An installed server's executable is the runtime, too, and is loaded from the file that
//! this process runs. For other executables it is a library beside them, of which a private copy is loaded, so that
//! overwriting the file harms no process that runs it.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use libloading::os::unix::Library;

use crate::plugin::{
    Draft, NotALibrary, SearchPath, check_library, descriptor_path, unfit_library,
};
use crate::settings::Settings;

/// The runtime that an interpreter loads, or has loaded.
#[derive(Debug)]
pub struct Runtime {
    /// The library's path.
    pub path: PathBuf,
    /// The file that is loaded: the executable that runs, or a copy.
    pub copy: File,
    /// The path by which the interpreter opens it: its descriptor's, or, without /proc, that of a private file.
    pub opened: PathBuf,
}

/// Why the runtime cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It is not beside the executable.
    #[error(
        "the server's runtime for Python, {FILE}, is not in {directories}; install it beside the executable"
    )]
    Absent {
        /// The directories that were searched.
        directories: String,
    },
    /// It is no library of this machine, or is incomplete.
    #[error("the server's runtime for Python, {}, is {}", .path.display(), unfit_library(.reason))]
    NotALibrary {
        /// Its path.
        path: PathBuf,
        /// What it is instead.
        reason: NotALibrary,
    },
    /// It cannot be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        reason: std::io::Error,
    },
}

impl Runtime {
    /// Finds the runtime of this server.
    pub fn of_server(settings: &Settings) -> Result<Self, RuntimeError> {
        if is_in_program() {
            return Self::of_program();
        }
        let search = SearchPath::of_server(&settings.program, &settings.start_directory);
        let path = search.file(FILE).ok_or_else(|| {
            let shown = search.directories().iter().map(|path| path.display().to_string());
            RuntimeError::Absent { directories: shown.collect::<Vec<_>>().join(", ") }
        })?;
        match checked_copy(&path) {
            Ok(Ok((copy, opened))) => Ok(Self { path, copy, opened }),
            Ok(Err(reason)) => Err(RuntimeError::NotALibrary { path, reason }),
            Err(reason) => Err(RuntimeError::Unreadable { path, reason }),
        }
    }

    /// Returns the executable that this process runs. It needs no copy: the kernel refuses to write to a file that is
    /// executed, and the arbiter, without which no mold lives, executes it.
    fn of_program() -> Result<Self, RuntimeError> {
        let path = std::env::current_exe().unwrap_or_else(|_| PROGRAM.into());
        match File::open(PROGRAM) {
            Ok(copy) => Ok(Self { path, opened: descriptor_path(copy.as_raw_fd()), copy }),
            Err(reason) => Err(RuntimeError::Unreadable { path, reason }),
        }
    }

    /// Removes the private file in the interpreter that has loaded it.
    pub(super) fn hide(&self) {
        if !self.opened.starts_with("/proc") {
            // An error leaves an unused file behind.
            let _ = std::fs::remove_file(&self.opened);
            let _ = self.opened.parent().map(std::fs::remove_dir);
        }
    }
}

/// Copies the file, and checks the copy: the file may still be growing.
fn checked_copy(path: &Path) -> std::io::Result<Result<(File, PathBuf), NotALibrary>> {
    let copy = Draft::new(path, &mut File::open(path)?)?;
    Ok(match check_library(copy.file())? {
        Ok(()) => Ok(copy.seal()?.into_parts()),
        Err(reason) => Err(reason),
    })
}

/// Returns whether the executable of this process exports the extension module.
fn is_in_program() -> bool {
    // SAFETY: only the address of the symbol is of interest.
    unsafe { Library::this().get::<*const c_void>(MODULE) }.is_ok()
}

/// Symbol by which an interpreter initializes the module.
const MODULE: &[u8] = b"PyInit__jimu_runtime";
/// The executable of this process, also after it was replaced on the disk.
const PROGRAM: &str = "/proc/self/exe";
/// File name of the runtime that is a library.
const FILE: &str = "libjimu_runtime.so";
