//! Runs the server in the background: in its own session, without the terminal that started it.

use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::process;

/// Leaves the caller's session. Returns in a grandchild; the calling process exits with status 0. A log on
/// standard error is lost afterwards.
pub fn daemonize() -> nix::Result<()> {
    leave_parent()?;
    setsid()?;
    // No longer a session leader, so opening a terminal cannot make it the controlling terminal.
    leave_parent()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let null =
        null.map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    debug_assert!(null.as_raw_fd() > 2);
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

fn leave_parent() -> nix::Result<()> {
    match process::fork_with_signals_blocked()? {
        ForkResult::Parent { .. } => process::exit_now(0),
        ForkResult::Child => {
            process::unblock_signals();
            Ok(())
        }
    }
}
