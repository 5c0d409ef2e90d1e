//! A log's file: lines are appended whole, waiting for a reader is limited, and USR1 reopens it.
//!
//! The descriptor keeps its number: dup3(2) puts a reopened file in its place, so that writers and the thread
//! that reopens need no lock.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::held::{HELD_MAX, Held};
use super::open::{self, OpenError};
use super::sink::{Sink, blocking_clone};
use crate::privileges::Identity;
use crate::process;
use crate::settings::{LogTarget, Settings};

/// An open log file, or a standard stream.
#[derive(Debug)]
pub struct LogFile {
    descriptor: OwnedFd,
    /// The [`Sink`] of the descriptor.
    sink: AtomicU8,
    /// Locked only to reopen the file, never to write.
    origin: Mutex<Origin>,
    /// Whether writes wait for the reader of a full pipe.
    patient: AtomicBool,
    /// Whether a wait for the reader has timed out: no writer waits until it reads again.
    stalled: AtomicBool,
    /// Whether the last line is incomplete because the reader had no room for the rest.
    torn: AtomicBool,
    /// Lines lost since the last successful write, and the error.
    lost: AtomicU64,
    error: AtomicI32,
    /// Whether the trouble has been reported.
    reported: AtomicBool,
    /// Lines that wait for the reader.
    held: Held,
}

/// A [`LogFile`] as data, for a process that is executed.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogRecord {
    descriptor: RawFd,
    sink: u8,
    origin: OriginRecord,
}

#[derive(Debug, Serialize, Deserialize)]
enum OriginRecord {
    Stream,
    Inherited,
    File(#[serde(with = "crate::bytes")] PathBuf),
}

impl LogRecord {
    /// Restores the file.
    pub fn restore(self, settings: &Settings) -> io::Result<LogFile> {
        let origin = match self.origin {
            OriginRecord::Stream => Origin::Stream,
            OriginRecord::Inherited => Origin::Inherited,
            OriginRecord::File(path) => Origin::File(path, Identity::of_workers(settings)),
        };
        let descriptor = process::take_descriptor(self.descriptor)?;
        Ok(LogFile::new(Opened { descriptor, sink: Sink::from_number(self.sink), origin }))
    }
}

/// Where a log's descriptor comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// The standard stream of that log: `-`.
    Stream,
    /// An inherited descriptor: `/dev/stdout`.
    Inherited,
    /// A file, with the user for whom it is opened.
    File(PathBuf, Option<Identity>),
}

/// An opened descriptor of a log.
struct Opened {
    descriptor: OwnedFd,
    sink: Sink,
    origin: Origin,
}

impl LogFile {
    /// Opens the target of a log. `-` is a duplicate of `stream`, so that a later redirection has no effect
    /// on it. A file is opened with the rights of the settings' user, since workers reopen it themselves.
    pub fn open(
        target: &LogTarget,
        stream: BorrowedFd<'_>,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        Ok(Self::new(open_target(target, stream, settings)?))
    }

    fn new(opened: Opened) -> Self {
        let Opened { descriptor, sink, origin } = opened;
        Self {
            descriptor,
            sink: AtomicU8::new(sink as u8),
            origin: Mutex::new(origin),
            patient: AtomicBool::default(),
            stalled: AtomicBool::default(),
            torn: AtomicBool::default(),
            lost: AtomicU64::default(),
            error: AtomicI32::default(),
            reported: AtomicBool::default(),
            held: Held::default(),
        }
    }

    /// Records the file for a process that this one executes, which inherits the descriptor.
    pub fn record(&self) -> LogRecord {
        LogRecord {
            descriptor: self.descriptor.as_raw_fd(),
            sink: self.sink() as u8,
            origin: match &*self.origin() {
                Origin::Stream => OriginRecord::Stream,
                Origin::Inherited => OriginRecord::Inherited,
                Origin::File(path, _) => OriginRecord::File(path.clone()),
            },
        }
    }

    /// Lets writes wait for the reader of a full pipe, up to a second in a row: in all processes but the
    /// arbiter.
    pub fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// Lets this process keep lines while the reader of a full pipe does not read: the arbiter, which does not
    /// wait for one.
    pub fn keep_lines(&self) {
        self.held.enable();
    }

    /// Returns whether lines are kept for the reader, so that [`LogFile::write_kept`] is to be called once the
    /// descriptor is writable.
    pub fn keeps_lines(&self) -> bool {
        self.held.lines().is_some_and(|held| !held.is_empty())
    }

    /// Writes the lines that were kept, as far as the reader lets it.
    pub fn write_kept(&self) {
        if let Some(mut held) = self.held.lines() {
            self.write_held(&mut held);
        }
    }

    /// Appends whole lines and counts those that cannot be written. Returns whether all were written. It has
    /// no error, since a full disk or a closed pipe must not disturb the service.
    pub fn append(&self, lines: &[u8]) -> bool {
        let mut held = self.held.lines();
        if let Some(held) = held.as_deref_mut().filter(|held| !held.is_empty()) {
            self.write_held(held);
            if !held.is_empty() {
                self.hold(held, lines);
                return false;
            }
        }
        let Err((written, error)) = self.append_some(lines) else { return true };
        match held.filter(|_| error == Errno::EAGAIN) {
            Some(mut held) => self.hold(&mut held, &lines[written..]),
            None => self.lose(&lines[written..], error),
        }
        false
    }

    fn write_held(&self, held: &mut Vec<u8>) {
        match self.append_some(held) {
            Ok(()) => held.clear(),
            Err((written, Errno::EAGAIN)) => drop(held.drain(..written)),
            Err((written, error)) => {
                self.lose(&held[written..], error);
                held.clear();
            }
        }
    }

    /// Keeps lines, or counts them as lost if there is no room for them.
    fn hold(&self, held: &mut Vec<u8>, lines: &[u8]) {
        if held.len() + lines.len() > HELD_MAX {
            self.lose(lines, Errno::EAGAIN);
        } else {
            held.extend_from_slice(lines);
        }
    }

    /// Appends whole lines. If not all could be written, returns the number of bytes written, which end at a
    /// line's end or in a line that stays incomplete.
    pub(super) fn append_some(&self, lines: &[u8]) -> Result<(), (usize, Errno)> {
        let sink = self.sink();
        let mut written = 0;
        if self.torn.load(Ordering::Relaxed) && !lines.is_empty() {
            self.write_piece(sink, b"\n").map_err(|(_, error)| (0, error))?;
            self.torn.store(false, Ordering::Relaxed);
        }
        while written < lines.len() {
            let rest = &lines[written..];
            let piece = &rest[..piece_len(rest, sink.piece_max())];
            match self.write_piece(sink, piece) {
                Ok(()) => written += piece.len(),
                Err((0, error)) => return Err((written, error)),
                Err((part, error)) => {
                    let torn = part < piece.len() && piece[part - 1] != b'\n';
                    self.torn.store(torn, Ordering::Relaxed);
                    // The rest of an incomplete line is lost as well.
                    let line = if torn { line_len(&piece[part..]) } else { 0 };
                    if torn {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        self.error.store(error as i32, Ordering::Relaxed);
                    }
                    return Err((written + part + line, error));
                }
            }
        }
        Ok(())
    }

    /// Counts lines as lost.
    pub(super) fn lose(&self, lines: &[u8], error: Errno) {
        let count = lines.split_inclusive(|byte| *byte == b'\n').count();
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
        self.error.store(error as i32, Ordering::Relaxed);
    }

    /// Returns the report about this log's trouble, if one is due: once when lines begin to be lost, and once
    /// when writing works again. Costs two loads without trouble.
    pub fn trouble(&self) -> Option<String> {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost == 0 {
            return None;
        }
        let error = self.error.load(Ordering::Relaxed);
        if error == 0 {
            self.reported.store(false, Ordering::Relaxed);
            self.lost.store(0, Ordering::Relaxed);
            return Some(format!("{} is writable again; {lost} lines were lost", self.name()));
        }
        if self.reported.swap(true, Ordering::Relaxed) {
            return None;
        }
        let reason = match Errno::from_raw(error) {
            Errno::EAGAIN => "its reader is not reading",
            errno => errno.desc(),
        };
        Some(format!(
            "cannot write to {}: {reason}; lines are dropped until it is writable again",
            self.name()
        ))
    }

    /// Writes one piece, with as many system calls as it takes, until it is written or fails.
    fn write_piece(&self, sink: Sink, piece: &[u8]) -> Result<(), (usize, Errno)> {
        let mut until = None;
        let mut written = 0;
        while written < piece.len() {
            match sink.write(self.as_fd(), &piece[written..]) {
                Ok(part @ 1..) => written += part,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let until = until.get_or_insert_with(|| Instant::now() + self.patience());
                    if !Sink::wait(self.as_fd(), *until) {
                        self.stalled.store(true, Ordering::Relaxed);
                        return Err((written, Errno::EAGAIN));
                    }
                }
                Ok(0) => return Err((written, Errno::EIO)),
                Err(error) => return Err((written, error)),
            }
        }
        if self.error.load(Ordering::Relaxed) != 0 || self.stalled.load(Ordering::Relaxed) {
            self.stalled.store(false, Ordering::Relaxed);
            self.error.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        let waits = self.patient.load(Ordering::Relaxed) && !self.stalled.load(Ordering::Relaxed);
        if waits { PATIENCE } else { Duration::ZERO }
    }

    /// Reopens the file, for log rotation; a stream stays the same. If the file cannot be opened, the old one
    /// stays in use.
    pub fn reopen(&self) -> Result<(), OpenError> {
        let Origin::File(path, owner) = &*self.origin() else { return Ok(()) };
        let descriptor = open::open(path, owner.as_ref())?;
        let sink = Sink::of_opened(descriptor.as_fd());
        self.put(&descriptor, sink).map_err(|error| OpenError::new(path, &error))
    }

    /// Changes to another target, as after a reload. If it cannot be opened, the old one stays in use.
    pub fn change_to(
        &self,
        target: &LogTarget,
        stream: BorrowedFd<'_>,
        settings: &Settings,
    ) -> Result<(), OpenError> {
        let Opened { descriptor, sink, origin } = open_target(target, stream, settings)?;
        self.put(&descriptor, sink).map_err(|error| OpenError::new(&name_of(target), &error))?;
        *self.origin() = origin;
        Ok(())
    }

    /// Redirects standard output and standard error of this process to the file.
    pub(super) fn capture_streams(&self) -> io::Result<()> {
        let blocking = self.for_others()?;
        put_over(&blocking, libc::STDOUT_FILENO, 0)?;
        put_over(&blocking, libc::STDERR_FILENO, 0)
    }

    /// Returns the file for users that expect blocking writes: other programs, the application's output.
    pub(super) fn for_others(&self) -> io::Result<OwnedFd> {
        blocking_clone(self.as_fd(), self.sink())
    }

    /// Returns whether this is a standard stream by the name `-`.
    pub(super) fn is_stream(&self) -> bool {
        matches!(*self.origin(), Origin::Stream)
    }

    fn name(&self) -> String {
        match &*self.origin() {
            Origin::Stream | Origin::Inherited => "a standard stream".to_owned(),
            Origin::File(path, _) => path.display().to_string(),
        }
    }

    fn put(&self, from: &OwnedFd, sink: Sink) -> io::Result<()> {
        put_over(from, self.descriptor.as_raw_fd(), libc::O_CLOEXEC)?;
        self.sink.store(sink as u8, Ordering::Relaxed);
        self.stalled.store(false, Ordering::Relaxed);
        self.torn.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn sink(&self) -> Sink {
        Sink::from_number(self.sink.load(Ordering::Relaxed))
    }

    fn origin(&self) -> MutexGuard<'_, Origin> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Returns how many bytes of whole lines one write may have: those of several lines, or of one line of any
/// length. The kernel keeps even a long line in one piece while the pipe has room for it.
fn piece_len(lines: &[u8], most: usize) -> usize {
    if lines.len() <= most {
        return lines.len();
    }
    match lines[..most].iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None => line_len(lines),
    }
}

/// Returns the length of the first line, including its end.
fn line_len(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn open_target(
    target: &LogTarget,
    stream: BorrowedFd<'_>,
    settings: &Settings,
) -> Result<Opened, OpenError> {
    let of_shared = |fd, origin| {
        let (descriptor, sink) = Sink::of_shared(fd)?;
        Ok(Opened { descriptor, sink, origin })
    };
    let failed = |error: io::Error| OpenError::new(&name_of(target), &error);
    let LogTarget::File(path) = target else {
        return of_shared(stream, Origin::Stream).map_err(failed);
    };
    let owner = Identity::of_workers(settings);
    if let Some(number) = open::descriptor_of(path, owner.as_ref()) {
        return open::borrow_inherited(number)
            .and_then(|fd| of_shared(fd, Origin::Inherited))
            .map_err(failed);
    }
    let descriptor = open::open(path, owner.as_ref())?;
    let sink = Sink::of_opened(descriptor.as_fd());
    Ok(Opened { descriptor, sink, origin: Origin::File(path.clone(), owner) })
}

fn name_of(target: &LogTarget) -> PathBuf {
    match target {
        LogTarget::Stream => "-".into(),
        LogTarget::File(path) => path.clone(),
    }
}

/// Makes the descriptor `number` refer to the file of `from`.
fn put_over(from: &OwnedFd, number: RawFd, flags: i32) -> io::Result<()> {
    if from.as_raw_fd() == number {
        return Ok(());
    }
    // SAFETY: the call takes numbers only. `number` is this log's own descriptor or a standard stream, whose
    // owners expect the replacement.
    Errno::result(unsafe { libc::dup3(from.as_raw_fd(), number, flags) })?;
    Ok(())
}

/// How long to wait, once, for the reader of a full pipe before lines are lost: a worker that waits serves no
/// requests.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs,
        io::{Read as _, stderr},
        os::unix::fs::{MetadataExt, PermissionsExt as _, chown, symlink},
        path::Path,
        sync::Arc,
    };

    use super::*;
    use crate::settings::Sources;

    pub(in crate::log) fn open(path: &Path) -> LogFile {
        let target = LogTarget::File(path.to_owned());
        LogFile::open(&target, stderr().as_fd(), &as_user(&[])).unwrap()
    }

    pub(in crate::log) fn as_user(args: &[&str]) -> Arc<Settings> {
        let args = args.iter().map(Into::into).collect();
        let sources = Sources { args, directory: "/".into(), ..Sources::default() };
        sources.load().unwrap().0
    }

    #[test]
    fn a_file_belongs_to_the_workers_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let settings = as_user(&["--user", "4711", "--group", "4712"]);
        let target = LogTarget::File(path.clone());
        let log = LogFile::open(&target, stderr().as_fd(), &settings).unwrap();
        for _ in 0..2 {
            let facts = fs::metadata(&path).unwrap();
            assert_eq!((facts.uid(), facts.gid()), (4711, 4712));
            fs::remove_file(&path).unwrap();
            log.reopen().unwrap();
        }
        assert!(nix::unistd::getgroups().unwrap().iter().all(|group| group.as_raw() != 4712));
        let root_again = directory.path().join("root's");
        fs::write(&root_again, "").unwrap();
        assert_eq!(fs::metadata(root_again).unwrap().uid(), 0);
    }

    #[test]
    fn root_follows_its_own_links_and_none_of_the_workers_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["var", "theirs", "secret"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o700)).unwrap();
        chown(at("theirs"), Some(4711), Some(4712)).unwrap();
        fs::write(at("secret/key"), "").unwrap();
        symlink(at("secret/key"), at("theirs/key")).unwrap();
        symlink(at("secret/new"), at("theirs/new")).unwrap();
        symlink(at("secret"), at("theirs/sub")).unwrap();
        symlink(at("var"), at("logs")).unwrap();
        let of_root = fs::File::options().append(true).open(at("secret/key")).unwrap();
        let number = format!("/proc/self/fd/{}", of_root.as_raw_fd());
        symlink(&number, at("theirs/number")).unwrap();
        symlink(at("theirs/number"), at("var/number")).unwrap();
        let settings = as_user(&["--user", "4711", "--group", "4712"]);
        let open = |name: &str| {
            let log = LogFile::open(&LogTarget::File(at(name)), stderr().as_fd(), &settings);
            log.map(|log| log.append(b"line\n"))
        };
        let links = ["theirs/key", "theirs/new", "theirs/sub/key", "theirs/sub/other"];
        for name in links.into_iter().chain(["theirs/number", "var/number"]) {
            let error = open(name).unwrap_err().to_string();
            assert!(error.contains(&at(name).display().to_string()), "{error}");
        }
        assert_eq!(fs::read_to_string(at("secret/key")).unwrap(), "");
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 1);
        for (name, owner) in [("theirs/log", 4711), ("logs/log", 4711)] {
            assert!(open(name).unwrap(), "{name}");
            let facts = fs::metadata(at(name)).unwrap();
            assert_eq!((facts.uid(), facts.len()), (owner, 5), "{name}");
        }
        symlink(&number, at("var/roots-number")).unwrap();
        assert!(open("logs/roots-number").unwrap());
        assert_eq!(fs::read_to_string(at("secret/key")).unwrap(), "line\n");
        // logrotate's `create 0640 root adm` in a directory of root's.
        fs::write(at("var/roots"), "").unwrap();
        assert!(open("logs/roots").unwrap());
    }

    #[test]
    fn an_error_names_the_file_and_what_is_missing() {
        let open = |path: &str| {
            let target = LogTarget::File(path.into());
            LogFile::open(&target, stderr().as_fd(), &as_user(&[])).unwrap_err().to_string()
        };
        assert_eq!(
            open("/nowhere/at/all/log"),
            "cannot open the log /nowhere/at/all/log: directory /nowhere/at/all does not exist"
        );
        let error = open("/proc/self/fd/9999");
        assert!(error.starts_with("cannot open the log /proc/self/fd/9999: "), "{error}");
    }

    #[test]
    fn a_fifo_needs_no_reader_and_keeps_lines_up_to_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd(), &as_user(&[]));
        let log = log.unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let written = std::iter::repeat_with(|| log.append(&line)).take_while(|all| *all).count();
        assert!(written > 50, "{written}");
        log.reopen().unwrap();
        assert!(log.trouble().unwrap().contains("fifo: its reader is not reading"));
        assert_eq!(log.trouble(), None, "it is said once");
        let mut reader = fs::File::open(&path).unwrap();
        let mut text = vec![0; written * line.len()];
        reader.read_exact(&mut text).unwrap();
        assert!(text.chunks(line.len()).all(|found| found == line));
        assert!(log.append(b"again\n"));
        assert!(log.trouble().unwrap().ends_with(" is writable again; 1 lines were lost"));
    }

    #[test]
    fn lines_are_kept_for_a_reader_up_to_a_bound() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let log = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[])).unwrap();
        log.keep_lines();
        let line = |number: usize| format!("{number:0999}\n").into_bytes();
        let written = (0..HELD_MAX).take_while(|number| log.append(&line(*number))).count();
        assert!(log.keeps_lines());
        assert_eq!(log.trouble(), None, "nothing is lost");
        let kept = 1
            + (0..HELD_MAX)
                .find(|more| {
                    assert!(!log.append(&line(written + 1 + more)));
                    log.trouble().is_some()
                })
                .unwrap();
        assert_eq!(kept, HELD_MAX / 1000);
        let mut reader = fs::File::from(reader);
        let mut text = vec![0; (written + kept) * 1000];
        let mut read = 0;
        while read < text.len() {
            read += reader.read(&mut text[read..]).unwrap();
            log.write_kept();
        }
        assert!(!log.keeps_lines());
        for (number, found) in text.chunks(1000).enumerate() {
            assert_eq!(found, line(number));
        }
        assert!(log.append(b"again\n"));
        assert!(log.trouble().unwrap().ends_with(" is writable again; 1 lines were lost"));
        drop(reader);
    }

    #[test]
    fn kept_lines_of_a_pipe_without_a_reader_are_lost() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let log = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[])).unwrap();
        log.keep_lines();
        while log.append(&[b'x'; 999]) {}
        assert!(log.keeps_lines());
        drop(reader);
        log.write_kept();
        assert!(!log.keeps_lines());
    }

    #[test]
    fn a_shared_pipe_does_not_block_and_stays_blocking_for_others() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let log = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[])).unwrap();
        for sink in [Sink::Own, Sink::Shared] {
            if sink == Sink::Shared {
                log.put(&writer.try_clone().unwrap(), sink).unwrap();
            }
            assert_eq!(log.sink(), sink);
            let line = [&[b'x'; 3000][..], b"\n"].concat();
            let written = std::iter::repeat_with(|| log.append(&line)).take_while(|all| *all);
            assert!(written.count() > 10);
            let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
            assert!(!flags.contains(OFlag::O_NONBLOCK));
            let mut text = vec![0; 64 * 1024];
            let length = nix::unistd::read(&reader, &mut text).unwrap();
            assert!(text[..length].chunks(line.len()).all(|found| found == line), "whole lines");
        }
    }

    #[test]
    fn writing_to_a_socket_does_not_block() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = LogTarget::File(format!("/proc/self/fd/{}", near.as_raw_fd()).into());
        let log = LogFile::open(&number, stderr().as_fd(), &as_user(&[])).unwrap();
        drop(near);
        assert!(log.append(b"to the journal\n"));
        let mut text = [0; 15];
        (&far).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"to the journal\n");
        let line = [&[b'x'; 999][..], b"\n"].concat();
        while log.append(&line) {}
        drop(far);
        assert!(!log.append(b"no one reads\n"));
    }

    #[test]
    fn lines_from_several_writers_to_one_pipe_are_never_torn() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let length = |n: usize| 60 + n * 37 % 140;
        let writers: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| {
                let writer = writer.try_clone().unwrap();
                std::thread::spawn(move || {
                    let log = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[]));
                    let log = log.unwrap();
                    log.be_patient();
                    for _ in 0..50 {
                        let block: String =
                            (0..200).map(|n| name.repeat(length(n)) + "\n").collect();
                        assert!(log.append(block.as_bytes()));
                    }
                })
            })
            .into();
        drop(writer);
        let mut text = String::new();
        fs::File::from(reader).read_to_string(&mut text).unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(text.lines().count(), 4 * 50 * 200);
        for line in text.lines() {
            let first = line.as_bytes()[0];
            assert!(line.bytes().all(|byte| byte == first), "a torn line: {line}");
        }
    }

    #[test]
    fn reopening_leaves_a_renamed_file_and_loses_no_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log =
            LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd(), &as_user(&[])).unwrap();
        assert!(log.append(b"one\n"));
        let rotated = directory.path().join("log.1");
        fs::rename(&path, &rotated).unwrap();
        assert!(log.append(b"two\n"));
        log.reopen().unwrap();
        assert!(log.append(b"three\n"));
        assert_eq!(fs::read_to_string(rotated).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn a_changed_target_is_opened_and_used() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| directory.path().join(name));
        let log =
            LogFile::open(&LogTarget::File(paths[0].clone()), stderr().as_fd(), &as_user(&[]))
                .unwrap();
        log.append(b"one\n");
        log.change_to(&LogTarget::File(paths[1].clone()), stderr().as_fd(), &as_user(&[])).unwrap();
        log.append(b"two\n");
        fs::remove_file(&paths[1]).unwrap();
        log.reopen().unwrap();
        log.append(b"three\n");
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/log");
        fs::create_dir(directory.path().join("sub")).unwrap();
        let log =
            LogFile::open(&LogTarget::File(path.clone()), stderr().as_fd(), &as_user(&[])).unwrap();
        let kept = directory.path().join("kept");
        fs::rename(&path, &kept).unwrap();
        fs::remove_dir(directory.path().join("sub")).unwrap();
        assert!(log.reopen().is_err());
        assert!(log.append(b"still here\n"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "still here\n");
    }

    #[test]
    fn a_full_disk_and_a_closed_pipe_are_only_reported() {
        let full = LogTarget::File("/dev/full".into());
        assert!(!LogFile::open(&full, stderr().as_fd(), &as_user(&[])).unwrap().append(b"lost\n"));
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let closed = LogFile::open(&LogTarget::Stream, writer.as_fd(), &as_user(&[])).unwrap();
        assert!(!closed.append(b"lost\n"));
    }
}
