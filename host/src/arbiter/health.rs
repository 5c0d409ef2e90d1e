//! Health check of a new generation before it takes over: a request for `health_path` on a private socket that
//! only the generation's own workers accept from. The arbiter neither sends nor reads HTTP: it forks a process
//! for each check, which sends the result and exits.
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
use nix::unistd::{ForkResult, Pid};

use super::Arbiter;
use super::generation::{Generation, Stage};
use crate::clock;
use crate::listener::{self, ListenError, Listener};
use crate::message::{Channel, Received, Refusal};
use crate::mold::CONFIG;
use crate::privileges;
use crate::process::{self, End};
use crate::settings::{Bind, ProxyProtocol, Settings};

/// State of a generation's health check.
#[derive(Default)]
pub(super) struct Health {
    /// `None` once the check has passed, or if there is none.
    door: Option<ProbeSocket>,
    asking: Option<HealthCheck>,
    /// Time of the next check, and the deadline for passing; 0 before the first check.
    ask_at_ns: u64,
    until_ns: u64,
    /// Last result other than 200: it says more than that the deadline passed before the next result.
    answered: Option<String>,
}

/// Private socket of the workers of one generation.
struct ProbeSocket {
    listener: Arc<Listener>,
    way_in: WayIn,
}

/// How to connect to the private socket.
enum WayIn {
    /// Through the path of this descriptor.
    Descriptor(OwnedFd),
    /// By name. Only the arbiter's user may connect.
    Name(PathBuf),
}

/// A process that runs one check.
struct HealthCheck {
    pid: Pid,
    answer: Channel,
}

impl Health {
    /// Creates the state for a new generation, with a private socket if the settings ask for a check.
    pub(super) fn to_be_asked(settings: &Settings) -> Result<Self, String> {
        let door =
            settings.health_path.as_ref().map(|_| ProbeSocket::make(settings)).transpose()?;
        Ok(Self { door, ..Self::default() })
    }

    /// Returns the listener that the workers accept from in addition to those of the settings.
    pub(super) fn listener(&self) -> Option<Arc<Listener>> {
        self.door.as_ref().map(|door| Arc::clone(&door.listener))
    }

    pub(super) fn way_in(&self) -> Option<RawFd> {
        self.door.as_ref().and_then(|door| match &door.way_in {
            WayIn::Descriptor(descriptor) => Some(descriptor.as_raw_fd()),
            WayIn::Name(_) => None,
        })
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        (self.door.is_some() && self.asking.is_none() && self.ask_at_ns != 0)
            .then_some(self.ask_at_ns)
    }

    /// Returns whether `pid` is the process that runs the check.
    pub(super) fn is_asked_by(&self, pid: Pid) -> bool {
        self.asking.as_ref().is_some_and(|question| question.pid == pid)
    }

    /// Ends the check.
    pub(super) fn close(&mut self) {
        if let Some(question) = self.asking.take() {
            // It may have exited already, which is noticed elsewhere.
            let _ = kill(question.pid, Signal::SIGKILL);
        }
        self.door = None;
    }
}

impl ProbeSocket {
    fn make(settings: &Settings) -> Result<Self, String> {
        let mut reason = String::new();
        for directory in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
            let name = format!("host-{}-{}", std::process::id(), clock::now_ns());
            match Self::make_in(&directory.join(name), settings) {
                Ok(door) => return Ok(door),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(format!("cannot create the socket for health_path: {reason}"))
    }

    fn make_in(path: &Path, settings: &Settings) -> Result<Self, ListenError> {
        let bind = Bind::Unix { path: path.to_owned(), mode: Some(0o600), user: None, group: None };
        let listener = listener::open_one(&bind, settings)?.into_private();
        let opened =
            open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        let way_in = match opened {
            Ok(descriptor) if Path::new(&descriptor_path(&descriptor)).exists() => {
                WayIn::Descriptor(descriptor)
            }
            Ok(_) => WayIn::Name(path.to_owned()),
            Err(reason) => {
                let address = path.display().to_string();
                return Err(ListenError::System { address, reason });
            }
        };
        if matches!(way_in, WayIn::Descriptor(_)) {
            // Ignored if another process has removed it before.
            let _ = std::fs::remove_file(path);
        }
        Ok(Self { listener: Arc::new(listener), way_in })
    }

    /// Returns the path to connect to, for this process and its children.
    fn path(&self) -> PathBuf {
        match &self.way_in {
            WayIn::Descriptor(descriptor) => descriptor_path(descriptor).into(),
            WayIn::Name(path) => path.clone(),
        }
    }
}

impl Drop for ProbeSocket {
    fn drop(&mut self) {
        if let WayIn::Name(path) = &self.way_in {
            // It may have been removed by another process.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn descriptor_path(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

impl Arbiter {
    /// Returns whether a generation whose workers serve may take over; starts a check if that is not known.
    pub(super) fn is_well(&mut self, id: u32) -> bool {
        let now_ns = clock::now_ns();
        let Some(generation) = self.generation(id) else { return false };
        let limit_ns = clock::duration_ns(generation.settings.health_timeout);
        let health = &mut generation.health;
        if health.door.is_none() {
            return true;
        }
        if health.until_ns == 0 {
            health.until_ns = now_ns + limit_ns;
        }
        if health.asking.is_none() && now_ns >= health.ask_at_ns {
            self.ask(id);
        }
        false
    }

    /// Returns whether the process ran a check; if so, handles the result.
    pub(super) fn on_question_end(&mut self, pid: Pid, end: End) -> bool {
        let index = self.generations.iter().position(|generation| {
            generation.health.asking.as_ref().is_some_and(|question| question.pid == pid)
        });
        let Some(index) = index else { return false };
        let Generation { id, settings, health, stage, .. } = &mut self.generations[index];
        let Some(question) = health.asking.take() else { return true };
        let answer = match question.answer.receive::<String>() {
            Ok(Received::Message(answer, sender)) if sender == pid => answer,
            _ if end.is_by(Signal::SIGALRM) => {
                let answered = health.answered.take();
                answered.unwrap_or_else(|| "no response in time".to_owned())
            }
            _ => format!("the process that ran the check {}", end.describe()),
        };
        let path = settings.health_path.as_deref().unwrap_or_default();
        if answer == HEALTHY {
            tracing::info!("generation {id} is healthy: {path} returned 200");
            health.close();
        } else if clock::now_ns() < health.until_ns {
            tracing::debug!("generation {id} is not healthy yet: {path}: {answer}");
            health.answered = Some(answer);
            health.ask_at_ns = clock::now_ns() + PAUSE_NS;
        } else if *stage == Stage::Booting {
            let reason = format!("health check of {path} failed: {answer}");
            self.refuse(index, &Refusal::new(reason, CONFIG));
        }
        true
    }

    fn ask(&mut self, id: u32) {
        let close = self.private_descriptors(0);
        let Some(generation) = self.generation(id) else { return };
        let Some(path) = generation.health.door.as_ref().map(ProbeSocket::path) else { return };
        let way_in = generation.health.way_in();
        let asked = Channel::pair().and_then(|pair| {
            let fork = process::fork_with_signals_blocked()?;
            Ok((pair, fork))
        });
        match asked {
            Ok(((_, far), ForkResult::Child)) => {
                let close: Vec<RawFd> =
                    close.into_iter().filter(|fd| Some(*fd) != way_in).collect();
                question(&generation.settings, &path, &close, &far)
            }
            Ok(((near, _), ForkResult::Parent { child })) => {
                generation.health.asking = Some(HealthCheck { pid: child, answer: near });
            }
            Err(error) => {
                self.on_not_asked(id, error);
            }
        }
    }
}

impl Arbiter {
    /// Handles a failure to create the process or the descriptors for a check.
    fn on_not_asked(&mut self, id: u32, error: nix::errno::Errno) {
        let now_ns = clock::now_ns();
        let Some(index) = self.generations.iter().position(|generation| generation.id == id) else {
            return;
        };
        let generation = &mut self.generations[index];
        tracing::error!("cannot start the health check: {error}");
        generation.health.ask_at_ns = now_ns + PAUSE_NS;
        if now_ns >= generation.health.until_ns && generation.stage == Stage::Booting {
            let reason = format!("cannot start the health check: {error}");
            self.refuse(index, &Refusal::new(reason, CONFIG));
        }
    }
}

/// Main function of the process that runs the check.
fn question(settings: &Settings, way_in: &Path, close: &[RawFd], answer: &Channel) -> ! {
    process::close_inherited(close);
    process::reset_signal_handlers();
    process::unblock_signals();
    let limit = settings.health_timeout.max(Duration::from_secs(1));
    // Bounds the life of the process, whatever it waits for.
    nix::unistd::alarm::set(limit.as_secs_f32().ceil() as u32);
    let text = ask_once(settings, way_in).unwrap_or_else(|error| error.to_string());
    // If the arbiter is gone, no process needs the result.
    let _ = answer.send(&text);
    process::exit_now(0)
}

fn ask_once(settings: &Settings, way_in: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(way_in)?;
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
        && let Some((field, value)) = settings.secure_scheme_headers.first()
    {
        // An application that redirects http to https must respond to the check, not redirect it.
        write!(request, "{field}: {value}\r\n")?;
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
const HEALTHY: &str = "healthy";
/// Bound on the bytes of a response that are read.
const HEAD_MAX: u64 = 4096;
/// Pause between two checks.
const PAUSE_NS: u64 = 250_000_000;
