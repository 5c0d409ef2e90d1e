//! A server with the double for one test: started on a private port, its log read line by line, and always
//! stopped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use host::control::client::ask;
use host::control::{GenerationStatus, Request, Response, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) struct Server {
    child: Child,
    directory: tempfile::TempDir,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
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
            .current_dir(directory.path())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let log = child.stderr.take().unwrap();
        let heard = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                heard.0.lock().unwrap().push(line);
                heard.1.notify_all();
            }
        });
        Self { child, directory, lines }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sets the behaviour that the next load reads.
    pub(crate) fn behave(&self, behaviour: &str) {
        std::fs::write(self.directory.path().join("behaviour"), behaviour).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.lines.0.lock().unwrap().join("\n")
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines.0.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until the log has a line with `text`, and returns it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_for_nth(text, 1)
    }

    /// Waits until the log has `count` such lines, and returns the last of them.
    pub(crate) fn wait_for_nth(&self, text: &str, count: usize) -> String {
        let (lines, changed) = &*self.lines;
        let nth = |lines: &Vec<String>| {
            lines.iter().filter(|line| line.contains(text)).nth(count - 1).cloned()
        };
        let (lines, _) = changed
            .wait_timeout_while(lines.lock().unwrap(), PATIENCE, |lines| nth(lines).is_none())
            .unwrap();
        nth(&lines).unwrap_or_else(|| panic!("no {text:?} in:\n{}", lines.join("\n")))
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
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "not {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the server exits.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the server with TERM, and checks that it exited successfully.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Returns the letter of a process's state, and its parent.
pub(crate) fn stat(pid: u32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Returns the processes whose parent is `parent`.
pub(crate) fn children_of(parent: i32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| stat(*pid).is_some_and(|(state, of)| state != 'Z' && of == parent);
    pids.filter(is_child).collect()
}
