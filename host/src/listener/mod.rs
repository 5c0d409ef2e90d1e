//! The sockets that workers accept from: opened or inherited by the arbiter, kept over reloads, inherited by
//! workers. Nothing in this module accepts a connection.
//!
//! A listener that a new generation no longer uses, or that the server closes when it stops, first stops taking
//! new connections ([`Listener::stop_accepting`]), so that workers can empty its backlog before its last copy is
//! closed: no connection is reset.

mod inherited;
mod open;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};

pub use inherited::Inherited;
pub(crate) use inherited::UPGRADE_VARIABLE;

use crate::privileges::Identity;
use crate::process;
use crate::safe_path::SafePath;
use crate::settings::{Bind, Settings};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("cannot listen on {address}: the address is in use by another process")]
    InUse {
        /// The address.
        address: String,
    },
    /// The path of a unix socket exists and is not a socket.
    #[error(
        "cannot listen on {address}: the path exists and is not a socket; remove it or choose another"
    )]
    NoSocket {
        /// The address.
        address: String,
    },
    /// The host name cannot be resolved.
    #[error("cannot listen on {address}: cannot resolve the host name ({reason})")]
    UnknownHost {
        /// The address.
        address: String,
        /// The resolver's error.
        reason: String,
    },
    /// The user or group of a unix socket does not exist.
    #[error("cannot listen on {address}: no user or group {name:?} on this system")]
    UnknownOwner {
        /// The address.
        address: String,
        /// The name.
        name: String,
    },
    /// The descriptor to inherit is not open, or not a listening socket.
    #[error("cannot listen on {address}: the descriptor is not an open, listening socket")]
    NotListening {
        /// The address.
        address: String,
    },
    /// Root does not follow the path.
    #[error("cannot listen on {address}: {reason}")]
    Path {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// The system refused.
    #[error("cannot listen on {address}: {reason}")]
    System {
        /// The address.
        address: String,
        /// The system's error.
        reason: nix::Error,
    },
}

/// Address of a listener, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(#[serde(with = "crate::bytes")] PathBuf),
    /// The abstract name of a unix socket.
    Abstract(String),
}

/// One listening socket, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// Identifies the listener over reloads and upgrades, by the address in the settings.
    key: String,
    address: Address,
    /// Whether the socket came from systemd or another program, which continues to listen on it.
    from_outside: bool,
    /// Whether only the server itself connects to it.
    private: bool,
    /// Device and inode of the path, so that only this listener's own socket is ever removed.
    identity: Option<(u64, u64)>,
    /// The workers' user, which may own the directory of the path.
    user: Option<Identity>,
}

impl Listener {
    /// Creates a public listener of this server alone.
    fn new(socket: OwnedFd, key: String, address: Address) -> Self {
        Self {
            socket,
            key,
            address,
            from_outside: false,
            private: false,
            identity: None,
            user: None,
        }
    }

    /// Returns its address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns its URL under these settings, which may differ from those that it was opened with.
    pub fn url(&self, settings: &Settings) -> String {
        match &self.address {
            Address::Tcp(address) if settings.certfile.is_some() => format!("https://{address}"),
            _ => self.to_string(),
        }
    }

    /// Marks the listener as private: only the server itself connects to it, without TLS.
    #[must_use]
    pub fn into_private(self) -> Self {
        Self { private: true, ..self }
    }

    /// Returns whether only the server itself connects to it.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Returns whether it was opened for this address of the settings.
    pub fn is_for(&self, bind: &Bind) -> bool {
        self.key == key_of(bind)
    }

    /// Returns the number of its file descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Takes no new connections from now on, while those in the backlog can still be accepted. Not for a
    /// listener that another program, or another arbiter, continues to serve.
    pub fn stop_accepting(&self) {
        self.attach_filter();
        match &self.address {
            Address::Tcp(_) => {}
            Address::Unix(path) => self.remove(path),
            Address::Abstract(_) => self.refuse_new(),
        }
    }

    /// Returns whether [`Listener::stop_accepting`] was called for this socket, in any process that has it.
    pub fn has_stopped_accepting(&self) -> bool {
        let mut instructions: libc::socklen_t = 0;
        // SAFETY: with a length of 0 the kernel writes only the number of the filter's instructions, to
        // the length, which lives for the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_GET_FILTER,
                std::ptr::null_mut(),
                &raw mut instructions,
            )
        };
        result == 0 && instructions > 0
    }

    /// Returns the number of connections in the backlog, or `u64::MAX` if the kernel does not report it.
    pub fn backlog(&self) -> u64 {
        if !matches!(self.address, Address::Tcp(_)) {
            return u64::MAX;
        }
        // SAFETY: the structure consists of numbers, for which zero is valid.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: both pointers are valid for the call, and the length is that of the structure.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        // For a listening socket the kernel reports the length of its accept queue in this field.
        if result == 0 { u64::from(info.tcpi_unacked) } else { u64::MAX }
    }

    /// Returns whether other programs hold this listener too.
    pub fn is_from_outside(&self) -> bool {
        self.from_outside
    }

    /// Attaches a socket filter that drops every packet: the kernel does not respond to the handshake of a
    /// new connection, so the client retries (elsewhere, or later) instead of being reset.
    ///
    /// The filter belongs to the socket, not to the process: workers recognize by it a listener that no other
    /// process serves. On a unix socket this is its only effect.
    fn attach_filter(&self) {
        let mut drop_all =
            libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
        // SAFETY: the kernel copies one `sock_fprog` of the given size and the one instruction that
        // it points to before it returns.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result != 0 {
            let reason = nix::Error::last();
            tracing::debug!("{self}: cannot hold off new connections while draining: {reason}");
        }
    }

    /// Shuts down the reading side of an abstract unix socket: new connections are refused, and those in its
    /// backlog can still be accepted. The name itself exists until the last descriptor is closed.
    fn refuse_new(&self) {
        if let Err(errno) = shutdown(self.socket.as_raw_fd(), Shutdown::Read) {
            tracing::debug!("{self}: cannot hold off new connections while draining: {errno}");
        }
    }

    fn remove(&self, path: &Path) {
        if let (Some(identity), Ok(path)) =
            (self.identity, SafePath::resolve(path, self.user.as_ref()))
        {
            let _ = path.remove_if(identity);
        }
    }
}

/// A [`Listener`] as data, for a process that a mold executes.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerRecord {
    descriptor: RawFd,
    key: String,
    address: Address,
    from_outside: bool,
    private: bool,
}

impl ListenerRecord {
    /// Records a listener, whose descriptor the process inherits.
    pub fn new(listener: &Listener) -> Self {
        Self {
            descriptor: listener.descriptor(),
            key: listener.key.clone(),
            address: listener.address.clone(),
            from_outside: listener.from_outside,
            private: listener.private,
        }
    }

    /// Restores the listener. Only the arbiter removes its file.
    pub fn restore(self) -> std::io::Result<Listener> {
        let socket = process::take_descriptor(self.descriptor)?;
        let listener = Listener::new(socket, self.key, self.address);
        Ok(Listener { from_outside: self.from_outside, private: self.private, ..listener })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(address) => write!(formatter, "http://{address}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Address::Abstract(name) => write!(formatter, "unix:@{name}"),
        }
    }
}

/// Opens the listeners of `settings`, and keeps those of `present` that they still name. A port in use is tried
/// `attempts` times, one second apart.
pub fn open_all(
    settings: &Settings,
    present: &[Arc<Listener>],
    inherited: &mut Inherited,
    attempts: u32,
) -> Result<Vec<Arc<Listener>>, ListenError> {
    if let Some(listeners) = inherited.take_activated()? {
        return Ok(listeners.into_iter().map(Arc::new).collect());
    }
    let activated = present.iter().filter(|listener| listener.key.starts_with(ACTIVATED));
    let activated: Vec<_> = activated.cloned().collect();
    if !activated.is_empty() {
        return Ok(activated);
    }
    let mut listeners = Vec::new();
    let mut opened = Vec::new();
    for bind in &settings.bind {
        let key = key_of(bind);
        let known = present.iter().find(|listener| listener.key == key).cloned();
        let found = match known {
            Some(listener) => Ok(listener),
            None => match inherited.take_upgraded(bind, &key, settings) {
                Some(listener) => listener.map(Arc::new),
                None => open::open(bind, settings, attempts).map(Arc::new).inspect(|listener| {
                    opened.push(Arc::clone(listener));
                }),
            },
        };
        match found {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                // No process will serve these, and the file of a unix socket would remain.
                for listener in opened {
                    listener.stop_accepting();
                }
                return Err(error);
            }
        }
    }
    Ok(listeners)
}

/// Opens one listener that workers do not accept from.
pub fn open_one(bind: &Bind, settings: &Settings) -> Result<Listener, ListenError> {
    open::open(bind, settings, 1)
}

/// Returns the value of the variable that passes `listeners` to the arbiter of a new binary.
pub fn upgrade_variable(listeners: &[Arc<Listener>]) -> String {
    let entries =
        listeners.iter().map(|listener| format!("{}={}", listener.descriptor(), listener.key));
    entries.collect::<Vec<_>>().join("\n")
}

/// Closes a fork's copies of the sockets. Call this only once, in a process that ends in
/// [`exit_now`](crate::process::exit_now), and that uses no listener afterwards.
pub(crate) fn close_copies(listeners: &[Arc<Listener>]) {
    for listener in listeners {
        // SAFETY: the arbiter's handles are in stack frames to which this process never returns, so no listener is
        // dropped here, and nothing uses or closes the number again.
        unsafe { libc::close(listener.descriptor()) };
    }
}

fn key_of(bind: &Bind) -> String {
    match bind {
        Bind::Tcp { host, port } => format!("tcp:{host}:{port}"),
        Bind::Unix { path, .. } => format!("unix:{}", path.display()),
        Bind::Abstract(name) => format!("unix:@{name}"),
        Bind::Fd(number) => format!("fd:{number}"),
    }
}

/// Prefix of the key of a socket from systemd's socket activation.
const ACTIVATED: &str = "activated:";

#[cfg(test)]
mod tests;
