//! The file that names the arbiter's process: written whole, never over the file of a server that
//! runs, removed only while it names this process.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// It names a process that runs.
    #[error("already running as process {pid} (if that is another program, remove {})", path.display())]
    Running {
        /// The process.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the pid file {}: {reason}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// A pid file that names this process.
#[derive(Debug)]
pub struct Pidfile {
    /// Where it shall be.
    path: PathBuf,
    /// Where it is.
    written: PathBuf,
}

impl Pidfile {
    /// Writes the file, unless it names another process that runs.
    pub fn create(path: &Path) -> Result<Self, PidfileError> {
        if let Some(pid) = read(path).filter(|&pid| is_running(pid)) {
            return Err(PidfileError::Running { pid, path: path.to_owned() });
        }
        Self::write(path, path.to_owned())
    }

    /// Writes the file beside that of the arbiter that this one follows: with `.2` at its end, as
    /// gunicorn does.
    pub fn create_for_successor(path: &Path) -> Result<Self, PidfileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".2");
        Self::write(path, name.into())
    }

    /// Puts a successor's file where the old arbiter's was.
    pub fn take_over(&mut self) -> Result<(), PidfileError> {
        std::fs::rename(&self.written, &self.path)
            .map_err(|reason| PidfileError::Unwritable { path: self.path.clone(), reason })?;
        self.written.clone_from(&self.path);
        Ok(())
    }

    /// Where it is, or will be when the predecessor has gone.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if it still names this process.
    pub fn remove(self) {
        if read(&self.written) == Some(std::process::id() as i32) {
            // A file that somebody else removed meanwhile is not missed.
            let _ = std::fs::remove_file(&self.written);
        }
    }

    fn write(path: &Path, written: PathBuf) -> Result<Self, PidfileError> {
        let mut name = written.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(name);
        write_new(&temporary, &format!("{}\n", std::process::id()))
            .and_then(|()| std::fs::rename(&temporary, &written))
            .map_err(|reason| PidfileError::Unwritable { path: written.clone(), reason })?;
        Ok(Self { path: path.to_owned(), written })
    }
}

/// Others may read the file, whatever the umask, but not write it.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}

fn read(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|&pid| pid > 0)
}

fn is_running(pid: i32) -> bool {
    pid != std::process::id() as i32
        && !matches!(kill(Pid::from_raw(pid), None::<Signal>), Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_server_that_runs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert!(matches!(Pidfile::create(&path), Err(PidfileError::Running { pid: 1, .. })));
        assert_eq!(read(&path), Some(1));
    }

    #[test]
    fn a_stale_or_garbled_file_is_replaced_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.pid");
        for stale in ["999999999\n", "no number", ""] {
            std::fs::write(&path, stale).unwrap();
            let pidfile = Pidfile::create(&path).unwrap();
            assert_eq!(read(&path), Some(std::process::id() as i32));
            pidfile.remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_successor_takes_the_name_when_it_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.pid");
        std::fs::write(&path, "1\n").unwrap();
        let mut pidfile = Pidfile::create_for_successor(&path).unwrap();
        assert_eq!(read(&path), Some(1));
        pidfile.take_over().unwrap();
        assert_eq!(read(&path), Some(std::process::id() as i32));
        pidfile.remove();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
