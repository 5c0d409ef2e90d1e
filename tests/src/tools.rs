//! Programs of this machine that some tests need.

use std::ffi::OsStr;
use std::process::Command;

/// Returns whether a program exists, and succeeds with these arguments.
pub fn works(program: impl AsRef<OsStr>, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Returns whether a program exists, and prints its version.
pub fn has(program: &str) -> bool {
    works(program, &["--version"])
}
