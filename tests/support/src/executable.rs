//! Copies of executables.

use std::path::Path;
use std::process::Command;

/// Copies an executable, so that it can be executed at once.
///
/// Another process copies it. If this one did, a child that another test forks at that time would inherit the file, open for
/// writing, and the kernel refuses to execute such a file (`ETXTBSY`).
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut command = Command::new("cp");
    command.arg("--").arg(from.as_ref()).arg(to.as_ref());
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
