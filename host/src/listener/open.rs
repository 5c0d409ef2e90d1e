//! Opens listeners: TCP, unix paths with mode and owner, abstract names.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage,
    UnixAddr as NixUnixAddr, bind as bind_socket, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, SFlag, umask};
use nix::unistd::{Gid, Group, Uid, User};

use super::{Address, ListenError, Listener, inherited, key_of};
use crate::privileges::{self, Identity};
use crate::safe_path::{SafePath, is_kind};
use crate::settings::{Bind, Settings};
use crate::socket_file;

/// Opens one listener; an address in use is tried `attempts` times.
pub(super) fn open(
    bind: &Bind,
    settings: &Settings,
    attempts: u32,
) -> Result<Listener, ListenError> {
    let mut attempt = 1;
    loop {
        let result = open_once(bind, settings);
        match result {
            Err(ListenError::InUse { ref address }) if attempt < attempts => {
                tracing::error!("Connection in use: {address}; retrying in 1 second");
                std::thread::sleep(ATTEMPT_PAUSE);
                attempt += 1;
            }
            _ => return result,
        }
    }
}

fn open_once(bind: &Bind, settings: &Settings) -> Result<Listener, ListenError> {
    match bind {
        Bind::Tcp { host, port } => open_tcp(bind, host, *port, settings),
        Bind::Unix { path, mode, user, group } => {
            let owner = Owner::find(bind, user.as_deref(), group.as_deref(), settings)?;
            open_path(bind, path, *mode, owner, settings)
        }
        Bind::Abstract(name) => open_abstract(bind, name, settings),
        Bind::Fd(number) => inherited::adopt(*number, key_of(bind)),
    }
}

fn open_tcp(
    bind: &Bind,
    host: &str,
    port: u16,
    settings: &Settings,
) -> Result<Listener, ListenError> {
    let unknown = |reason: String| ListenError::UnknownHost { address: name_of(bind), reason };
    let addresses = (host, port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    let mut result = Err(unknown("no address".to_owned()));
    for address in addresses {
        result = listen_tcp(bind, address, settings);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen_tcp(
    bind: &Bind,
    address: SocketAddr,
    settings: &Settings,
) -> Result<Listener, ListenError> {
    let failed = |error| system_error(bind, error);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = new_socket(family, Some(SockProtocol::Tcp)).map_err(failed)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true).map_err(failed)?;
    if settings.reuse_port {
        setsockopt(&descriptor, sockopt::ReusePort, &true).map_err(failed)?;
    }
    // Workers mostly send a response in one write; accepted sockets inherit this option.
    setsockopt(&descriptor, sockopt::TcpNoDelay, &true).map_err(failed)?;
    bind_socket(descriptor.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed)?;
    start_listening(&descriptor, settings).map_err(failed)?;
    let address = inherited::address_of(&descriptor).unwrap_or(Address::Tcp(address));
    Ok(Listener::new(descriptor, key_of(bind), address))
}

fn open_path(
    bind: &Bind,
    path: &Path,
    mode: Option<u32>,
    owner: Owner,
    settings: &Settings,
) -> Result<Listener, ListenError> {
    let failed = |error| system_error(bind, error);
    let user = Identity::of_workers(settings);
    let safe = SafePath::resolve(path, user.as_ref()).map_err(|error| path_error(bind, &error))?;
    clear_path(bind, &safe)?;
    let descriptor = new_socket(AddressFamily::Unix, None).map_err(failed)?;
    // The socket never has more permissions than configured, not even for an instant.
    let hidden = mode.map_or(settings.umask, |mode| !mode & 0o777);
    let before = umask(Mode::from_bits_truncate(hidden));
    let bound = safe.bind(|path| bind_socket(descriptor.as_raw_fd(), &NixUnixAddr::new(path)?));
    umask(before);
    let refused = |error| path_error(bind, &safe.explain(error));
    bound.map_err(|errno| refused(errno.into()))?;
    socket_file::set_access(&safe, owner.uid, owner.gid, mode).map_err(refused)?;
    start_listening(&descriptor, settings).map_err(failed)?;
    let listener = Listener::new(descriptor, key_of(bind), Address::Unix(path.to_owned()));
    Ok(Listener { identity: safe.identity().ok(), user, ..listener })
}

fn open_abstract(bind: &Bind, name: &str, settings: &Settings) -> Result<Listener, ListenError> {
    let failed = |error| system_error(bind, error);
    let descriptor = new_socket(AddressFamily::Unix, None).map_err(failed)?;
    let address = NixUnixAddr::new_abstract(name.as_bytes()).map_err(failed)?;
    bind_socket(descriptor.as_raw_fd(), &address).map_err(failed)?;
    start_listening(&descriptor, settings).map_err(failed)?;
    Ok(Listener::new(descriptor, key_of(bind), Address::Abstract(name.to_owned())))
}

/// Owner of a unix socket.
#[derive(Clone, Copy)]
struct Owner {
    uid: Option<Uid>,
    gid: Option<Gid>,
}

impl Owner {
    /// Returns the owner in the address, or else, if this process is root, the user that the workers run as,
    /// as in gunicorn.
    fn find(
        bind: &Bind,
        user: Option<&str>,
        group: Option<&str>,
        settings: &Settings,
    ) -> Result<Self, ListenError> {
        let unknown = |name: &str| ListenError::UnknownOwner {
            address: name_of(bind),
            name: name.to_owned(),
        };
        let uid = match user {
            Some(name) => Some(find_user(name).ok_or_else(|| unknown(name))?),
            None => settings.user.as_ref().map(|user| Uid::from_raw(user.uid)),
        };
        let gid = match group {
            Some(name) => Some(find_group(name).ok_or_else(|| unknown(name))?),
            None => privileges::group_of(settings).ok().flatten(),
        };
        Ok(Self { uid, gid })
    }
}

fn find_user(name: &str) -> Option<Uid> {
    let by_number = name.parse().ok().map(Uid::from_raw);
    by_number.or_else(|| User::from_name(name).ok().flatten().map(|user| user.uid))
}

fn find_group(name: &str) -> Option<Gid> {
    let by_number = name.parse().ok().map(Gid::from_raw);
    by_number.or_else(|| Group::from_name(name).ok().flatten().map(|group| group.gid))
}

/// Removes the socket that a dead server left behind. A socket is live if it accepts a connection, or would if
/// its backlog were not full; it is not touched.
fn clear_path(bind: &Bind, path: &SafePath) -> Result<(), ListenError> {
    let Ok(found) = path.stat() else { return Ok(()) };
    if !is_kind(&found, SFlag::S_IFSOCK) {
        return Err(ListenError::NoSocket { address: name_of(bind) });
    }
    match socket_file::connect(path.path()) {
        Err(Errno::ECONNREFUSED) => {
            // If another server has created a socket there by now, it is kept, and bind(2) fails.
            let removed = path.remove_if((found.st_dev, found.st_ino));
            removed.map(drop).map_err(|error| system_error(bind, error))
        }
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(ListenError::InUse { address: name_of(bind) }),
    }
}

fn new_socket(family: AddressFamily, protocol: Option<SockProtocol>) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Stream, flags, protocol)
}

fn start_listening(descriptor: &OwnedFd, settings: &Settings) -> nix::Result<()> {
    let backlog = i32::try_from(settings.backlog).unwrap_or(i32::MAX);
    listen(descriptor, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))
}

fn system_error(bind: &Bind, reason: Errno) -> ListenError {
    match reason {
        Errno::EADDRINUSE => ListenError::InUse { address: name_of(bind) },
        reason => ListenError::System { address: name_of(bind), reason },
    }
}

fn path_error(bind: &Bind, error: &std::io::Error) -> ListenError {
    match error.raw_os_error() {
        Some(number) => system_error(bind, Errno::from_raw(number)),
        None => ListenError::Path { address: name_of(bind), reason: error.to_string() },
    }
}

/// Returns an address as it is written in the settings.
pub(super) fn name_of(bind: &Bind) -> String {
    match bind {
        Bind::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Bind::Tcp { host, port } => format!("{host}:{port}"),
        Bind::Unix { path, .. } => format!("unix:{}", path.display()),
        Bind::Abstract(name) => format!("unix:@{name}"),
        Bind::Fd(number) => format!("fd://{number}"),
    }
}

/// gunicorn's pause between two attempts to bind an address in use.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
