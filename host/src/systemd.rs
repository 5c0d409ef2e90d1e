//! What systemd wants to know (`sd_notify(3)`): a datagram to the socket that `$NOTIFY_SOCKET` names.
//! Without that variable, nothing happens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::clock;

/// Tells systemd about the server's state.
#[derive(Debug, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
}

impl Notifier {
    /// By `$NOTIFY_SOCKET`: a path, or an abstract name behind an `@`. The variable stays, for the
    /// successor of an upgrade.
    pub fn from_environment() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None if name.starts_with('/') => SocketAddr::from_pathname(&name).ok(),
            None => None,
        };
        Self { address }
    }

    /// A worker can serve, at start or again after a reload.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now_ns() / 1000));
    }

    /// The server ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Which process stands for the service.
    pub fn main_process(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
    }

    fn send(&self, text: &str) {
        let Some(address) = &self.address else { return };
        let result = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(text.as_bytes(), address)
        });
        if let Err(error) = result {
            tracing::debug!("systemd cannot be told {text:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_arrives_at_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier { address: SocketAddr::from_pathname(&path).ok() };
        notifier.ready();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        let expected = format!("READY=1\nMAINPID={}", std::process::id());
        assert_eq!(&buffer[..length], expected.as_bytes());
    }

    #[test]
    fn nobody_is_told_where_nobody_listens() {
        Notifier { address: SocketAddr::from_pathname("/nonexistent/notify").ok() }.stopping();
        Notifier::default().stopping();
    }
}
