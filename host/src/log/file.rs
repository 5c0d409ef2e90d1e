//! A log's file: lines are appended whole, and USR1 opens it anew.
//!
//! The descriptor's number stays the same for good: a reopened file is put in its place by dup3(2),
//! so that no lock is needed between those who write and the one who reopens.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::{OpenOptionsExt, fchown},
    },
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::errno::Errno;

use crate::settings::{LogTarget, Settings};

/// An open log file, or a standard stream.
#[derive(Debug)]
pub struct LogFile {
    descriptor: OwnedFd,
    /// Locked only by those who open the file anew, never by those who write.
    place: Mutex<Option<Place>>,
}

/// The file of a log that is not a stream.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    user: Option<u32>,
    group: Option<u32>,
}

impl LogFile {
    /// Opens the target of a log; `-` is a copy of `stream`, so that redirecting that later
    /// changes nothing. A file that is made belongs to the user that the settings name, since
    /// workers open it anew by themselves.
    pub fn open(
        target: &LogTarget,
        stream: BorrowedFd<'_>,
        settings: &Settings,
    ) -> io::Result<Self> {
        let (descriptor, place) = open_target(target, stream, settings)?;
        Ok(Self { descriptor, place: Mutex::new(place) })
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
        match &*self.place() {
            Some(place) => self.put(&place.open()?),
            None => Ok(()),
        }
    }

    /// Goes on with another target, as after a reload. Where it cannot be opened, the old one
    /// stays in use.
    pub fn change_to(
        &self,
        target: &LogTarget,
        stream: BorrowedFd<'_>,
        settings: &Settings,
    ) -> io::Result<()> {
        let (descriptor, place) = open_target(target, stream, settings)?;
        self.put(&descriptor)?;
        *self.place() = place;
        Ok(())
    }

    /// Puts the file behind standard output and standard error of this process.
    pub(super) fn capture_streams(&self) -> io::Result<()> {
        put_over(&self.descriptor, libc::STDOUT_FILENO, 0)?;
        put_over(&self.descriptor, libc::STDERR_FILENO, 0)
    }

    /// Whether this is a standard stream.
    pub(super) fn is_stream(&self) -> bool {
        self.place().is_none()
    }

    fn put(&self, from: &OwnedFd) -> io::Result<()> {
        put_over(from, self.descriptor.as_raw_fd(), libc::O_CLOEXEC)
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Place {
    /// A file that is made here is given away. One that is there keeps its owner: it may be behind
    /// a link that somebody else has put there.
    fn open(&self) -> io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        options.append(true).mode(LOG_MODE);
        let file = match options.clone().create_new(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                options.create(true).open(&self.path)?
            }
            made => {
                let file = made?;
                if self.user.is_some() || self.group.is_some() {
                    // Only root may do this; anybody else owns the file already.
                    let _ = fchown(&file, self.user, self.group);
                }
                file
            }
        };
        Ok(file.into())
    }
}

fn open_target(
    target: &LogTarget,
    stream: BorrowedFd<'_>,
    settings: &Settings,
) -> io::Result<(OwnedFd, Option<Place>)> {
    let path = match target {
        LogTarget::Stream => return Ok((stream.try_clone_to_owned()?, None)),
        LogTarget::File(path) => path.clone(),
    };
    let user = settings.user.as_ref().map(|user| user.uid);
    let group = settings.group.map(|group| group.0);
    let place = Place { path, user, group };
    Ok((place.open()?, Some(place)))
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
pub(super) mod tests {
    use std::{fs, io::stderr, os::unix::fs::MetadataExt, sync::Arc};

    use super::*;
    use crate::settings::Sources;

    pub(in crate::log) fn as_user(args: &[&str]) -> Arc<Settings> {
        let args = args.iter().map(Into::into).collect();
        let sources = Sources { args, directory: "/".into(), ..Sources::default() };
        sources.load().unwrap().0
    }

    #[test]
    fn a_file_belongs_to_the_user_that_workers_run_as() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = as_user(&["--user", "4711", "--group", "4712"]);
        let target = LogTarget::File(path.clone());
        let log = LogFile::open(&target, stderr().as_fd(), &settings).unwrap();
        for _ in 0..2 {
            let facts = fs::metadata(&path).unwrap();
            assert_eq!((facts.uid(), facts.gid()), (4711, 4712));
            fs::remove_file(&path).unwrap();
            log.reopen().unwrap();
        }
        let kept = folder.path().join("kept");
        fs::write(&kept, "").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        log.reopen().unwrap();
        assert_eq!(fs::metadata(&kept).unwrap().uid(), 0, "nothing behind a link is given away");
    }

    #[test]
    fn a_renamed_file_is_left_at_reopening_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log =
            LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd(), &as_user(&[])).unwrap();
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
        let log =
            LogFile::open(&LogTarget::File(paths[0].clone()), stderr().as_fd(), &as_user(&[]))
                .unwrap();
        log.append(b"one\n");
        log.change_to(&LogTarget::File(paths[1].clone()), stderr().as_fd(), &as_user(&[])).unwrap();
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
        let log =
            LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd(), &as_user(&[])).unwrap();
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
        assert!(!LogFile::open(&full, stderr().as_fd(), &as_user(&[])).unwrap().append(b"lost\n"));
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let closed = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[])).unwrap();
        assert!(!closed.append(b"lost\n"));
    }
}
