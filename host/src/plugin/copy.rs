//! The private copy from which a library is loaded: overwriting or truncating the file later changes nothing in
//! the processes that run it.
//!
//! The copy is a sealed memfd. Where the system refuses memfds, or `/proc` is absent and a memfd has no path, it
//! is a read-only file in a private directory that has no name once the library is loaded.
//!
//! Until it is sealed it is a [`Draft`], in which names of libraries can be replaced.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::memfd::{MFdFlags, memfd_create, temporary_directories};

/// A copy that can still be changed.
#[derive(Debug)]
pub struct Draft {
    copy: SealedCopy,
    writer: File,
    is_in_memory: bool,
}

/// A copy of a file that nothing changes any more.
#[derive(Debug)]
pub struct SealedCopy {
    file: File,
    /// The directory and file that exist until the copy is loaded, if a descriptor has no path.
    named: Option<PrivateFile>,
}

impl Draft {
    /// Copies the rest of `source`. `origin` names the copy in `/proc/PID/maps`.
    pub fn new(origin: &Path, source: &mut File) -> io::Result<Self> {
        let refused = match create_in_memory(origin) {
            Ok(mut file) if has_path(&file) => {
                io::copy(source, &mut file)?;
                let writer = file.try_clone()?;
                let copy = SealedCopy { file, named: None };
                return Ok(Self { copy, writer, is_in_memory: true });
            }
            Ok(_) => "/proc is not mounted".to_owned(),
            Err(error) => format!("memfd_create: {error}"),
        };
        Self::on_disk(source)
            .map_err(|error| io::Error::new(error.kind(), format!("{refused}; {error}")))
    }

    /// Copies the rest of `source` into a new file that only this user can open.
    fn on_disk(source: &mut File) -> io::Result<Self> {
        let (named, mut writer) = PrivateFile::create()?;
        let file = File::open(named.path())?;
        io::copy(source, &mut writer)?;
        let named = Some(named).filter(|_| !has_path(&file));
        Ok(Self { copy: SealedCopy { file, named }, writer, is_in_memory: false })
    }

    /// Returns the content of the copy.
    pub fn file(&self) -> &File {
        self.copy.file()
    }

    /// The file by which the content can be changed.
    pub fn writer(&self) -> &File {
        &self.writer
    }

    /// The path that the sealed copy has.
    pub fn path(&self) -> PathBuf {
        self.copy.path()
    }

    /// Makes the copy final.
    ///
    /// The kernel refuses to seal pages that it still uses itself (it moves them, for example). A copy for which that does
    /// not end is left unsealed: unlike the original, only this server's processes can reach it.
    pub fn seal(self) -> io::Result<SealedCopy> {
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        for _ in 0..if self.is_in_memory { SEAL_TRIES } else { 0 } {
            match fcntl(&self.writer, FcntlArg::F_ADD_SEALS(seals)) {
                // The call has waited for a fraction of a second.
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        Ok(self.copy)
    }
}

impl SealedCopy {
    /// The copy's content.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the path by which this process can open the copy. It names the same file in other processes.
    pub fn path(&self) -> PathBuf {
        let named = self.named.as_ref().map(PrivateFile::path);
        named.unwrap_or_else(|| descriptor_path(self.file.as_raw_fd()))
    }

    /// Returns the copy and its path, whose file is not removed.
    pub fn into_parts(self) -> (File, PathBuf) {
        let path = self.path();
        std::mem::forget(self.named);
        (self.file, path)
    }

    /// Keeps the copy for the rest of the process's life, without a name in any directory.
    pub fn keep(self) {
        // Backtraces read the copy by the descriptor's path.
        std::mem::forget(self.file);
    }
}

/// Returns the path of a descriptor of this process, which is valid in other processes, too: in its directory in /proc,
/// by its number there, which differs from `getpid` if /proc belongs to another PID namespace.
pub(crate) fn descriptor_path(descriptor: RawFd) -> PathBuf {
    let number = std::fs::read_link("/proc/self").unwrap_or_else(|_| "self".into());
    Path::new("/proc").join(number).join(format!("fd/{descriptor}"))
}

/// Creates an empty memfd whose pages may be executed.
fn create_in_memory(origin: &Path) -> io::Result<File> {
    let name = origin.file_name().unwrap_or_default().to_string_lossy();
    let name = CString::new(name.chars().take(NAME_MAX).collect::<String>())?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = flags | MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let descriptor = match memfd_create(name.as_c_str(), executable) {
        // Before Linux 6.3 the flag is unknown, and every memfd is executable.
        Err(Errno::EINVAL) => memfd_create(name.as_c_str(), flags)?,
        result => result?,
    };
    Ok(File::from(descriptor))
}

/// A file in a new directory that only this user may enter. Dropping it removes both; open descriptors keep the
/// content.
#[derive(Debug)]
struct PrivateFile {
    directory: PathBuf,
}

impl PrivateFile {
    /// Creates it in the first directory for temporary files that permits it and from which code may be
    /// executed.
    fn create() -> io::Result<(Self, File)> {
        let name = format!("jimu-{:016x}", RandomState::new().hash_one(std::process::id()));
        let mut refused = Vec::new();
        for parent in temporary_directories() {
            match Self::create_in(&parent, &name) {
                Ok(created) => return Ok(created),
                Err(error) => refused.push(format!("{}: {error}", parent.display())),
            }
        }
        Err(io::Error::other(refused.join("; ")))
    }

    fn create_in(parent: &Path, name: &str) -> io::Result<(Self, File)> {
        if statvfs(parent)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "mounted noexec"));
        }
        let directory = parent.join(name);
        // This fails if anyone else has created the name before.
        DirBuilder::new().mode(0o700).create(&directory)?;
        let this = Self { directory };
        let writer =
            OpenOptions::new().write(true).create_new(true).mode(0o500).open(this.path())?;
        Ok((this, writer))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("library.so")
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // An error leaves an unused file behind.
        let _ = std::fs::remove_file(self.path());
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Returns whether the file can be opened by its descriptor's path.
fn has_path(file: &File) -> bool {
    let facts = (std::fs::metadata(descriptor_path(file.as_raw_fd())), file.metadata());
    matches!(facts, (Ok(found), Ok(own)) if (found.dev(), found.ino()) == (own.dev(), own.ino()))
}

/// `memfd_create(2)` takes 249 bytes; a character of UTF-8 has up to four.
const NAME_MAX: usize = 60;

/// How often sealing is tried.
const SEAL_TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    fn copy_of(name: &Path, bytes: &[u8]) -> SealedCopy {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(bytes).unwrap();
        source.rewind().unwrap();
        Draft::new(name, &mut source).unwrap().seal().unwrap()
    }

    #[test]
    fn a_copy_holds_the_bytes_and_cannot_be_changed() {
        let copy = copy_of(Path::new("/x/liba.so"), b"0123");
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"0123");
        assert_eq!((&copy.file).write(b"x").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(copy.file.set_len(0).is_err());
        assert!(copy.file.set_len(100).is_err());
        assert!(std::fs::write(copy.path(), b"x").is_err());
    }

    #[test]
    fn a_copy_on_disk_holds_the_bytes_and_has_no_name_once_it_is_kept() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(b"0123").unwrap();
        source.rewind().unwrap();
        let copy = Draft::on_disk(&mut source).unwrap().seal().unwrap();
        assert!(copy.named.is_none(), "it has a path below /proc");
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"0123");
        assert!((&copy.file).write(b"x").is_err());
        assert_eq!(copy.file.metadata().unwrap().nlink(), 0);
        let (named, _) = PrivateFile::create().unwrap();
        let directory = named.directory.clone();
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
        let file = File::open(named.path()).unwrap();
        SealedCopy { file, named: Some(named) }.keep();
        assert!(!directory.exists());
    }

    #[test]
    fn a_copy_whose_pages_are_in_use_is_left_unsealed() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(b"0123").unwrap();
        source.rewind().unwrap();
        let draft = Draft::new(Path::new("/x/liba.so"), &mut source).unwrap();
        let (length, flags) = (NonZeroUsize::MIN, MapFlags::MAP_SHARED);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which nothing uses.
        let mapped = unsafe { mmap(None, length, access, flags, draft.file(), 0) }.unwrap();
        assert_eq!(std::fs::read(draft.seal().unwrap().path()).unwrap(), b"0123");
        // SAFETY: the mapping from above.
        unsafe { munmap(mapped, 1) }.unwrap();
    }

    #[test]
    fn a_name_may_have_any_length() {
        let name = "ä☃".repeat(200);
        assert_eq!(copy_of(Path::new(&name), b"").file().metadata().unwrap().len(), 0);
    }
}
