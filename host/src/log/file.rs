//! A log's file: lines are appended whole, and USR1 opens it anew.
//!
//! The descriptor's number stays the same for good: a reopened file is put in its place by dup3(2),
//! so that no lock is needed between those who write and the one who reopens.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::errno::Errno;

use crate::settings::LogTarget;

/// An open log file, or a standard stream.
#[derive(Debug)]
pub struct LogFile {
    descriptor: OwnedFd,
    /// Locked only by those who open the file anew, never by those who write.
    path: Mutex<Option<PathBuf>>,
}

impl LogFile {
    /// Opens `target`; `-` is a copy of `stream`, so that redirecting that later changes nothing.
    pub fn open(target: &LogTarget, stream: BorrowedFd<'_>) -> io::Result<Self> {
        let (descriptor, path) = open_target(target, stream)?;
        Ok(Self { descriptor, path: Mutex::new(path) })
    }

    /// Appends whole lines by one write(2). Says whether all was written; nothing is ever raised,
    /// since a full disk or a closed pipe must not disturb the service.
    pub fn append(&self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while !rest.is_empty() {
            match nix::unistd::write(&self.descriptor, rest) {
                // A pipe or a full disk may take a part: go on with the rest of the lines.
                Ok(written @ 1..) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }

    /// Opens the file anew, as log rotation wants it; a stream stays what it is. Where the file
    /// cannot be opened, the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        match &*self.path() {
            Some(path) => self.put(&open_append(path)?),
            None => Ok(()),
        }
    }

    /// Goes on with another target, as after a reload. Where it cannot be opened, the old one
    /// stays in use.
    pub fn change_to(&self, target: &LogTarget, stream: BorrowedFd<'_>) -> io::Result<()> {
        let (descriptor, path) = open_target(target, stream)?;
        self.put(&descriptor)?;
        *self.path() = path;
        Ok(())
    }

    /// Puts the file behind standard output and standard error of this process.
    pub(super) fn capture_streams(&self) -> io::Result<()> {
        put_over(&self.descriptor, libc::STDOUT_FILENO, 0)?;
        put_over(&self.descriptor, libc::STDERR_FILENO, 0)
    }

    /// Whether this is a standard stream.
    pub(super) fn is_stream(&self) -> bool {
        self.path().is_none()
    }

    fn put(&self, from: &OwnedFd) -> io::Result<()> {
        put_over(from, self.descriptor.as_raw_fd(), libc::O_CLOEXEC)
    }

    fn path(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn open_target(
    target: &LogTarget,
    stream: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Option<PathBuf>)> {
    Ok(match target {
        LogTarget::Stream => (stream.try_clone_to_owned()?, None),
        LogTarget::File(path) => (open_append(path)?, Some(path.clone())),
    })
}

fn open_append(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().append(true).create(true).mode(LOG_MODE).open(path)?.into())
}

/// Makes `number` mean the file behind `from`.
fn put_over(from: &OwnedFd, number: RawFd, flags: i32) -> io::Result<()> {
    if from.as_raw_fd() == number {
        return Ok(());
    }
    // SAFETY: the call takes numbers only. `number` is this log's own descriptor or a standard
    // stream, whose owners expect another file behind it.
    Errno::result(unsafe { libc::dup3(from.as_raw_fd(), number, flags) })?;
    Ok(())
}

/// Nobody but the owner writes to a log, whatever the umask.
const LOG_MODE: u32 = 0o644;

#[cfg(test)]
mod tests {
    use std::{fs, io::stderr};

    use super::*;

    #[test]
    fn a_renamed_file_is_left_at_reopening_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd()).unwrap();
        assert!(log.append(b"one\n"));
        let rotated = folder.path().join("log.1");
        fs::rename(&path, &rotated).unwrap();
        assert!(log.append(b"two\n"));
        log.reopen().unwrap();
        assert!(log.append(b"three\n"));
        assert_eq!(fs::read_to_string(rotated).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn a_changed_target_is_opened_anew_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        let log = LogFile::open(&LogTarget::File(paths[0].clone()), stderr().as_fd()).unwrap();
        log.append(b"one\n");
        log.change_to(&LogTarget::File(paths[1].clone()), stderr().as_fd()).unwrap();
        log.append(b"two\n");
        fs::remove_file(&paths[1]).unwrap();
        log.reopen().unwrap();
        log.append(b"three\n");
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/log");
        fs::create_dir(folder.path().join("sub")).unwrap();
        let log = LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd()).unwrap();
        let kept = folder.path().join("kept");
        fs::rename(&path, &kept).unwrap();
        fs::remove_dir(folder.path().join("sub")).unwrap();
        assert!(log.reopen().is_err());
        assert!(log.append(b"still here\n"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "still here\n");
    }

    #[test]
    fn a_full_disk_and_a_closed_pipe_are_only_reported() {
        let full = LogTarget::File("/dev/full".into());
        assert!(!LogFile::open(&full, stderr().as_fd()).unwrap().append(b"lost\n"));
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let closed = LogFile::open(&LogTarget::Stream, writer.as_fd()).unwrap();
        assert!(!closed.append(b"lost\n"));
    }
}
