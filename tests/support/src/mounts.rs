//! File systems that are hidden from a command and its descendants or replaced, in a private mount namespace.

use std::{
    ffi::{CStr, CString},
    io,
    os::unix::process::CommandExt,
    process::Command,
    ptr,
};

/// Change of a mount point.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing is mounted there.
    Unmount(&'static CStr),
    /// An empty, read-only directory is there.
    Cover(&'static CStr),
    /// Another file is there, the one with this path.
    Replace(&'static CStr, CString),
    /// A directory there has room for 128 KiB.
    Limit(CString),
    /// `/proc` shows each user only its own processes.
    HidePids,
}

/// Makes the changes for the command.
pub fn change(command: &mut Command, changes: impl AsRef<[Change]> + Send + Sync + 'static) {
    // SAFETY: the closure makes system calls on strings that it owns or that are static, and does not allocate.
    unsafe { command.pre_exec(move || apply(changes.as_ref())) };
}

/// Returns whether this process may do that to its children.
pub fn are_changeable() -> bool {
    are_possible([Change::HidePids])
}

/// Returns whether this process may make these changes for its children.
pub fn are_possible(changes: impl AsRef<[Change]> + Send + Sync + 'static) -> bool {
    let mut command = Command::new("true");
    change(&mut command, changes);
    command.status().is_ok_and(|status| status.success())
}

fn apply(changes: &[Change]) -> io::Result<()> {
    // SAFETY: unshare takes only flags.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    for change in changes {
        match change {
            Change::Unmount(path) => unmount(path)?,
            Change::Cover(path) => mount(c"none", path, c"tmpfs", libc::MS_RDONLY, c"")?,
            Change::Replace(path, file) => mount(file, path, c"", libc::MS_BIND, c"")?,
            Change::Limit(path) => mount(c"none", path, c"tmpfs", 0, c"size=128k")?,
            Change::HidePids => mount(c"proc", c"/proc", c"proc", 0, c"hidepid=2")?,
        }
    }
    Ok(())
}

fn unmount(path: &CStr) -> io::Result<()> {
    // SAFETY: umount2 reads a string that outlives the call.
    checked(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    let data = if data.is_empty() { ptr::null() } else { data.as_ptr() };
    // SAFETY: mount reads strings that outlive the call.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.cast())
    })
}

fn checked(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
