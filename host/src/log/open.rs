//! Opening a log's file.
//!
//! Root opens logs in directories that the workers' user may write to, and this user may put a link there that
//! leads to any file of the system. So the arbiter opens a log with the rights of the workers' user, who owns it.
//! Only if this user has no right to it, as to a new file in a directory that root owns, does root open it, and only
//! if no one but root can change a directory or a link on the path.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, geteuid};

use crate::privileges::Identity;
use crate::safe_path::{LINKS_MAX, parts};

/// A log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log {}: {reason}", path.display())]
pub struct OpenError {
    path: PathBuf,
    reason: String,
}

impl OpenError {
    pub(super) fn new(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Opens a log for appending. Never waits, not even for the reader of a FIFO. `owner` is the workers' user, if
/// the log is opened for it.
pub(super) fn open(path: &Path, owner: Option<&Identity>) -> Result<OwnedFd, OpenError> {
    let Some(owner) = owner.filter(|_| geteuid().is_root()) else {
        return open_plainly(path).map_err(|error| describe(path, &error));
    };
    match owner.with_file_access(|| open_plainly(path)) {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(describe(path, &error))
        }
        Ok(Err(_)) | Err(_) => open_as_root(path, owner),
    }
}

/// Returns the descriptor that a path names: `/dev/stdout`, `/proc/self/fd/3`, or a link to such a name. Opening
/// these creates another file description, which fails for a socket and for the pipe of another user. For an
/// `owner`, a link counts only if no one but root can change it: otherwise the owner chooses the descriptor.
pub(super) fn descriptor_of(path: &Path, owner: Option<&Identity>) -> Option<i32> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let name = path.to_str()?;
        match name {
            "/dev/stdout" => return Some(libc::STDOUT_FILENO),
            "/dev/stderr" => return Some(libc::STDERR_FILENO),
            _ => {}
        }
        let number = name.strip_prefix("/proc/self/fd/").or(name.strip_prefix("/dev/fd/"));
        if let Some(number) = number {
            return number.parse().ok();
        }
        let target = std::fs::read_link(&path).ok()?;
        let parent = path.parent()?;
        if let Some(owner) = owner {
            let parent = locate(parent, owner).ok()?;
            check_entry(&parent, std::fs::symlink_metadata(&path).ok().as_ref(), owner).ok()?;
        }
        path = parent.join(target);
    }
    None
}

/// Returns an open descriptor by its number.
pub(super) fn borrow_inherited(number: i32) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: fcntl takes any number, and changes nothing for this command.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the number is open, and it is either inherited from the parent or a standard stream: such
    // descriptors are owned by no object and are never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

fn open_plainly(path: &Path) -> io::Result<OwnedFd> {
    match appending().create(true).open(path) {
        Ok(file) if file.metadata()?.file_type().is_fifo() => {
            // A FIFO that is open for reading as well keeps its content until a reader comes, and
            // survives a change of readers.
            let both = OpenOptions::new().read(true).append(true).custom_flags(FLAGS).open(path);
            Ok(both.unwrap_or(file).into())
        }
        Ok(file) => Ok(file.into()),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            let both = OpenOptions::new().read(true).append(true).custom_flags(FLAGS).open(path);
            both.map(Into::into).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

fn open_as_root(path: &Path, owner: &Identity) -> Result<OwnedFd, OpenError> {
    let located = locate(path, owner).map_err(|reason| OpenError::new(path, &reason))?;
    let opened = match appending().create_new(true).open(&located) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => appending().open(&located),
        Ok(file) => give_away(&file, owner).map(|()| file),
        Err(error) => Err(error),
    };
    opened.map(Into::into).map_err(|error| describe(path, &error))
}

/// A file that root creates for the workers' user belongs to it: workers reopen it themselves at USR1.
fn give_away(file: &File, owner: &Identity) -> io::Result<()> {
    fchown(file, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
}

fn appending() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(LOG_MODE).custom_flags(FLAGS);
    options
}

/// Resolves a path, including links, as long as no one but root can change it: every directory on it, and so
/// every link, belongs to root.
fn locate(path: &Path, owner: &Identity) -> Result<PathBuf, String> {
    let mut left = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match std::fs::symlink_metadata(&next) {
            Ok(facts) => {
                let is_shared = check_entry(&at, Some(&facts), owner)?;
                if is_shared && facts.is_file() && facts.nlink() > 1 {
                    return Err(format!(
                        "user {} may not write to it, and root does not open a file with several hard links in {}, \
                         where other users may have created one; remove the file",
                        owner.uid,
                        at.display()
                    ));
                }
                if facts.is_symlink() {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::ELOOP.desc().to_owned());
                    }
                    let target = std::fs::read_link(&next).map_err(|error| error.to_string())?;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    left.extend(parts(&target));
                } else {
                    at = next;
                }
            }
            // A new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && left.is_empty() => {
                check_entry(&at, None, owner)?;
                at = next;
            }
            Err(error) => return Err(format!("{}: {error}", next.display())),
        }
    }
    Ok(at)
}

/// Checks that no one but root can replace an entry of a directory. If everyone may write to the directory but
/// not remove the files of others (`/tmp`), that holds for root's entries. Returns whether it is such a
/// directory.
fn check_entry(
    directory: &Path,
    entry: Option<&Metadata>,
    owner: &Identity,
) -> Result<bool, String> {
    let shown = directory.display();
    let facts = std::fs::metadata(directory).map_err(|error| format!("{shown}: {error}"))?;
    let is_among = |gid| gid == owner.gid.as_raw() || owner.groups.contains(&Gid::from_raw(gid));
    let mode = facts.mode();
    let others_write = mode & 0o002 != 0 || (mode & 0o020 != 0 && is_among(facts.gid()));
    let protected = mode & 0o1000 != 0 && entry.is_some_and(|entry| entry.uid() == 0);
    if facts.uid() == 0 && (!others_write || protected) {
        return Ok(others_write);
    }
    Err(format!(
        "user {} may not write to it, and root does not open a log through {shown}, which other users can change; \
         change the owner of the file to that user",
        owner.uid
    ))
}

fn describe(path: &Path, error: &io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::ENXIO) => OpenError::new(path, &"it is a FIFO without a reader, or a socket"),
        Some(libc::ENOENT) => {
            let parent = path.parent().unwrap_or(path).display();
            OpenError::new(path, &format!("directory {parent} does not exist"))
        }
        _ => OpenError::new(path, error),
    }
}

const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;
/// Only the owner writes to a log, whatever the umask.
const LOG_MODE: u32 = 0o644;
