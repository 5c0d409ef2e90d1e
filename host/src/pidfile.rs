//! The file with the arbiter's process ID: written atomically, never over the file of a running server, and
//! removed only while it contains this process's ID.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::Pid;

use crate::privileges::Identity;
use crate::safe_path::{SafePath, is_kind};

/// Why the pid file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// The file names a running process.
    #[error("already running as process {pid} (if that is another program, remove {})", path.display())]
    Running {
        /// The process.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the pid file {}: {reason}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
}

/// A pid file with this process's ID.
#[derive(Debug)]
pub struct Pidfile {
    /// Configured path.
    path: PathBuf,
    /// Current path.
    written: PathBuf,
    /// The workers' user, which may own the directory.
    user: Option<Identity>,
}

impl Pidfile {
    /// Writes the file, unless it names another running process.
    pub fn create(path: &Path, user: Option<Identity>) -> Result<Self, PidfileError> {
        let found = SafePath::resolve(path, user.as_ref()).ok().and_then(|path| read(&path));
        if let Some(pid) = found.filter(|&pid| is_running(pid)) {
            return Err(PidfileError::Running { pid, path: path.to_owned() });
        }
        Self::write(path, path.to_owned(), user)
    }

    /// Writes the file beside that of the predecessor: with the suffix `.2`, as gunicorn does.
    pub fn create_for_successor(path: &Path, user: Option<Identity>) -> Result<Self, PidfileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".2");
        Self::write(path, name.into(), user)
    }

    /// Renames a successor's file to the configured path.
    pub fn take_over(&mut self) -> Result<(), PidfileError> {
        let rename = || {
            let written = SafePath::resolve(&self.written, self.user.as_ref())?;
            let path = written.with_name(self.path.file_name().unwrap_or_default())?;
            written.rename_to(&path).map_err(|errno| written.explain(errno.into()))
        };
        rename().map_err(|reason| PidfileError::Unwritable { path: self.path.clone(), reason })?;
        self.written.clone_from(&self.path);
        Ok(())
    }

    /// Returns the configured path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(path: &Path, written: PathBuf, user: Option<Identity>) -> Result<Self, PidfileError> {
        let write = || {
            let written = SafePath::resolve(&written, user.as_ref())?;
            check_replaceable(&written)?;
            let temporary = written.temporary(16)?;
            let put = || {
                write_new(&temporary, &format!("{}\n", std::process::id()))?;
                temporary.rename_to(&written).inspect_err(|_| {
                    // The error of the rename is the one to report.
                    let _ = temporary.remove();
                })?;
                Ok(())
            };
            put().map_err(|error| written.explain(error))
        };
        write().map_err(|reason| PidfileError::Unwritable { path: written.clone(), reason })?;
        Ok(Self { path: path.to_owned(), written, user })
    }
}

/// Removes the file, if it still names this process.
impl Drop for Pidfile {
    fn drop(&mut self) {
        let Ok(written) = SafePath::resolve(&self.written, self.user.as_ref()) else { return };
        if read(&written) == Some(Pid::this().as_raw()) {
            // A file that has just been removed needs no removal.
            let _ = written.remove();
        }
    }
}

/// Fails for a device, a FIFO, a socket or a directory, which the rename would replace. A link is replaced, not
/// followed.
fn check_replaceable(path: &SafePath) -> io::Result<()> {
    match path.stat() {
        Ok(found) if !is_kind(&found, SFlag::S_IFREG) && !is_kind(&found, SFlag::S_IFLNK) => {
            Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists and is not a regular file; choose another path",
            ))
        }
        _ => Ok(()),
    }
}

/// Creates the file without following a link. Others may read it, whatever the umask, but not write it.
fn write_new(path: &SafePath, text: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut file = File::from(path.open(flags, Mode::from_bits_truncate(0o644))?);
    // On the descriptor, in case the umask removed the permission to read.
    file.set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(text.as_bytes()))
        .inspect_err(|_| {
            // The error of the write is the one to report.
            let _ = path.remove();
        })
}

/// Returns the process ID in a regular file. A FIFO in its place does not block, a link is not followed.
fn read(path: &SafePath) -> Option<i32> {
    let file = File::from(path.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|&pid| pid > 0)
}

fn is_running(pid: i32) -> bool {
    pid != Pid::this().as_raw()
        && !matches!(kill(Pid::from_raw(pid), None::<Signal>), Err(Errno::ESRCH))
}

/// Bound on bytes read from a pid file: more than any process ID has, white space included.
const PID_BYTES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_at(path: &Path) -> Option<i32> {
        read(&SafePath::resolve(path, None).ok()?)
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_replaced_and_its_target_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("secret");
        std::fs::write(&target, "secret").unwrap();
        std::fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        let path = directory.path().join("host.pid");
        let fixed = directory.path().join(format!("host.pid.{}", std::process::id()));
        for link in [&path, &fixed] {
            std::os::unix::fs::symlink(&target, link).unwrap();
        }
        let pidfile = Pidfile::create(&path, None).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "secret");
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!path.is_symlink());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        drop(pidfile);
        assert!(!path.exists());
        // An existing name is an error, even if it is a link to nowhere.
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink(directory.path().join("new"), &dangling).unwrap();
        assert!(write_new(&SafePath::resolve(&dangling, None).unwrap(), "1\n").is_err());
        assert!(!directory.path().join("new").exists());
    }

    #[test]
    fn a_fifo_in_the_place_of_the_file_neither_blocks_nor_disappears() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.pid");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = Pidfile::create(&path, None).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_of_a_server_that_runs_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert!(matches!(Pidfile::create(&path, None), Err(PidfileError::Running { pid: 1, .. })));
        assert_eq!(read_at(&path), Some(1));
    }

    #[test]
    fn a_stale_or_garbled_file_is_replaced_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.pid");
        for stale in ["999999999\n", "no number", ""] {
            std::fs::write(&path, stale).unwrap();
            let pidfile = Pidfile::create(&path, None).unwrap();
            assert_eq!(read_at(&path), Some(Pid::this().as_raw()));
            drop(pidfile);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_successor_takes_the_name_when_it_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.pid");
        std::fs::write(&path, "1\n").unwrap();
        let mut pidfile = Pidfile::create_for_successor(&path, None).unwrap();
        assert_eq!(read_at(&path), Some(1));
        pidfile.take_over().unwrap();
        assert_eq!(read_at(&path), Some(Pid::this().as_raw()));
        drop(pidfile);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
