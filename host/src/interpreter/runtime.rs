//! The server's runtime for Python: the library beside the executable, and the private copy that an interpreter loads, so
//! that overwriting the file harms no process that runs it.

use std::fs::File;
use std::path::PathBuf;

use crate::plugin::{Draft, SealedCopy, SearchPath};
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
        let copied = File::open(&path).and_then(|mut file| Draft::new(&path, &mut file)?.seal());
        match copied.map(SealedCopy::into_parts) {
            Ok((copy, opened)) => Ok(Self { path, copy, opened }),
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

/// File name of the runtime.
const FILE: &str = "libjimu_runtime.so";
