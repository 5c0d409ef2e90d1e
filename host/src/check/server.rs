//! A scratch server: this same program, with the class under test and the checking application, on a free port of
//! the loopback, in a private directory. It is always stopped, with all processes that it started.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::client::PATIENCE;
use crate::clock;
use crate::control::client::ask;
use crate::control::{GenerationStatus, Request, WorkerStatus};

/// The common parts of all scratch servers.
pub(super) struct Bench {
    /// This program.
    pub(super) program: PathBuf,
    /// The class under test.
    pub(super) class: PathBuf,
    /// The checking application.
    pub(super) app: PathBuf,
    /// A settings file, for the sections that the class may need.
    pub(super) config: Option<PathBuf>,
    /// Directory that contains a directory for each server.
    directory: PathBuf,
    servers: AtomicU32,
}

/// A running server.
pub(super) struct Server {
    child: Child,
    directory: PathBuf,
    /// Address of its listener.
    pub(super) address: SocketAddr,
    /// Time until it became ready.
    pub(super) booted_in: Duration,
}

impl Bench {
    pub(super) fn new(class: PathBuf, app: PathBuf, config: Option<PathBuf>) -> io::Result<Self> {
        let name = format!("jimu-check-{}-{:x}", std::process::id(), clock::now_ns());
        let directory = std::env::temp_dir().join(name);
        // An existing one belongs to another process: an error.
        DirBuilder::new().mode(0o700).create(&directory)?;
        let program = std::env::current_exe()?;
        Ok(Self { program, class, app, config, directory, servers: AtomicU32::new(0) })
    }

    /// Loads the class and exits: runs `--check-config` and returns its output.
    pub(super) fn load(&self) -> io::Result<Output> {
        self.command(&self.directory).arg("--check-config").output()
    }

    /// Starts a server with one worker and waits until that is ready; on failure returns the reason from its
    /// log.
    pub(super) fn start(&self, flags: &[&str]) -> Result<Server, String> {
        let number = self.servers.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(number.to_string());
        let start = |directory: &Path| {
            fs::create_dir(directory)?;
            let log = File::create(directory.join(LOG))?;
            let mut command = self.command(directory);
            command.args(["--bind=127.0.0.1:0", "--workers=1", "--boot-failures-max=1"]);
            command.arg(format!("--boot-timeout={}", BOOT_LIMIT.as_secs())).args(flags);
            command.arg("--control-socket").arg(directory.join(CONTROL));
            command.arg("--access-logfile").arg(directory.join(ACCESS_LOG));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
            command.spawn()
        };
        let child =
            start(&directory).map_err(|error| format!("cannot start a scratch server: {error}"))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, directory, address: nowhere, booted_in: Duration::ZERO };
        let started = Instant::now();
        server.address = server.until_ready()?;
        server.booted_in = started.elapsed();
        Ok(server)
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // The server's settings come only from here.
        for variable in FOREIGN_SETTINGS {
            command.env_remove(variable);
        }
        command.current_dir(directory);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.arg("--worker-class").arg(&self.class).arg(&self.app);
        command
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Files that cannot be removed are in the system's directory for temporary files.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Server {
    /// Returns the arbiter's process ID.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(self.pid(), signal).map_err(|errno| format!("cannot signal the server: {errno}"))
    }

    /// Returns the ready workers of the serving generation.
    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        let workers = self.generation().map(|generation| generation.workers).unwrap_or_default();
        workers.into_iter().filter(|worker| worker.state == "ready").collect()
    }

    /// Returns the one worker that is ready.
    pub(super) fn worker(&self) -> Result<WorkerStatus, String> {
        self.workers().pop().ok_or_else(|| self.fault("no worker is ready"))
    }

    /// Returns the number of the serving generation.
    pub(super) fn generation(&self) -> Option<GenerationStatus> {
        let status =
            ask(&self.directory.join(CONTROL), &Request::Status, Some(STATUS_LIMIT)).ok()?.status?;
        status.generations.into_iter().find(|generation| generation.state == "serving")
    }

    /// Returns the error log so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.join(LOG)).unwrap_or_default()
    }

    /// Returns the path of the access log.
    pub(super) fn access_log(&self) -> PathBuf {
        self.directory.join(ACCESS_LOG)
    }

    /// Returns the first error of the log, which caused the others; not a line that only starts a list of
    /// frames.
    pub(super) fn error(&self) -> Option<String> {
        let log = self.log();
        let mut words = log.lines().filter_map(|line| {
            let (_, words) = line.split_once("[ERROR] ").or(line.split_once("[CRITICAL] "))?;
            Some(words.to_owned())
        });
        words.find(|words| !words.ends_with(':'))
    }

    /// Returns `what`, followed by the error in the log.
    pub(super) fn fault(&self, what: &str) -> String {
        self.error().map_or_else(|| what.to_owned(), |error| format!("{what}: {error}"))
    }

    /// Waits until the server exits.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        until(limit, || self.child.try_wait().ok().flatten())
    }

    /// Stops the server, which must exit within `limit` and with status 0; returns how long it took.
    pub(super) fn ends(&mut self, limit: Duration) -> Result<Duration, String> {
        let begun = Instant::now();
        match self.wait(limit) {
            None => Err(format!("the server did not exit within {} s", limit.as_secs_f32())),
            Some(status) if status.success() => match self.error() {
                None => Ok(begun.elapsed()),
                Some(error) => Err(error),
            },
            Some(status) => Err(self.fault(&format!("the server exited with {status}"))),
        }
    }

    /// Reads the log and not the list of workers: a worker may become ready and exit between two reads of the
    /// list.
    fn until_ready(&mut self) -> Result<SocketAddr, String> {
        let ready = until(BOOT_LIMIT + PATIENCE, || {
            let ended = self.child.try_wait().ok().flatten().is_some();
            let address = self.read_address();
            (ended || address.is_some()).then_some(address)
        });
        let address = ready.flatten();
        address.ok_or_else(|| self.error().unwrap_or_else(|| "the server did not start".to_owned()))
    }

    /// Returns the address of the listener, once a worker can serve.
    fn read_address(&self) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once("Server is ready. Listening at: http://")?;
        let (line, _) = rest.split_once('\n')?;
        line.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The group belongs to this server alone, whether its leader lives or not.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Polls until there is a result, for at most `limit`. The polled processes are not children of this one, so it
/// cannot wait for them.
pub(super) fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begun.elapsed() > limit {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Time limit for a worker to boot: the application needs no time, a busy machine some.
const BOOT_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const STATUS_LIMIT: Duration = Duration::from_secs(10);
const LOG: &str = "error.log";
const ACCESS_LOG: &str = "access.log";
const CONTROL: &str = "control";
/// Variables that would add to the settings of a scratch server.
const FOREIGN_SETTINGS: [&str; 6] =
    ["JIMU_CMD_ARGS", "WEB_CONCURRENCY", "PORT", "SENDFILE", "NOTIFY_SOCKET", "LISTEN_FDS"];
