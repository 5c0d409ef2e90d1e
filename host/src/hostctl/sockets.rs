//! Finds the server to control if no control socket is named: the only one that runs.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Returns the control sockets in the default place on which a server listens. The second server of a user
/// appends its PID to the name, so there may be several.
pub(super) fn running(default: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (default.parent(), default.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let entry = entry.file_name();
            let rest = entry.to_str().and_then(|entry| entry.strip_prefix(&*name));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .map(|entry| entry.path())
        .filter(|path| UnixStream::connect(path).is_ok())
        .collect();
    found.sort();
    found
}
