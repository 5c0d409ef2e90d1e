//! Files of unix sockets: owner and mode, set without following a link that another user may have put in their
//! place, and whether a server listens.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat};

use crate::safe_path::SafePath;

/// Sets each attribute that is given and differs. Fails if the path does not name a socket, or if the socket has
/// several names: it may be another program's, if the kernel lets any user create hard links to it
/// (`fs.protected_hardlinks = 0`).
pub fn set_access(
    path: &SafePath,
    uid: Option<Uid>,
    gid: Option<Gid>,
    mode: Option<u32>,
) -> io::Result<()> {
    let file = File::from(path.open(OFlag::O_PATH, Mode::empty())?);
    let found = file.metadata()?;
    if !found.file_type().is_socket() {
        return Err(io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    if found.nlink() > 1 {
        return Err(io::Error::from_raw_os_error(libc::EMLINK));
    }
    if uid.is_some() || gid.is_some() {
        fchownat(&file, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
    }
    let Some(mode) = mode else { return Ok(()) };
    if file.metadata()?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    // Needed only if a default ACL overrides the umask. fchmod(2) refuses an O_PATH descriptor; its magic link
    // leads to the opened file, whatever the path names by now.
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(link, Permissions::from_mode(mode))
}

/// Connects to a socket without waiting for room in its backlog. The error is `ECONNREFUSED` if no process listens,
/// and `EAGAIN` if the backlog is full.
pub fn connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn set_access(
        path: &Path,
        uid: Option<Uid>,
        gid: Option<Gid>,
        mode: Option<u32>,
    ) -> io::Result<()> {
        super::set_access(&SafePath::resolve(path, None)?, uid, gid, mode)
    }

    #[test]
    fn the_mode_of_a_socket_is_set_and_links_and_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        set_access(&socket, None, None, Some(0o640)).unwrap();
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let own = Some(nix::unistd::geteuid());
        for target in [&socket, &file] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(set_access(&link, own, None, Some(0o666)).is_err());
            std::fs::remove_file(&link).unwrap();
        }
        assert!(set_access(&file, own, None, Some(0o666)).is_err());
        std::fs::hard_link(&socket, &link).unwrap();
        let error = set_access(&link, own, None, Some(0o666)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMLINK));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
}
