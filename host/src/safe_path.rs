//! Safe use of paths by root in directories that other users may change.
//!
//! The workers' user may own the directory of the pid file or of a unix socket, and may replace any part of such
//! a path with a link. Root therefore opens the directory of a path component by component, and follows a link
//! only if no other user can change it. All further calls name an entry of the opened directory. A path that
//! leads through another user's link, as `current` of a Capistrano release does, is used with the privileges of
//! the workers' user: it reaches nothing that this user could not reach directly.
//!
//! `openat2(RESOLVE_NO_SYMLINKS)` does not help: it would also refuse root's own links (`/var/run`).

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::privileges::Identity;

/// A name in an open directory.
#[derive(Debug)]
pub struct SafePath {
    directory: OwnedFd,
    name: PathBuf,
    /// The path as it was given.
    path: PathBuf,
    rights: Rights,
}

/// The rights with which a path is used.
#[derive(Debug, Clone)]
enum Rights {
    /// Those of this process: it is not root, or only root can change the directories on the path.
    Own,
    /// Root's, although others can change a directory on the path.
    Exposed,
    /// Those of the workers' user, since root does not follow this link.
    Of(Identity, PathBuf),
}

impl SafePath {
    /// Opens the directory of `path`, which must exist. `user` is the workers' user, if it differs from this
    /// process's.
    pub fn resolve(path: &Path, user: Option<&Identity>) -> io::Result<Self> {
        let name = path.file_name().ok_or(Errno::EINVAL)?.into();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let (directory, rights) = if geteuid().is_root() {
            open_directory_as_root(parent, user)?
        } else {
            (open_directory(parent)?, Rights::Own)
        };
        Ok(Self { directory, name, path: path.to_owned(), rights })
    }

    /// Adds the reason to an error: root does not follow another user's link, and that user lacks the permission.
    pub fn explain(&self, error: io::Error) -> io::Error {
        match &self.rights {
            Rights::Of(user, link) if error.kind() == io::ErrorKind::PermissionDenied => {
                let words = format!(
                    "{} is a symbolic link in a directory that other users can write; not followed as root, and user \
                     {} has no permission: {error}",
                    link.display(),
                    user.uid
                );
                io::Error::new(io::ErrorKind::PermissionDenied, words)
            }
            _ => error,
        }
    }

    /// Returns another name in the same directory.
    pub fn with_name(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            name: name.into(),
            path: self.path.with_file_name(name),
            rights: self.rights.clone(),
        })
    }

    /// Returns this name with a random suffix of this number of hexadecimal digits: in a directory that others may
    /// write to, no other process can create it first.
    pub fn temporary(&self, digits: usize) -> io::Result<Self> {
        let random = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let mut name = self.name.clone().into_os_string();
        name.push(".");
        name.push(&random[..digits.min(random.len())]);
        self.with_name(&name)
    }

    /// Returns the path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's attributes; a link is not followed.
    pub fn stat(&self) -> nix::Result<FileStat> {
        self.act(|| fstatat(&self.directory, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW))
    }

    /// Returns device and inode of the file.
    pub fn identity(&self) -> nix::Result<(u64, u64)> {
        self.stat().map(|found| (found.st_dev, found.st_ino))
    }

    /// Opens the file, if it is not a link.
    pub fn open(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.act(|| openat(&self.directory, &self.name, flags, mode))
    }

    /// Removes a file.
    pub fn remove(&self) -> nix::Result<()> {
        self.act(|| unlinkat(&self.directory, &self.name, UnlinkatFlags::NoRemoveDir))
    }

    /// Removes the file if it has this device and inode. Returns whether it had.
    pub fn remove_if(&self, identity: (u64, u64)) -> nix::Result<bool> {
        if self.identity() != Ok(identity) {
            return Ok(false);
        }
        self.remove().map(|()| true)
    }

    /// Renames the file to another name in the same directory.
    pub fn rename_to(&self, other: &Self) -> nix::Result<()> {
        self.act(|| renameat(&self.directory, &self.name, &other.directory, &other.name))
    }

    /// Creates a directory.
    pub fn make_directory(&self, mode: Mode) -> nix::Result<()> {
        self.act(|| mkdirat(&self.directory, &self.name, mode))
    }

    /// Calls `bind` to create a socket at the path that it is given. If others can change a directory on the
    /// path, the path given leads through the opened directory instead, as far as `/proc` is there, and becomes
    /// the address of the socket. Fails if the path no longer leads to that directory.
    pub fn bind<T>(&self, bind: impl FnOnce(&Path) -> nix::Result<T>) -> nix::Result<T> {
        let Some(through) = self.path_through_directory() else {
            let bound = self.act(|| bind(&self.path))?;
            return if self.leads_here()? { Ok(bound) } else { Err(Errno::ENOTSOCK) };
        };
        let bound = bind(&through)?;
        if self.leads_here()? {
            return Ok(bound);
        }
        self.remove()?;
        Err(Errno::ENOTSOCK)
    }

    fn path_through_directory(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        let is_used = matches!(self.rights, Rights::Exposed) && directory.exists();
        is_used.then(|| directory.join(&self.name))
    }

    /// Returns whether the path leads to the opened directory, and the name there to a socket.
    fn leads_here(&self) -> nix::Result<bool> {
        let found = self.stat()?;
        let there = self.act(|| fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW));
        let is_same =
            there.is_ok_and(|there| (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino));
        Ok(is_same && is_kind(&found, SFlag::S_IFSOCK))
    }

    fn act<T>(&self, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
        match &self.rights {
            Rights::Of(user, _) => user.with_file_access(call)?,
            Rights::Own | Rights::Exposed => call(),
        }
    }
}

/// Opens a directory as root, or as the workers' user if root does not follow a link on the path.
fn open_directory_as_root(path: &Path, user: Option<&Identity>) -> io::Result<(OwnedFd, Rights)> {
    match (walk(path), user) {
        (Ok(Walked { found, is_stable: true, .. }), _) => Ok((found, Rights::Own)),
        (Ok(Walked { found, .. }), _) => Ok((found, Rights::Exposed)),
        (Err(Refused::Link(link)), Some(user)) => {
            match user.with_file_access(|| open_directory(path))? {
                Ok(directory) => Ok((directory, Rights::Of(user.clone(), link))),
                Err(_) => Err(Refused::Link(link).into()),
            }
        }
        (Err(refused), _) => Err(refused.into()),
    }
}

/// Returns whether a file is of this kind.
pub fn is_kind(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

/// Opens a file for reading that may be readable only for root: with the privileges of the workers' user if they
/// are sufficient, otherwise as root. Root follows no link that others can change, and reads no file that others
/// may have given a second name in their own directory (`fs.protected_hardlinks = 0`).
pub fn open_private(path: &Path, user: Option<&Identity>) -> io::Result<File> {
    let Some(user) = user.filter(|_| geteuid().is_root()) else { return File::open(path) };
    match user.with_file_access(|| File::open(path))? {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_as_root(path),
        result => result,
    }
}

fn open_as_root(path: &Path) -> io::Result<File> {
    let Walked { found, is_roots, entry, .. } = walk(path)?;
    let facts = fstat(&found)?;
    if !is_roots && is_kind(&facts, SFlag::S_IFREG) && facts.st_nlink > 1 {
        let words = "it has several hard links, so root does not read it for another user; \
                     copy it, or let that user read it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    let (directory, name) = entry.ok_or(Errno::EISDIR)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(&directory, &name, flags, Mode::empty())?;
    // Another file may have taken the name since.
    let opened = fstat(&file)?;
    if (opened.st_dev, opened.st_ino) != (facts.st_dev, facts.st_ino) {
        return Err(Errno::ESTALE.into());
    }
    Ok(file.into())
}

/// Why root does not use a path.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{} is a symbolic link in a directory that other users can write; not followed as root, use its target", .0.display())]
    Link(PathBuf),
    #[error(transparent)]
    System(#[from] Errno),
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::System(errno) => errno.into(),
            link @ Refused::Link(_) => Self::new(io::ErrorKind::PermissionDenied, link),
        }
    }
}

/// An opened path.
struct Walked {
    found: OwnedFd,
    /// Whether only root can replace it.
    is_roots: bool,
    /// Whether only root can replace it or a directory on the path.
    is_stable: bool,
    /// Its directory, and its name there.
    entry: Option<(OwnedFd, PathBuf)>,
}

/// Opens a path with `O_PATH`, following only links that no user but root can change.
fn walk(path: &Path) -> Result<Walked, Refused> {
    let root = || openat(AT_FDCWD, "/", PATH_FLAGS, Mode::empty());
    let mut at = if path.is_absolute() { root()? } else { open_directory(Path::new("."))? };
    let mut left = parts(path);
    let mut walked = PathBuf::new();
    let mut links = 0;
    let mut is_last_roots = true;
    let mut is_stable = true;
    let mut entry = None;
    while let Some(name) = left.pop() {
        let next = openat(&at, &name, PATH_FLAGS | OFlag::O_NOFOLLOW, Mode::empty())?;
        let found = fstat(&next)?;
        walked.push(&name);
        let is_safe = is_roots(&fstat(&at)?, &found);
        if !is_kind(&found, SFlag::S_IFLNK) {
            is_last_roots = is_safe;
            is_stable &= is_safe;
            entry = Some((std::mem::replace(&mut at, next), name));
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::ELOOP.into());
        }
        if fstatfs(&at).is_ok_and(|system| system.filesystem_type() == PROC_SUPER_MAGIC) {
            // Links in /proc are resolved by the kernel, and their texts are not paths.
            at = openat(&at, &name, PATH_FLAGS, Mode::empty())?;
            continue;
        }
        if !is_safe {
            let shown = if path.is_absolute() { Path::new("/").join(&walked) } else { walked };
            return Err(Refused::Link(shown));
        }
        let target = PathBuf::from(std::ffi::OsString::from_vec(
            readlinkat(&at, name.as_path())?.as_bytes().to_vec(),
        ));
        walked.pop();
        if target.is_absolute() {
            at = root()?;
            walked = PathBuf::new();
        }
        left.extend(parts(&target));
    }
    Ok(Walked { found: at, is_roots: is_last_roots, is_stable, entry })
}

/// Returns whether only root can replace an entry of a directory.
fn is_roots(directory: &FileStat, entry: &FileStat) -> bool {
    let mode = directory.st_mode;
    let others_write = mode & 0o002 != 0 || (mode & 0o020 != 0 && directory.st_gid != 0);
    let is_protected = mode & 0o1000 != 0 && entry.st_uid == 0;
    directory.st_uid == 0 && (!others_write || is_protected)
}

/// Returns the components of a path below its start, the last one first, for a walk that may follow links.
pub fn parts(path: &Path) -> Vec<PathBuf> {
    let named = |part: Component<'_>| match part {
        Component::Normal(_) | Component::ParentDir => Some(PathBuf::from(part.as_os_str())),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, PATH_FLAGS | OFlag::O_DIRECTORY, Mode::empty())
}

const PATH_FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
/// Maximum number of links on a path: the kernel's limit.
pub const LINKS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use nix::unistd::{Gid, Uid};

    use super::*;

    const USER: u32 = 4711;

    fn user() -> Identity {
        let gid = Gid::from_raw(USER);
        Identity { uid: Uid::from_raw(USER), gid, groups: vec![gid] }
    }

    /// Creates a directory of root that contains one of the user, and a secret file that only root may read.
    fn directories() -> Option<tempfile::TempDir> {
        if !geteuid().is_root() {
            return None;
        }
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(top.path().join("users")).unwrap();
        chown(top.path().join("users"), Some(USER), Some(USER)).unwrap();
        fs::create_dir(top.path().join("roots")).unwrap();
        fs::write(top.path().join("roots/secret"), "secret").unwrap();
        let secret = fs::Permissions::from_mode(0o600);
        fs::set_permissions(top.path().join("roots/secret"), secret).unwrap();
        Some(top)
    }

    fn create(path: &Path, user: Option<&Identity>) -> io::Result<()> {
        let path = SafePath::resolve(path, user)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        path.open(flags, Mode::S_IRUSR)?;
        Ok(())
    }

    #[test]
    fn root_creates_nothing_by_way_of_anothers_link() {
        let Some(top) = directories() else { return };
        let at = |name: &str| top.path().join(name);
        symlink(at("roots"), at("users/link")).unwrap();
        symlink("../users/link", at("roots/to-users")).unwrap();
        let user = user();
        for way in ["users/link/new", "roots/to-users/new", "users/../users/link/new"] {
            let error = create(&at(way), None).unwrap_err();
            assert!(error.to_string().contains("users/link is a symbolic link"), "{error}");
            // With the privileges of the user, who may not write there.
            let error = create(&at(way), Some(&user)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            let path = SafePath::resolve(&at(way).with_file_name("secret"), Some(&user)).unwrap();
            assert_eq!(path.remove(), Err(Errno::EACCES));
            let explained = path.explain(Errno::EACCES.into()).to_string();
            assert!(explained.contains("users/link is a symbolic link"), "{explained}");
            assert!(explained.contains("user 4711 has no permission"), "{explained}");
            let bound = path.bind(|path| {
                let listener = std::os::unix::net::UnixListener::bind(path.with_file_name("s"));
                listener.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
            });
            assert_eq!(bound.unwrap_err(), Errno::EACCES);
        }
        let names: Vec<_> = fs::read_dir(at("roots")).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_directory_that_is_exchanged_before_bind_gets_no_socket() {
        let Some(top) = directories() else { return };
        let at = |name: &str| top.path().join(name);
        let bind = |path: &Path| {
            let listener = std::os::unix::net::UnixListener::bind(path);
            listener.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
        };
        fs::create_dir(at("users/run")).unwrap();
        let path = SafePath::resolve(&at("users/run/socket"), Some(&user())).unwrap();
        drop(path.bind(bind).unwrap());
        path.remove().unwrap();
        let exchange = || {
            fs::rename(at("users/run"), at("users/old")).unwrap();
            symlink(at("roots"), at("users/run")).unwrap();
        };
        let bound = path.bind(|path| {
            exchange();
            bind(path)
        });
        assert_eq!(bound.unwrap_err(), Errno::ENOTSOCK);
        assert!(!at("roots/socket").exists());
        assert!(!at("users/old/socket").exists(), "it was removed");
    }

    #[test]
    fn a_link_to_the_users_own_directory_works_with_the_users_rights() {
        let Some(top) = directories() else { return };
        let at = |name: &str| top.path().join(name);
        fs::create_dir(at("users/release")).unwrap();
        chown(at("users/release"), Some(USER), Some(USER)).unwrap();
        symlink("release", at("users/current")).unwrap();
        let user = user();
        create(&at("users/current/new"), Some(&user)).unwrap();
        assert_eq!(fs::metadata(at("users/release/new")).unwrap().uid(), USER);
        let path = SafePath::resolve(&at("users/current/new"), Some(&user)).unwrap();
        assert_eq!(path.remove_if((0, 0)), Ok(false), "another file");
        assert_eq!(path.remove_if(path.identity().unwrap()), Ok(true));
    }

    #[test]
    fn root_follows_its_own_links() {
        let Some(top) = directories() else { return };
        let at = |name: &str| top.path().join(name);
        symlink("roots", at("run")).unwrap();
        create(&at("run/new"), None).unwrap();
        assert_eq!(fs::metadata(at("roots/new")).unwrap().uid(), 0);
        // In a directory that all users may write to, such as /tmp: only root's own links.
        fs::create_dir(at("shared")).unwrap();
        fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["roots", "theirs"] {
            symlink(at("roots"), at("shared").join(name)).unwrap();
        }
        std::os::unix::fs::lchown(at("shared/theirs"), Some(USER), Some(USER)).unwrap();
        create(&at("shared/roots/other"), None).unwrap();
        assert!(create(&at("shared/theirs/third"), None).is_err());
        assert!(!at("roots/third").exists());
    }

    #[test]
    fn no_secret_is_read_by_a_name_that_the_user_has_given_it() {
        let Some(top) = directories() else { return };
        let at = |name: &str| top.path().join(name);
        symlink(at("roots/secret"), at("users/link")).unwrap();
        fs::hard_link(at("roots/secret"), at("users/hard")).unwrap();
        symlink("secret", at("roots/link")).unwrap();
        let user = user();
        for (name, words) in [("users/link", "is a symbolic link"), ("users/hard", "hard links")] {
            let error = open_private(&at(name), Some(&user)).unwrap_err();
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
        let read = |name: &str| io::read_to_string(open_private(&at(name), Some(&user))?);
        for name in ["roots/secret", "roots/link"] {
            assert_eq!(read(name).unwrap(), "secret", "{name}");
        }
        // The user's own files, through the user's own links.
        fs::write(at("users/own"), "own").unwrap();
        chown(at("users/own"), Some(USER), Some(USER)).unwrap();
        fs::remove_file(at("users/link")).unwrap();
        symlink("own", at("users/link")).unwrap();
        assert_eq!(read("users/link").unwrap(), "own");
        assert_eq!(read("users/missing").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
