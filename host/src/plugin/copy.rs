//! The private copy from which a library is loaded: whoever overwrites or cuts the file afterwards
//! changes nothing in the processes that run it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory that cannot be changed any more.
#[derive(Debug)]
pub struct SealedCopy {
    file: File,
}

impl SealedCopy {
    /// Makes a copy of what is left to read of `source`, within the kernel. `origin` gives it its name in
    /// `/proc/PID/maps`.
    pub fn new(origin: &Path, source: &mut File) -> io::Result<Self> {
        let name = origin.file_name().unwrap_or_default().to_string_lossy();
        let name = CString::new(name.chars().take(NAME_MAX).collect::<String>())?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let executable = flags | MFdFlags::from_bits_retain(libc::MFD_EXEC);
        let descriptor = match memfd_create(name.as_c_str(), executable) {
            // Before Linux 6.3 the flag is unknown, and every memfd executable.
            Err(Errno::EINVAL) => memfd_create(name.as_c_str(), flags)?,
            result => result?,
        };
        let mut file = File::from(descriptor);
        io::copy(source, &mut file)?;
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file })
    }

    /// What was copied.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path by which this process, and its children, can open the copy.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// `memfd_create(2)` takes 249 bytes; a character of UTF-8 has up to four.
const NAME_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    fn copy_of(name: &Path, bytes: &[u8]) -> SealedCopy {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(bytes).unwrap();
        source.rewind().unwrap();
        SealedCopy::new(name, &mut source).unwrap()
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
    fn a_name_of_any_length_will_do() {
        let name = "ä☃".repeat(200);
        assert_eq!(copy_of(Path::new(&name), b"").file().metadata().unwrap().len(), 0);
    }
}
