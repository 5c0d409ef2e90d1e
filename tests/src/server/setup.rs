//! The setup of a server: class, application, settings, environment.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::AsRawFd,
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{poll::PollFlags, sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use super::{Ended, PATIENCE, Server};
use crate::{
    artifacts,
    cell::{self, App, Cell},
    http::Address,
    process,
    tls::Identity,
};

/// A server that has not been started yet.
#[derive(Debug)]
pub struct Setup {
    command: Command,
    class: Option<OsString>,
    app: Option<OsString>,
    python: Option<PathBuf>,
    addresses: Vec<Address>,
    bound: bool,
    dir: TempDir,
    notify: Notify,
}

/// What a running server keeps of its setup.
pub(super) struct Parts {
    pub(super) addresses: Vec<Address>,
    pub(super) dir: TempDir,
    pub(super) notify: Notify,
}

impl Setup {
    /// The cell's class and application, one worker, a free port, defaults for everything else.
    pub fn new(cell: &Cell) -> Self {
        let mut setup = Self::bare();
        setup.class = Some(cell.class.path.clone().into());
        setup.prepare(cell.app);
        setup
    }

    fn prepare(&mut self, app: App) {
        match app {
            App::Native => self.set_app(artifacts::native_app()),
            App::Wsgi => {
                self.set_app("routes:application");
                self.python_path(&cell::apps());
            }
            App::Asgi => {
                self.set_app("routes_asgi:application");
                self.python_path(&cell::apps());
            }
        }
    }

    /// `host` with a control socket and a supervisor to notify, but without class and application.
    pub fn bare() -> Self {
        Self::of(&artifacts::executable("host"))
    }

    /// Like [`Setup::bare`], with another executable.
    pub fn of(executable: &Path) -> Self {
        Self::of_command(Command::new(executable)).controlled()
    }

    /// gunicorn as a reference, from this interpreter's packages, with one sync worker.
    pub fn gunicorn(python: &Path) -> Self {
        let mut command = Command::new(python);
        command.args(["-m", "gunicorn", "--no-control-socket", "--workers", "1"]);
        Self::of_command(command)
    }

    fn of_command(mut command: Command) -> Self {
        let dir = TempDir::with_prefix("jimu-").expect("a temporary directory can be made");
        let notify = Notify::new(&dir.path().join("notify"));
        command
            .current_dir(dir.path())
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // eventlet's resolver is more than half of what eventlet imports at each start.
            .env("EVENTLET_NO_GREENDNS", "yes");
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        // SAFETY: prctl takes integers and accesses no memory; it is safe after a fork.
        unsafe {
            command
                .pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        Self {
            command,
            class: None,
            app: None,
            python: None,
            addresses: Vec::new(),
            bound: false,
            dir,
            notify,
        }
    }

    fn controlled(self) -> Self {
        let path = self.dir().join("control");
        self.flag("--control-socket", path)
    }

    /// Like [`Setup::new`], but a shell runs `script`, with the command in `"$0" "$@"`.
    pub fn shell(cell: &Cell, script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(artifacts::executable("host"));
        let mut setup = Self::of_command(command).controlled();
        setup.class = Some(cell.class.path.clone().into());
        setup.prepare(cell.app);
        setup
    }

    /// A shell runs `script`, which starts the server with `"$@"` among its arguments.
    pub fn script(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("sh");
        Self::of_command(command).controlled()
    }

    /// Uses another worker class: a path or a short name.
    #[must_use]
    pub fn class(mut self, class: impl Into<OsString>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Uses another application.
    #[must_use]
    pub fn app(mut self, app: impl Into<OsString>) -> Self {
        self.app = Some(app.into());
        self
    }

    /// Sets the application within [`Setup::new`].
    pub(crate) fn set_app(&mut self, app: impl Into<OsString>) {
        self.app = Some(app.into());
    }

    /// Lets Python find modules in `directory`, with the interpreter that has the tests' packages.
    pub(crate) fn python_path(&mut self, directory: &Path) {
        self.command.arg("--pythonpath").arg(directory);
        self.python = cell::python();
    }

    /// Uses another interpreter than the one that has the tests' packages.
    #[must_use]
    pub fn python(mut self, python: impl Into<PathBuf>) -> Self {
        self.python = Some(python.into());
        self
    }

    /// Uses the interpreter that has Web frameworks, and eventlet as it is by default.
    #[must_use]
    pub fn with_frameworks(mut self) -> Self {
        self.command.env_remove("EVENTLET_NO_GREENDNS");
        let python = cell::frameworks_python().expect("the behavior's condition");
        self.python(python)
    }

    /// Adds flags and their values, separated by spaces.
    #[must_use]
    pub fn flags(mut self, flags: &str) -> Self {
        self.command.args(flags.split_whitespace());
        self
    }

    /// Adds one flag with a value that may contain spaces.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl Into<OsString>) -> Self {
        self.command.arg(flag).arg(value.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// Writes a file into the server's directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.path().join(name), content).expect("the directory is writable");
        self
    }

    /// Serves over TLS with this certificate, whose files are `chain.pem` and `key.pem`.
    #[must_use]
    pub fn secured(self, identity: &Identity) -> Self {
        let (chain, key) = (self.dir().join("chain.pem"), self.dir().join("key.pem"));
        self.file("chain.pem", &identity.chain_pem)
            .file("key.pem", &identity.key_pem)
            .flag("--certfile", chain)
            .flag("--keyfile", key)
    }

    /// Also listens on this address; without any, on a free port.
    #[must_use]
    pub fn bind(mut self, address: Address) -> Self {
        let flag: OsString = match &address {
            Address::Tcp(address) => address.to_string().into(),
            Address::Unix(path) => format!("unix:{}", path.display()).into(),
            Address::Abstract(name) => format!("unix:@{name}").into(),
        };
        self.addresses.push(address);
        self.flag("--bind", flag)
    }

    /// Declares an address of the server that is not given by a flag.
    #[must_use]
    pub fn reached_at(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self.bound = true;
        self
    }

    /// Modifies the command directly.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Returns the directory in which the server will run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Server {
        self.launch().until_ready()
    }

    /// Starts it without waiting.
    pub fn launch(mut self) -> Server {
        if self.addresses.is_empty() && !self.bound {
            self = self.bind(Address::Tcp(address()));
        }
        if let Some(class) = self.class {
            self.command.arg("--worker-class").arg(class);
        }
        if let Some(python) = self.python {
            self.command.arg("--python").arg(python);
        }
        if let Some(app) = self.app {
            self.command.arg(app);
        }
        let parts = Parts { addresses: self.addresses, dir: self.dir, notify: self.notify };
        Server::spawn(self.command, parts)
    }

    /// Starts it and waits for its exit, which must come by itself.
    pub fn refused(self) -> Ended {
        let mut server = self.launch();
        server.ended(PATIENCE)
    }
}

/// Variables of the caller's environment that would change a server's behavior.
const FOREIGN: [&str; 7] = [
    "PORT",
    "WEB_CONCURRENCY",
    "GUNICORN_CMD_ARGS",
    "JIMU_CMD_ARGS",
    "FORWARDED_ALLOW_IPS",
    "JIMU_PLUGIN_PATH",
    "RUST_BACKTRACE",
];

/// An address that no other test uses: the host part is derived from this process's PID, the port counts up below
/// the range from which the kernel takes client ports.
pub fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let id = std::process::id();
    let host = Ipv4Addr::new(127, 64 | (id >> 16) as u8, (id >> 8) as u8, id as u8);
    loop {
        let address = SocketAddr::from((host, NEXT.fetch_add(1, Ordering::Relaxed)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The supervisor's end of `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(super) struct Notify {
    socket: UnixDatagram,
    /// Messages that were not awaited yet.
    seen: Mutex<Vec<String>>,
}

impl Notify {
    fn new(path: &PathBuf) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket can be made in a new directory");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        Self { socket, seen: Mutex::default() }
    }

    /// Waits for a message with this line, and removes it; false when the process exits or the time limit
    /// passes.
    pub(super) fn awaits(&self, line: &str, limit: Duration, pid: Pid) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            self.receive();
            let mut seen = self.seen.lock().unwrap();
            if let Some(at) = seen.iter().position(|message| message.lines().any(|l| l == line)) {
                seen.remove(at);
                return true;
            }
            drop(seen);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || process::gone(pid, Duration::ZERO) {
                return false;
            }
            // A server that has exited sends nothing: check its process from time to time.
            process::ready(&self.socket, PollFlags::POLLIN, left.min(Duration::from_millis(100)));
        }
    }

    fn receive(&self) {
        let mut bytes = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut bytes) {
            let message = String::from_utf8_lossy(&bytes[..n]).into_owned();
            self.seen.lock().unwrap().push(message);
        }
    }
}

/// Makes `descriptor` the process's descriptor `number` when `command` is started.
pub fn inherit(command: &mut Command, descriptor: &impl AsRawFd, number: i32) {
    let from = descriptor.as_raw_fd();
    // SAFETY: dup2 and fcntl access no memory and may be called after a fork.
    unsafe {
        command.pre_exec(move || {
            let done = if from == number {
                libc::fcntl(from, libc::F_SETFD, 0)
            } else {
                libc::dup2(from, number)
            };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}
