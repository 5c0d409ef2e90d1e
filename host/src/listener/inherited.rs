//! Listeners that were open before this process started: `fd://N`, systemd's socket activation, and those that an
//! older arbiter passes to its successor (USR2).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use super::{ACTIVATED, Address, ListenError, Listener};
use crate::privileges::Identity;
use crate::process;
use crate::safe_path::SafePath;
use crate::settings::{Bind, Settings};

/// Descriptors that the environment passes to this process. Each can be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Numbers of systemd's descriptors.
    activated: Vec<RawFd>,
    /// Descriptors of the older arbiter, with their keys.
    upgraded: Vec<(RawFd, String)>,
}

impl Inherited {
    /// Reads `LISTEN_FDS` (if `LISTEN_PID` is this process) and `JIMU_FDS`.
    ///
    /// Remove the variables before anything is forked: see [`Inherited::VARIABLES`].
    pub fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let mut inherited = Self::default();
        if number("LISTEN_PID") == Some(std::process::id()) {
            let count = number("LISTEN_FDS").unwrap_or(0).min(DESCRIPTORS_MAX);
            inherited.activated = (0..count).map(|n| FIRST_ACTIVATED + n as RawFd).collect();
        }
        if let Ok(entries) = std::env::var(UPGRADE_VARIABLE) {
            let entries = entries.lines().filter_map(parse_entry);
            let (activated, ours): (Vec<_>, Vec<_>) =
                entries.partition(|(_, key)| key.starts_with(ACTIVATED));
            inherited.activated.extend(activated.into_iter().map(|(number, _)| number));
            inherited.upgraded = ours;
        }
        inherited
    }

    /// The variables that describe inherited descriptors: meant only for this process, not for its children.
    pub const VARIABLES: &[&str] =
        &["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", UPGRADE_VARIABLE];

    /// Returns systemd's sockets, if any: they replace the setting `bind`, as in gunicorn.
    pub(super) fn take_activated(&mut self) -> Result<Option<Vec<Listener>>, ListenError> {
        let numbers = std::mem::take(&mut self.activated);
        let listeners: Vec<_> = numbers
            .into_iter()
            .map(|number| adopt(number, format!("{ACTIVATED}{number}")))
            .collect::<Result<_, _>>()?;
        Ok((!listeners.is_empty()).then_some(listeners))
    }

    /// Returns the older arbiter's socket for the same address, if any.
    pub(super) fn take_upgraded(
        &mut self,
        bind: &Bind,
        key: &str,
        settings: &Settings,
    ) -> Option<Result<Listener, ListenError>> {
        let index = self.upgraded.iter().position(|(_, of)| of == key)?;
        let (number, key) = self.upgraded.swap_remove(index);
        let from_outside = key.starts_with("fd:");
        Some(adopt(number, key).map(|mut listener| {
            listener.from_outside = from_outside;
            if let (false, Bind::Unix { path, .. }) = (from_outside, bind) {
                listener.user = Identity::of_workers(settings);
                let safe = SafePath::resolve(path, listener.user.as_ref());
                listener.identity = safe.ok().and_then(|safe| safe.identity().ok());
                // The socket's own address may lead through a descriptor of the older arbiter.
                listener.address = Address::Unix(path.to_owned());
            }
            listener
        }))
    }

    /// Closes descriptors of the older arbiter that the settings no longer use.
    pub fn close_rest(&mut self) {
        for (number, _) in self.upgraded.drain(..) {
            if is_open(number) {
                // SAFETY: this process owns the number that was passed to it, and has not adopted
                // it.
                drop(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
}

/// Takes over a descriptor that another program opened. It must be a listening socket.
pub(super) fn adopt(number: RawFd, key: String) -> Result<Listener, ListenError> {
    let not_listening = || ListenError::NotListening { address: format!("fd://{number}") };
    if number < FIRST_ACTIVATED || !is_open(number) {
        return Err(not_listening());
    }
    // SAFETY: the descriptor is open, and the settings or the environment assign it to this listener; each
    // number is adopted once, since a listener is looked up by its key first.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let listening = getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
    let Some(address) = address_of(&socket).filter(|_| listening) else {
        // A descriptor that is not a listener is not ours to close.
        std::mem::forget(socket);
        return Err(not_listening());
    };
    let prepared = fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .and_then(|_| process::set_nonblocking(socket.as_fd(), true));
    if let Err(reason) = prepared {
        return Err(ListenError::System { address: format!("fd://{number}"), reason });
    }
    Ok(Listener { from_outside: true, ..Listener::new(socket, key, address) })
}

/// Returns the address that a socket is bound to.
pub(super) fn address_of(socket: &OwnedFd) -> Option<Address> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    match name.family()? {
        AddressFamily::Inet => {
            let address = name.as_sockaddr_in()?;
            Some(Address::Tcp((address.ip(), address.port()).into()))
        }
        AddressFamily::Inet6 => {
            let address = name.as_sockaddr_in6()?;
            Some(Address::Tcp((address.ip(), address.port()).into()))
        }
        AddressFamily::Unix => {
            let address = name.as_unix_addr()?;
            let of_path = address.path().map(|path| Address::Unix(path.to_owned()));
            of_path.or_else(|| {
                let name = address.as_abstract()?;
                Some(Address::Abstract(std::ffi::OsStr::from_bytes(name).to_string_lossy().into()))
            })
        }
        _ => None,
    }
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD on a number that is not open returns EBADF and does nothing else.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_GETFD).is_ok()
}

fn parse_entry(line: &str) -> Option<(RawFd, String)> {
    let (number, key) = line.split_once('=')?;
    Some((number.parse().ok().filter(|number| *number >= FIRST_ACTIVATED)?, key.to_owned()))
}

/// The variable in which an arbiter passes its listeners to its successor: one line for each, with the number of
/// the descriptor, `=`, and the key.
pub(crate) const UPGRADE_VARIABLE: &str = "JIMU_FDS";
/// The first number that systemd uses (`SD_LISTEN_FDS_START`); the standard streams are below.
const FIRST_ACTIVATED: RawFd = 3;
/// Bound on the number of sockets that are taken over.
const DESCRIPTORS_MAX: u32 = 256;
