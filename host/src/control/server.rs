//! The arbiter's side of the control socket. No client can block the arbiter or make it grow: clients, lines and
//! responses are bounded, and silent clients are disconnected.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, SFlag, umask};
use nix::unistd::Pid;

use super::protocol::{Request, Response};
use crate::clock;
use crate::privileges::Identity;
use crate::safe_path::{SafePath, is_kind};
use crate::settings::Settings;
use crate::socket_file;

/// Identifies a client while it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId(u64);

/// The socket and its clients.
#[derive(Debug)]
pub struct ControlServer {
    /// The configured path; `None` if the control socket is disabled.
    configured: Option<PathBuf>,
    /// The path in use: differs from the configured one while a different server listens there.
    path: Option<PathBuf>,
    /// Whether the path was configured explicitly: a failure is then reported above the debug level.
    is_named: bool,
    mode: u32,
    listener: Option<UnixListener>,
    /// The last reported reason for having no socket, so that it is reported once and not at each reload.
    missed: Option<String>,
    /// Device and inode of the socket's file, so that only our own is ever removed.
    identity: Option<(u64, u64)>,
    /// The workers' user, which may own the directory of the path.
    user: Option<Identity>,
    clients: Vec<Client>,
    clients_made: u64,
    /// Closed to accept and inform a client when no other descriptor is free.
    spare: Option<File>,
    /// Time until which nothing is accepted; 0 otherwise.
    rest_until_ns: u64,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Number of requests without a response.
    unanswered: usize,
    /// Whether it has stopped sending: it is disconnected once it has all responses.
    has_ended: bool,
    heard_ns: u64,
    /// When the unfinished line began, or when the connection was accepted that has sent nothing; 0 between
    /// requests.
    awaited_since_ns: u64,
}

impl ControlServer {
    /// Creates a server that is not open yet.
    pub fn new(settings: &Settings) -> Self {
        let path = settings.control_socket.clone().filter(|_| !settings.control_socket_disable);
        let origin = settings.origin("control_socket");
        Self {
            configured: path,
            path: None,
            is_named: origin.is_some_and(|origin| *origin != crate::settings::Origin::Default),
            mode: settings.control_socket_mode,
            listener: None,
            missed: None,
            identity: None,
            user: Identity::of_workers(settings),
            clients: Vec::new(),
            clients_made: 0,
            spare: None,
            rest_until_ns: 0,
        }
    }

    /// Creates the socket if it does not exist: at start, and after the exit of another arbiter that had
    /// taken its name. The live socket of `predecessor` is replaced; that of any other server stays, and this
    /// server listens at the same path with its process ID appended. The server starts even if the socket
    /// cannot be created.
    pub fn open(&mut self, predecessor: Option<Pid>) {
        let Some(configured) = &self.configured else { return };
        if self.is_in_place() {
            return;
        }
        let path = match find_owner(configured) {
            Owner::Server(pid) if Some(pid) != predecessor => {
                let private = private_path(configured);
                let (taken, own) = (configured.display(), private.display());
                tracing::warn!(
                    "control socket {taken} belongs to another server (pid {pid}); listening at {own} instead"
                );
                private
            }
            _ => configured.clone(),
        };
        remove_stale(configured, self.user.as_ref());
        match listen(&path, self.mode, self.user.as_ref()) {
            Ok((listener, identity)) => {
                tracing::debug!("Control socket at {}", path.display());
                self.missed = None;
                self.identity = Some(identity);
                self.listener = Some(listener);
                self.path = Some(path);
                self.keep_spare();
            }
            Err(error) => {
                let words = format!("cannot create the control socket {}: {error}", path.display());
                let is_new = self.missed.as_ref() != Some(&words);
                if is_new && self.is_named {
                    tracing::warn!("{words}");
                } else if is_new {
                    tracing::debug!("{words}");
                }
                self.missed = Some(words);
            }
        }
    }

    /// Returns whether this server listens and its socket is still at the path.
    fn is_in_place(&self) -> bool {
        let Some(path) = self.path.as_deref().filter(|_| self.listener.is_some()) else {
            return false;
        };
        let found =
            SafePath::resolve(path, self.user.as_ref()).and_then(|path| Ok(path.identity()?));
        self.identity.is_some_and(|own| may_be(&found, own))
    }

    /// Removes the socket, if it still belongs to this server.
    pub fn close(&mut self) {
        let Some(path) = &self.path else { return };
        if let (Some(identity), Ok(path)) =
            (self.identity, SafePath::resolve(path, self.user.as_ref()))
        {
            // It may have been removed in between.
            let _ = path.remove_if(identity);
        }
        self.listener = None;
    }

    /// Returns the descriptor to poll for new clients; `None` if the number of clients has reached its
    /// maximum and each of them waits for a response.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        let accepts = self.has_room() && self.rest_until_ns == 0;
        self.listener.as_ref().filter(|_| accepts).map(|listener| listener.as_fd())
    }

    /// Returns whether another client can be accepted, possibly in place of a silent one.
    fn has_room(&self) -> bool {
        self.clients.len() < CLIENTS_MAX || self.clients.iter().any(Client::is_silent)
    }

    /// Returns the clients to poll, and for which events. A client that has hung up and only waits for a late
    /// response is left out: it would wake the arbiter endlessly.
    pub fn clients(&self) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>, PollFlags)> {
        self.clients.iter().filter_map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !client.has_ended);
            flags.set(PollFlags::POLLOUT, !client.output.is_empty());
            (!flags.is_empty()).then(|| (client.id, client.stream.as_fd(), flags))
        })
    }

    /// Accepts the clients in the backlog, at most [`CLIENTS_MAX`] in one call. Each one beyond that number
    /// replaces the client that has been silent for longest.
    pub fn accept(&mut self) {
        for _ in 0..CLIENTS_MAX {
            let Some(listener) = self.listener.as_ref().filter(|_| self.has_room()) else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.cannot_accept(&error),
            };
            self.keep_spare();
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.make_room();
            let now_ns = clock::now_ns();
            self.clients_made += 1;
            self.clients.push(Client {
                id: ClientId(self.clients_made),
                stream,
                input: Vec::new(),
                output: Vec::new(),
                unanswered: 0,
                has_ended: false,
                heard_ns: now_ns,
                awaited_since_ns: now_ns,
            });
        }
    }

    /// Disconnects the client that has been silent for longest, if the number of clients has reached its
    /// maximum.
    fn make_room(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            return;
        }
        let silent = self.clients.iter().enumerate().filter(|(_, client)| client.is_silent());
        if let Some((index, _)) = silent.min_by_key(|(_, client)| client.heard_ns) {
            let gone = self.clients.remove(index);
            tracing::debug!(
                "control socket: client {} disconnected to make room for a new one",
                gone.id.0
            );
        }
    }

    /// Handles a client that cannot be accepted: sends it the reason with the spare descriptor, and pauses
    /// before the next one.
    fn cannot_accept(&mut self, error: &std::io::Error) {
        let exhausted = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if self.rest_until_ns == 0 {
            tracing::warn!("cannot accept a connection to the control socket: {error}");
        }
        self.rest_until_ns = clock::now_ns() + REST_NS;
        let Some(listener) = self.listener.as_ref().filter(|_| exhausted) else { return };
        drop(self.spare.take());
        if let Ok((mut stream, _)) = listener.accept() {
            let reason = format!("the arbiter has no free descriptors ({error}): raise its limit");
            let line = serde_json::to_vec(&Response::refused(reason)).unwrap_or_default();
            // A new connection has room for one line, so this does not block. A client that has hung
            // up does not need it.
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(&[line.as_slice(), b"\n"].concat());
        }
        self.keep_spare();
    }

    /// Opens the spare descriptor, if there is none and one is available.
    fn keep_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }

    /// Reads from and writes to a client that is ready, and returns the complete requests.
    pub fn hear(&mut self, id: ClientId) -> Vec<Request> {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return Vec::new();
        };
        client.flush();
        client.read();
        let mut requests = Vec::new();
        while let Some(end) = client.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = client.input.drain(..=end).collect();
            client.unanswered += 1;
            match serde_json::from_slice(&line) {
                Ok(request) => requests.push(request),
                Err(error) => {
                    client.answer(&Response::refused(format!("invalid request: {error}")));
                }
            }
        }
        if client.input.len() > LINE_MAX {
            client.has_ended = true;
            client.input.clear();
            client.unanswered += 1;
            client
                .answer(&Response::refused(format!("the request is longer than {LINE_MAX} bytes")));
        }
        client.note_progress(!requests.is_empty());
        self.drop_finished();
        requests
    }

    /// Sends the response to a client's request, unless it has disconnected.
    pub fn answer(&mut self, id: ClientId, response: &Response) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.answer(response);
        }
        self.drop_finished();
    }

    /// Returns when the next silent client is disconnected.
    pub fn next_deadline(&self) -> Option<u64> {
        let rest = (self.rest_until_ns != 0).then_some(self.rest_until_ns);
        self.clients.iter().filter_map(Client::deadline_ns).chain(rest).min()
    }

    /// Disconnects clients that have been silent for too long.
    pub fn drop_idle(&mut self, now_ns: u64) {
        if now_ns >= self.rest_until_ns {
            self.rest_until_ns = 0;
        }
        self.clients.retain(|client| client.deadline_ns().is_none_or(|at_ns| now_ns < at_ns));
    }

    fn drop_finished(&mut self) {
        self.clients.retain(|client| {
            let waits = client.unanswered > 0 || !client.output.is_empty();
            !client.has_ended || (waits && client.output.len() <= OUTPUT_MAX)
        });
    }
}

impl Client {
    /// Returns whether it waits for no response.
    fn is_silent(&self) -> bool {
        self.unanswered == 0
    }

    /// Returns when it is disconnected unless it sends a request first.
    fn deadline_ns(&self) -> Option<u64> {
        let idle_ns = self.heard_ns + CLIENT_IDLE_NS;
        let arrival_ns = self.awaited_since_ns + ARRIVAL_NS;
        let at_ns = if self.awaited_since_ns == 0 { idle_ns } else { arrival_ns };
        self.is_silent().then_some(at_ns)
    }

    /// Called after a read: notes whether the rest of a request is missing, and since when.
    fn note_progress(&mut self, has_request: bool) {
        if self.input.is_empty() && has_request {
            self.awaited_since_ns = 0;
        } else if has_request || (self.awaited_since_ns == 0 && !self.input.is_empty()) {
            self.awaited_since_ns = clock::now_ns();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while !self.has_ended && self.input.len() <= LINE_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(length) => {
                    self.heard_ns = clock::now_ns();
                    self.input.extend_from_slice(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.fail(),
            }
        }
    }

    fn answer(&mut self, response: &Response) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.heard_ns = clock::now_ns();
        // These types have no map with keys other than text, the only possible error.
        let line = serde_json::to_vec(response).unwrap_or_default();
        self.output.extend_from_slice(&line);
        self.output.push(b'\n');
        self.flush();
        if self.output.len() > OUTPUT_MAX {
            self.fail();
        }
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(),
            }
        }
    }

    /// Marks the client as gone: it has disconnected, or it sends requests without reading the responses.
    fn fail(&mut self) {
        self.has_ended = true;
        self.unanswered = 0;
        self.input.clear();
        self.output.clear();
    }
}

/// What exists at a path.
enum Owner {
    /// Nothing, or a socket without a server.
    None,
    /// A live socket of this process.
    Server(Pid),
}

/// Returns whether a lookup may have found the file with this identity: one that failed for want of descriptors or memory
/// has shown nothing.
fn may_be(found: &std::io::Result<(u64, u64)>, own: (u64, u64)) -> bool {
    match found {
        Ok(found) => *found == own,
        Err(error) => {
            matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        }
    }
}

/// Asks the kernel for the listening process. A full backlog does not block, and counts as an unknown process ID.
fn find_owner(path: &Path) -> Owner {
    match socket_file::connect(path) {
        Ok(stream) => getsockopt(&stream, sockopt::PeerCredentials)
            .map_or(Owner::Server(UNKNOWN), |peer| Owner::Server(Pid::from_raw(peer.pid()))),
        Err(Errno::EAGAIN | Errno::EACCES) => Owner::Server(UNKNOWN),
        Err(_) => Owner::None,
    }
}

/// Returns the path of a server whose configured path is taken by another one.
fn private_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

/// Creates the socket under a temporary name and renames it, so that an old one is replaced atomically. Anything
/// but a socket stays in place. Also returns device and inode of the file.
fn listen(
    path: &Path,
    mode: u32,
    user: Option<&Identity>,
) -> std::io::Result<(UnixListener, (u64, u64))> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        SafePath::resolve(parent, user)?.make_directory(Mode::S_IRWXU)?;
    }
    let path = SafePath::resolve(path, user)?;
    if path.stat().is_ok_and(|found| !is_kind(&found, SFlag::S_IFSOCK)) {
        let words = "the file exists and is not a socket; remove it or choose another path";
        return Err(std::io::Error::new(ErrorKind::AlreadyExists, words));
    }
    // Eight digits: the path of a unix socket is short, and `remove_stale` leaves such a name alone.
    let temporary = path.temporary(8)?;
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let listener = temporary.bind(|path| {
        UnixListener::bind(path)
            .map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
    });
    umask(before);
    let listener = listener.map_err(|errno| path.explain(errno.into()))?;
    let placed = socket_file::set_access(&temporary, None, None, Some(mode))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| Ok(temporary.identity()?))
        .and_then(|identity| Ok(temporary.rename_to(&path).map(|()| identity)?));
    match placed {
        Ok(identity) => Ok((listener, identity)),
        Err(error) => {
            let _ = temporary.remove();
            Err(path.explain(error))
        }
    }
}

/// Removes the sockets of killed servers that listened beside this path (see [`private_path`]).
fn remove_stale(path: &Path, user: Option<&Identity>) {
    let (Some(parent), Some(base)) = (path.parent(), path.file_name()) else { return };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let (Ok(path), Ok(entries)) = (SafePath::resolve(path, user), std::fs::read_dir(parent)) else {
        return;
    };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        let name = entry.file_name();
        let rest = name.as_bytes().strip_prefix(base.as_bytes());
        let number = rest.and_then(|rest| rest.strip_prefix(b"."));
        // Seven digits at most: the temporary name of a socket that is about to be renamed has eight.
        let is_pid = number.is_some_and(|digits| {
            matches!(digits.len(), 1..=7) && digits.iter().all(u8::is_ascii_digit)
        });
        let Ok(socket) = path.with_name(&name) else { return };
        let Some(found) = socket.stat().ok().filter(|_| is_pid) else { continue };
        let is_dead = || socket_file::connect(&entry.path()).err() == Some(Errno::ECONNREFUSED);
        if is_kind(&found, SFlag::S_IFSOCK) && is_dead() {
            // Another server may have removed it first.
            let _ = socket.remove_if((found.st_dev, found.st_ino));
        }
    }
}

/// Stands for a server whose process ID the kernel does not report; no process has it.
const UNKNOWN: Pid = Pid::from_raw(0);
/// Maximum number of clients; further ones wait in the socket's backlog.
const CLIENTS_MAX: usize = 16;
/// Longest line of a request in bytes.
const LINE_MAX: usize = 16 * 1024;
/// Maximum size of unread responses of a client, in bytes: the status of some thousand workers.
const OUTPUT_MAX: usize = 4 << 20;
/// Pause after a client could not be accepted: 500 ms.
const REST_NS: u64 = 500_000_000;
/// Time limit for a request to arrive: 5 s, from the connection or its first byte.
const ARRIVAL_NS: u64 = 5_000_000_000;
/// Maximum number of names read in the control socket's directory to find those of dead servers.
const ENTRIES_MAX: usize = 4096;
/// A client that sends no request for a minute is disconnected.
const CLIENT_IDLE_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn identity_of(path: &Path) -> (u64, u64) {
        SafePath::resolve(path, None).unwrap().identity().unwrap()
    }

    fn server(path: &Path) -> ControlServer {
        ControlServer {
            configured: Some(path.to_owned()),
            path: None,
            is_named: true,
            mode: 0o600,
            listener: None,
            missed: None,
            identity: None,
            user: None,
            clients: Vec::new(),
            clients_made: 0,
            spare: None,
            rest_until_ns: 0,
        }
    }

    #[test]
    fn only_the_predecessors_live_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.ctl");
        let mut first = server(&path);
        first.open(None);
        let taken = identity_of(&path);
        let mut second = server(&path);
        second.open(None);
        assert_eq!(identity_of(&path), taken);
        assert_eq!(second.path, Some(private_path(&path)));
        second.close();
        assert_eq!(identity_of(&path), taken);
        assert!(!private_path(&path).exists());
        let mut successor = server(&path);
        successor.open(Some(Pid::this()));
        assert_ne!(identity_of(&path), taken);
        first.close();
        assert!(path.exists());
        successor.close();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_file_that_was_seen_to_be_another_is_another() {
        let fails = |errno: Errno| Err(errno.into());
        for (found, is_own) in [
            (Ok((1, 2)), true),
            (Ok((1, 3)), false),
            (fails(Errno::ENOENT), false),
            (fails(Errno::EMFILE), true),
            (fails(Errno::ENFILE), true),
        ] {
            assert_eq!(may_be(&found, (1, 2)), is_own, "{found:?}");
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_regular_file_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.ctl");
        drop(UnixListener::bind(&path).unwrap());
        let mut control = server(&path);
        control.open(None);
        assert_eq!(control.path.as_ref(), Some(&path));
        assert!(UnixStream::connect(&path).is_ok());
        control.close();
        std::fs::write(&path, "kept").unwrap();
        let mut control = server(&path);
        control.open(None);
        assert!(control.missed.as_ref().unwrap().contains("not a socket"));
        control.close();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }
}
