//! The server's runtime for Python: the library beside the executable, and the private copy that an interpreter loads, so
//! that overwriting the file harms no process that runs it.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::plugin::{Draft, NotALibrary, SearchPath, check_library, unfit_library};
use crate::settings::Settings;

/// The runtime that an interpreter loads, or has loaded.
#[derive(Debug)]
pub struct Runtime {
    /// The library's path.
    pub path: PathBuf,
    /// The copy.
    pub copy: File,
    /// The path by which the interpreter opens the copy: its descriptor's, or, without /proc, that of a private file.
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
    /// Finds the runtime of this server and copies it.
    pub fn of_server(settings: &Settings) -> Result<Self, RuntimeError> {
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

/// File name of the runtime.
const FILE: &str = "libjimu_runtime.so";
