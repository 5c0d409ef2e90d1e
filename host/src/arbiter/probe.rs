//! Health check of a new generation before it takes over: a request for `health_path` on a private socket that
//! only the generation's own workers accept from ([`super::health`] decides when it runs). The arbiter neither sends
//! nor reads HTTP: it forks a process for each check, which sends the result and exits.
//!
//! The socket is a unix socket whose name is removed as soon as it is bound. The arbiter keeps a descriptor of
//! the name, which is the only way to connect from then on. Without `/proc` no descriptor has a path, and the
//! name remains until the generation has passed or failed the check.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use worker_api::ProxyProtocol;

use crate::descriptors::close_all_but;
use crate::listener::{self, ListenError, Listener};
use crate::message::Channel;
use crate::settings::{Bind, Settings};
use crate::{clock, privileges, process};

/// State of a generation's health check.
#[derive(Default)]
pub(super) struct Health {
    /// `None` once the check has passed, or if there is none.
    pub(super) socket: Option<ProbeSocket>,
    pub(super) running: Option<HealthCheck>,
    /// Time of the next check, and the deadline for passing; 0 before the first check.
    pub(super) check_at_ns: u64,
    pub(super) deadline_ns: u64,
    /// Last result other than 200: it says more than that the deadline passed before the next result.
    pub(super) last_result: Option<String>,
}

/// Private socket of the workers of one generation.
pub(super) struct ProbeSocket {
    listener: Arc<Listener>,
    path: ProbePath,
}

/// How to connect to the private socket.
enum ProbePath {
    /// Through the path of this descriptor.
    Descriptor(OwnedFd),
    /// By name. Only the arbiter's user may connect.
    Name(PathBuf),
}

/// A process that runs one check.
pub(super) struct HealthCheck {
    pub(super) pid: Pid,
    pub(super) result: Channel,
}

impl Health {
    /// Creates the state for a new generation, with a private socket if the settings ask for a check.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let socket =
            settings.health_path.as_ref().map(|_| ProbeSocket::create(settings)).transpose()?;
        Ok(Self { socket, ..Self::default() })
    }

    /// Returns the listener that the workers accept from in addition to those of the settings.
    pub(super) fn listener(&self) -> Option<Arc<Listener>> {
        self.socket.as_ref().map(|socket| Arc::clone(&socket.listener))
    }

    /// Returns the descriptor of the socket's name, if it has one.
    pub(super) fn path_descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().and_then(|socket| match &socket.path {
            ProbePath::Descriptor(descriptor) => Some(descriptor.as_raw_fd()),
            ProbePath::Name(_) => None,
        })
    }

    /// Returns the time of the next check, unless one is running.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        (self.socket.is_some() && self.running.is_none() && self.check_at_ns != 0)
            .then_some(self.check_at_ns)
    }

    /// Returns whether `pid` is the process that runs the check.
    pub(super) fn is_checked_by(&self, pid: Pid) -> bool {
        self.running.as_ref().is_some_and(|check| check.pid == pid)
    }

    /// Ends the check.
    pub(super) fn close(&mut self) {
        if let Some(check) = self.running.take() {
            // It may have exited already, which is noticed elsewhere.
            let _ = kill(check.pid, Signal::SIGKILL);
        }
        self.socket = None;
    }
}

impl ProbeSocket {
    fn create(settings: &Settings) -> Result<Self, String> {
        let mut reason = String::new();
        for directory in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
            let name = format!("host-{}-{}", std::process::id(), clock::now_ns());
            match Self::create_in(&directory.join(name), settings) {
                Ok(socket) => return Ok(socket),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(format!("cannot create the socket for health_path: {reason}"))
    }

    fn create_in(path: &Path, settings: &Settings) -> Result<Self, ListenError> {
        let bind = Bind::Unix { path: path.to_owned(), mode: Some(0o600), user: None, group: None };
        let listener = listener::open_one(&bind, settings)?.into_private();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = open(path, flags, Mode::empty());
        let probe_path = match opened {
            Ok(descriptor) if Path::new(&descriptor_path(&descriptor)).exists() => {
                ProbePath::Descriptor(descriptor)
            }
            Ok(_) => ProbePath::Name(path.to_owned()),
            Err(reason) => {
                let address = path.display().to_string();
                return Err(ListenError::System { address, reason });
            }
        };
        if matches!(probe_path, ProbePath::Descriptor(_)) {
            // Ignored if another process has removed it before.
            let _ = std::fs::remove_file(path);
        }
        Ok(Self { listener: Arc::new(listener), path: probe_path })
    }

    /// Returns the path to connect to, for this process and its children.
    pub(super) fn path(&self) -> PathBuf {
        match &self.path {
            ProbePath::Descriptor(descriptor) => descriptor_path(descriptor).into(),
            ProbePath::Name(path) => path.clone(),
        }
    }
}

impl Drop for ProbeSocket {
    fn drop(&mut self) {
        if let ProbePath::Name(path) = &self.path {
            // It may have been removed by another process.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn descriptor_path(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}
/// Main function of the process that runs the check. It keeps the descriptors of `keep` and that of `result`.
pub(super) fn run_check(settings: &Settings, path: &Path, keep: Vec<RawFd>, result: &Channel) -> ! {
    close_all_but(keep.into_iter().chain([result.as_raw_fd()]));
    process::reset_signal_handlers();
    process::unblock_signals();
    let limit = settings.health_timeout.max(Duration::from_secs(1));
    // Bounds the life of the process, whatever it waits for.
    nix::unistd::alarm::set(limit.as_secs_f32().ceil() as u32);
    let text = check_once(settings, path).unwrap_or_else(|error| error.to_string());
    // If the arbiter is gone, no process needs the result.
    let _ = result.send(&text);
    process::exit_now(0)
}

fn check_once(settings: &Settings, path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    // The response comes from the application: it is read without root privileges.
    privileges::drop_to(settings).map_err(std::io::Error::other)?;
    let mut request = match settings.proxy_protocol {
        ProxyProtocol::Off => Vec::new(),
        ProxyProtocol::V1 | ProxyProtocol::Auto => b"PROXY UNKNOWN\r\n".to_vec(),
        // "LOCAL": a connection of the proxy itself (PROXY protocol, 2.2).
        ProxyProtocol::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(),
    };
    let path = settings.health_path.as_deref().unwrap_or_default();
    write!(request, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")?;
    if settings.certfile.is_some()
        && let Some((name, value)) = settings.secure_scheme_headers.first()
    {
        // An application that redirects http to https must respond to the check, not redirect it.
        write!(request, "{name}: {value}\r\n")?;
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request)?;
    let mut head = Vec::new();
    stream.take(HEAD_MAX).read_to_end(&mut head)?;
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    Ok(match status {
        Some("200") => HEALTHY.to_owned(),
        Some(status) => format!("status {}", status.escape_default()),
        None => "the response is not HTTP".to_owned(),
    })
}

/// Text that the process sends for a status of 200.
pub(super) const HEALTHY: &str = "healthy";
/// Bound on the bytes of a response that are read.
const HEAD_MAX: u64 = 4096;
