//! Lines for a syslog daemon: one datagram each, in the form of RFC 3164 without time and host, which the daemon
//! adds. If the daemon is absent or too slow, only its own lines are lost.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::settings::{LogLevel, Settings, SyslogAddress};

/// Which of the two logs a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Error,
    Access,
}

/// The connection to the daemon, for one log.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: Socket,
    facility: u8,
    /// "host.PREFIX.error"
    tag: String,
}

#[derive(Debug)]
enum Socket {
    /// Not connected, so that a restarted daemon is found again.
    Unix(UnixDatagram, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

impl Syslog {
    /// Creates it from the settings; returns `None` if they do not enable it for this log.
    pub(super) fn open(settings: &Settings, part: Part) -> io::Result<Option<Self>> {
        let wanted = match part {
            Part::Error => settings.syslog,
            Part::Access => settings.syslog && !settings.disable_redirect_access_to_syslog,
        };
        if !wanted {
            return Ok(None);
        }
        let name = settings.proc_name.as_deref().unwrap_or("host").replace(':', ".");
        let prefix = settings.syslog_prefix.as_deref().unwrap_or(&name);
        let part = if part == Part::Error { "error" } else { "access" };
        Ok(Some(Self {
            socket: Socket::open(&settings.syslog_addr)?,
            facility: settings.syslog_facility.0,
            tag: format!("host.{prefix}.{part}"),
        }))
    }

    /// Returns the number of the socket's descriptor.
    pub(super) fn descriptor(&self) -> RawFd {
        match &self.socket {
            Socket::Unix(socket, _) => socket.as_raw_fd(),
            Socket::Udp(socket, _) => socket.as_raw_fd(),
        }
    }

    /// Sends one line.
    pub(super) fn send(&self, level: LogLevel, line: &[u8]) {
        let priority = u16::from(self.facility) * 8 + severity(level);
        let pid = std::process::id();
        let mut datagram = format!("<{priority}>{}: [{pid}] ", self.tag).into_bytes();
        datagram.extend_from_slice(line.trim_ascii_end());
        datagram.truncate(DATAGRAM_MAX);
        // An error is ignored, since this is the log that would report it.
        let _ = match &self.socket {
            Socket::Unix(socket, path) => socket.send_to(&datagram, path),
            Socket::Udp(socket, address) => socket.send_to(&datagram, address),
        };
    }
}

impl Socket {
    fn open(address: &SyslogAddress) -> io::Result<Self> {
        match address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                // A daemon that is absent may start later; one with a stream socket would never
                // receive a line.
                let tried = UnixDatagram::unbound()?.connect(path);
                if tried.is_err_and(|error| error.raw_os_error() == Some(libc::EPROTOTYPE)) {
                    let path = path.display();
                    return Err(io::Error::other(format!(
                        "{path} is a stream socket, but syslog lines are sent as datagrams; use a datagram socket \
                         such as /dev/log"
                    )));
                }
                Ok(Self::Unix(socket, path.clone()))
            }
            SyslogAddress::Udp { host, port } => {
                let address = (host.as_str(), *port).to_socket_addrs()?.next();
                let address = address.ok_or(io::ErrorKind::NotFound)?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket, address))
            }
        }
    }
}

/// RFC 3164, 4.1.1.
fn severity(level: LogLevel) -> u16 {
    match level {
        LogLevel::Debug => 7,
        LogLevel::Info => 6,
        LogLevel::Warning => 4,
        LogLevel::Error => 3,
        LogLevel::Critical => 2,
    }
}

/// The size that all daemons accept, and most accept at most.
const DATAGRAM_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::Sources;

    #[test]
    fn a_stream_socket_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _daemon = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Socket::open(&SyslogAddress::Unix(path)).unwrap_err();
        assert!(error.to_string().contains("log is a stream socket"), "{error}");
    }

    #[test]
    fn lines_have_priority_and_tag_and_a_new_daemon_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let address = format!("unix://{}#dgram", path.display());
        let args = ["--log-syslog", "--log-syslog-to", &address, "--log-syslog-facility", "local3"];
        let sources = Sources {
            args: args.iter().map(Into::into).collect(),
            directory: directory.path().to_owned(),
            ..Sources::default()
        };
        let settings = sources.load().unwrap().0;
        let syslog = Syslog::open(&settings, Part::Access).unwrap().unwrap();
        syslog.send(LogLevel::Info, b"no one reads this");
        for _ in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            syslog.send(LogLevel::Info, b"GET / 200\n");
            let mut buffer = [0; 256];
            let length = daemon.recv(&mut buffer).unwrap();
            let expected = format!("<158>host.host.access: [{}] GET / 200", std::process::id());
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
