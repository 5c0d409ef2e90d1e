//! Notifications for systemd (`sd_notify(3)`): a datagram to the socket named by `$NOTIFY_SOCKET`. Without that
//! variable, nothing happens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::clock;

/// Notifies systemd of the server's state.
#[derive(Debug, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
    /// Interval of the watchdog (`WatchdogSec=`), and when the next notification is due.
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    period_ns: u64,
    due_ns: u64,
}

impl Notifier {
    /// Reads `$NOTIFY_SOCKET`: a path, or an abstract name after an `@`. The variable is kept for the
    /// successor of an upgrade.
    pub fn from_environment() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None if name.starts_with('/') => SocketAddr::from_pathname(&name).ok(),
            None => None,
        };
        Self { address, watchdog: Watchdog::from_environment() }
    }

    /// Returns when the next watchdog notification is due.
    pub fn watchdog_due_ns(&self) -> Option<u64> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due_ns)
    }

    /// Notifies the watchdog, if it is time. An arbiter that hangs does not get here.
    pub fn keep_watchdog_quiet(&mut self, now_ns: u64) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|dog| dog.due_ns <= now_ns) {
            watchdog.due_ns = now_ns + watchdog.period_ns;
            self.send("WATCHDOG=1");
        }
    }

    /// A worker is ready, at start or again after a reload.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// A reload has started.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now_ns() / 1000));
    }

    /// The server is stopping.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Main process of the service.
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
            tracing::debug!("cannot notify systemd of {text:?}: {error}");
        }
    }
}

impl Watchdog {
    /// Reads `$WATCHDOG_USEC`; the period is half of it, as `sd_watchdog_enabled(3)` recommends.
    /// `$WATCHDOG_PID` is ignored: the successor of an upgrade is also watched.
    fn from_environment() -> Option<Self> {
        let limit_us: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        let period_ns = limit_us.checked_mul(1000 / 2).filter(|period| *period > 0)?;
        Some(Self { period_ns, due_ns: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_arrives_at_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier { address: SocketAddr::from_pathname(&path).ok(), watchdog: None };
        notifier.ready();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        let expected = format!("READY=1\nMAINPID={}", std::process::id());
        assert_eq!(&buffer[..length], expected.as_bytes());
    }

    #[test]
    fn the_watchdog_is_notified_once_a_period() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let watchdog = Some(Watchdog { period_ns: 100, due_ns: 0 });
        let address = SocketAddr::from_pathname(&path).ok();
        let mut notifier = Notifier { address, watchdog };
        let mut heard = |now_ns| {
            notifier.keep_watchdog_quiet(now_ns);
            let mut buffer = [0; 64];
            socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"WATCHDOG=1")
        };
        assert_eq!([1, 50, 100, 101, 150].map(&mut heard), [true, false, false, true, false]);
    }

    #[test]
    fn nothing_is_sent_without_a_socket() {
        let address = SocketAddr::from_pathname("/nonexistent/notify").ok();
        Notifier { address, watchdog: None }.stopping();
        Notifier::default().stopping();
    }
}
