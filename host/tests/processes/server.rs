//! A server with the double for one test: started on a private port, its log read line by line, and always
//! stopped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use host::control::client::ask;
use host::control::{GenerationStatus, Request, Response, Status};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use support::launch::Launched;
use support::process::{self, End};
use support::wait;

pub(crate) struct Server {
    launched: Launched,
    directory: tempfile::TempDir,
}

/// The environment variable that makes this program a server.
pub(crate) const SERVE: &str = "JIMU_TEST_SERVER";

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Server {
    /// Starts a server whose application is the word `behaviour`, and waits until it is ready.
    pub(crate) fn start(behaviour: &str, flags: &[&str]) -> Self {
        let server = Self::spawn(behaviour, flags);
        server.wait_for("Server is ready");
        server
    }

    /// Starts a server that listens only at the addresses of the settings file.
    pub(crate) fn start_without_bind(behaviour: &str, flags: &[&str]) -> Self {
        let server = Self::spawn_with(behaviour, flags);
        server.wait_for("Server is ready");
        server
    }

    /// Starts a server without waiting.
    pub(crate) fn spawn(behaviour: &str, flags: &[&str]) -> Self {
        Self::spawn_with(behaviour, &[&["--bind", "127.0.0.1:0"], flags].concat())
    }

    /// Starts a server whose command is changed before, and waits until it is ready.
    pub(crate) fn start_with(
        change: impl FnOnce(&mut Command),
        behaviour: &str,
        flags: &[&str],
    ) -> Self {
        let flags = [&["--bind", "127.0.0.1:0"], flags].concat();
        let server = Self::spawn_changed(change, behaviour, &flags);
        server.wait_for("Server is ready");
        server
    }

    fn spawn_with(behaviour: &str, flags: &[&str]) -> Self {
        Self::spawn_changed(|_| (), behaviour, flags)
    }

    fn spawn_changed(change: impl FnOnce(&mut Command), behaviour: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("behaviour"), behaviour).unwrap();
        // For servers whose workers run as another user.
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), all).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(SERVE, "1")
            .args(["--log-level", "debug", "--control-socket"])
            .arg(directory.path().join("control"))
            .args(flags)
            .arg(directory.path().join("behaviour"))
            .current_dir(directory.path());
        change(&mut command);
        Self { launched: Launched::start(command), directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.launched.pid()
    }

    /// Sets the behaviour that the next load reads.
    pub(crate) fn behave(&self, behaviour: &str) {
        std::fs::write(self.directory.path().join("behaviour"), behaviour).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.launched.log.text()
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.launched.log.count(text)
    }

    /// Waits until the log has a line with `text`, and returns it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_for_nth(text, 1)
    }

    /// Waits until the log has `count` such lines, and returns the last of them.
    pub(crate) fn wait_for_nth(&self, text: &str, count: usize) -> String {
        let found = self.launched.log.until(PATIENCE, |log| {
            // The last line may be incomplete.
            let complete = &log[..=log.rfind('\n')?];
            complete.lines().filter(|line| line.contains(text)).nth(count - 1).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.log()))
    }

    /// Returns the address of the listener, as logged.
    pub(crate) fn address(&self) -> SocketAddr {
        address_in(&self.wait_for("Listening at: http://"))
    }

    /// Returns the address at which metrics are served, as logged.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        address_in(&self.wait_for("Metrics at: http://"))
    }

    /// Opens a connection and sends `word`.
    pub(crate) fn say(&self, word: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(word.as_bytes()).unwrap();
        stream
    }

    /// Returns the response to `word`; empty without one.
    pub(crate) fn talk(&self, word: &str) -> String {
        answer(self.say(word))
    }

    pub(crate) fn ask(&self, request: &Request) -> Response {
        ask(&self.directory.path().join("control"), request, None).unwrap()
    }

    pub(crate) fn reload(&self) -> Response {
        self.ask(&Request::Reload { worker_class: None, canary: None })
    }

    pub(crate) fn status(&self) -> Status {
        self.ask(&Request::Status).status.unwrap()
    }

    /// Returns the serving generation.
    pub(crate) fn serving(&self) -> GenerationStatus {
        let generations = self.status().generations;
        generations.into_iter().find(|generation| generation.state == "serving").unwrap()
    }

    /// Returns the process IDs of the serving workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let workers = self.serving().workers;
        workers.iter().filter(|worker| worker.state == "ready").map(|worker| worker.pid).collect()
    }

    /// Waits until the condition holds.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait::until(what, PATIENCE, || if is_so(self) { Ok(()) } else { Err(self.log()) });
    }

    /// Waits until the server exits.
    pub(crate) fn wait(&mut self) -> End {
        let end = self.launched.wait(PATIENCE);
        end.unwrap_or_else(|| panic!("the server does not end:\n{}", self.log()))
    }

    /// Stops the server with TERM, and checks that it exited successfully.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), End::Status(0), "{}", self.log());
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
    }
}

/// Returns the address in the URL of a line of the log.
fn address_in(line: &str) -> SocketAddr {
    let address = line.split("http://").nth(1).unwrap();
    address.split(' ').next().unwrap().parse().unwrap()
}

/// Reads until the other side closes; returns an empty text after a reset.
pub(crate) fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

/// Returns whether a process exists and is not a zombie.
pub(crate) fn lives(pid: u32) -> bool {
    process::stat(Pid::from_raw(pid as i32)).is_some_and(|stat| stat.state != 'Z')
}

/// Waits for the end of a process; returns whether it has ended.
pub(crate) fn ends(pid: u32) -> bool {
    process::gone(Pid::from_raw(pid as i32), PATIENCE)
}
