//! A log's file: lines are appended whole, and USR1 opens it anew.
//!
//! The descriptor's number stays the same for good: a reopened file is put in its place by dup3(2),
//! so that no lock is needed between those who write and the one who reopens.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use crate::settings::LogTarget;

/// An open log file, or a standard stream.
#[derive(Debug)]
pub struct LogFile {
    descriptor: OwnedFd,
    path: Option<PathBuf>,
}

impl LogFile {
    /// Opens `target`; `-` is a copy of `stream`, so that redirecting that later changes nothing.
    pub fn open(target: &LogTarget, stream: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stream => Self { descriptor: stream.try_clone_to_owned()?, path: None },
            LogTarget::File(path) => {
                Self { descriptor: open_append(path)?, path: Some(path.clone()) }
            }
        })
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
        match &self.path {
            Some(path) => {
                put_over(&open_append(path)?, self.descriptor.as_raw_fd(), libc::O_CLOEXEC)
            }
            None => Ok(()),
        }
    }

    /// Puts the file behind standard output and standard error of this process.
    pub fn capture_streams(&self) -> io::Result<()> {
        put_over(&self.descriptor, libc::STDOUT_FILENO, 0)?;
        put_over(&self.descriptor, libc::STDERR_FILENO, 0)
    }

    /// The file's path; a stream has none.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn open_append(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().append(true).create(true).open(path)?.into())
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
