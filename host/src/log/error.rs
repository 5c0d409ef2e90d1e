//! The error log, in gunicorn's form `[time] [pid] [LEVEL] message`, or as JSON.
//!
//! [`ErrorLog::install`] makes it the subscriber of `tracing`'s macros; plugins use [`ErrorLog::write`]. Spans
//! are ignored: the host logs only events, and plugins add their spans to their lines on their own side.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

use super::{
    escape,
    file::{LogFile, LogRecord},
    open::OpenError,
    syslog::{Part, Syslog},
    wall_clock::{self, LocalTime},
};
use crate::scoreboard::LogLines;
use crate::settings::{LogFormat, LogLevel, LogTarget, Settings};

/// The error log of this process. Forked processes keep using their copy.
#[derive(Debug)]
pub struct ErrorLog {
    file: LogFile,
    /// The least severe level that is written, as the number of a [`LogLevel`].
    level: AtomicU8,
    /// Whether lines are JSON.
    json: AtomicBool,
    /// Whether lines go to the journal, which expects a level at the start of each.
    journal: AtomicBool,
    /// Whether the standard streams of this process go to the file, too.
    captured: AtomicBool,
    /// Changed only where there is one thread, in the arbiter and in a loading mold, so that a fork never
    /// finds it locked.
    syslog: RwLock<Option<Syslog>>,
    /// Where lines are counted, once that exists.
    lines: OnceLock<LogLines>,
}

impl ErrorLog {
    /// Opens the log named by the settings. Standard error is duplicated: call this after anything that
    /// replaces it.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let file = LogFile::open(&settings.errorlog, io::stderr().as_fd(), settings)?;
        Ok(Self::with_file(file, settings))
    }

    /// Restores the log of the process that executed this one.
    pub fn restore(record: LogRecord, settings: &Settings) -> io::Result<Self> {
        let log = Self::with_file(record.restore(settings)?, settings);
        log.captured.store(settings.capture_output && !log.file.is_stream(), Ordering::Relaxed);
        Ok(log)
    }

    fn with_file(file: LogFile, settings: &Settings) -> Self {
        let log = Self {
            file,
            level: AtomicU8::default(),
            json: AtomicBool::default(),
            journal: AtomicBool::default(),
            captured: AtomicBool::default(),
            lines: OnceLock::new(),
            syslog: RwLock::new(None),
        };
        log.take_form(settings);
        log
    }

    /// Applies the settings of a new generation. If their file cannot be opened, nothing changes.
    pub fn apply(&self, settings: &Settings) -> Result<(), OpenError> {
        self.file.change_to(&settings.errorlog, io::stderr().as_fd(), settings)?;
        self.take_form(settings);
        Ok(())
    }

    fn take_form(&self, settings: &Settings) {
        let journal = settings.errorlog == LogTarget::Stream && is_journal(&self.file);
        self.level.store(settings.loglevel as u8, Ordering::Relaxed);
        match Syslog::open(settings, Part::Error) {
            Ok(syslog) => {
                *self.syslog.write().unwrap_or_else(PoisonError::into_inner) = syslog;
            }
            Err(error) => {
                let text = format!("cannot use syslog at {:?}: {error}", settings.syslog_addr);
                self.write(LogLevel::Error, module_path!(), &text);
            }
        }
        self.json.store(settings.log_format == LogFormat::Json, Ordering::Relaxed);
        self.journal.store(journal, Ordering::Relaxed);
    }

    /// Sends the events of `tracing` here for the rest of the process's life: the first installed log stays.
    pub fn install(self: Arc<Self>) {
        // Fails only if a log is already installed; see above.
        let _ = tracing::subscriber::set_global_default(Events(self));
    }

    /// Reopens the file (USR1), also for captured streams.
    pub fn reopen(&self) -> Result<(), OpenError> {
        self.file.reopen()?;
        if self.captured.load(Ordering::Relaxed)
            && let Err(error) = self.file.capture_streams()
        {
            tracing::error!("cannot redirect captured output to the reopened log: {error}");
        }
        Ok(())
    }

    /// Lets writes wait for the reader of a full pipe: in all processes but the arbiter.
    pub fn be_patient(&self) {
        self.file.be_patient();
    }

    /// Returns the log's file.
    pub fn file(&self) -> &LogFile {
        &self.file
    }

    /// Returns the numbers of the log's descriptors, which a forked process keeps.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let syslog = self.syslog.read().unwrap_or_else(PoisonError::into_inner);
        let syslog = syslog.as_ref().map(Syslog::descriptor);
        std::iter::once(self.file.as_fd().as_raw_fd()).chain(syslog).collect()
    }

    /// Redirects this process's standard output and standard error to the log's file (`capture_output`). A
    /// log that is standard error itself leaves both unchanged.
    pub fn capture_streams(&self) -> io::Result<()> {
        if self.file.is_stream() {
            return Ok(());
        }
        self.captured.store(true, Ordering::Relaxed);
        self.file.capture_streams()
    }

    /// Duplicates the log's file as standard output and standard error of another program.
    pub fn output(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let file = self.file.for_others()?;
        Ok((file.try_clone()?, file))
    }

    /// Returns whether lines of that level are written.
    pub fn enabled(&self, level: LogLevel) -> bool {
        level as u8 >= self.level.load(Ordering::Relaxed)
    }

    /// Counts lines there from now on, also in all processes forked later.
    pub fn count_in(&self, lines: LogLines) {
        // Fails only if lines are already counted.
        let _ = self.lines.set(lines);
    }

    /// Writes one message, if its level is enabled. `target` names the source; only JSON contains it.
    pub fn write(&self, level: LogLevel, target: &str, message: &str) {
        self.write_as(std::process::id(), level, target, message);
    }

    /// As [`ErrorLog::write`], with the process ID of another process, for which this one speaks.
    pub fn write_as(&self, pid: u32, level: LogLevel, target: &str, message: &str) {
        if self.enabled(level) {
            if let Some(lines) = self.lines.get() {
                lines.count(level as usize);
            }
            let now = wall_clock::now_millis();
            let written = self.file.append(&self.line(pid, level, target, message, now));
            if written {
                self.report_trouble(now);
            }
            let syslog = self.syslog.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(syslog) = &*syslog {
                syslog.send(level, message.as_bytes());
            }
        }
    }

    /// Writes text unchanged and in one piece, as the error stream of an application: without level or
    /// prefix. In a JSON log it is one object whose target is the name of the stream.
    pub fn write_text(&self, target: &str, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let written = if self.json.load(Ordering::Relaxed) {
            self.file.append(&json_text(target, text, wall_clock::now_millis()))
        } else if text.ends_with(b"\n") {
            self.file.append(text)
        } else {
            self.file.append(&[text, b"\n"].concat())
        };
        if written {
            self.report_trouble(wall_clock::now_millis());
        }
        let syslog = self.syslog.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(syslog) = &*syslog {
            syslog.send(LogLevel::Info, text);
        }
    }

    fn report_trouble(&self, now: (i64, i64)) {
        if let Some(trouble) = self.file.trouble() {
            let pid = std::process::id();
            self.file.append(&self.line(pid, LogLevel::Warning, module_path!(), &trouble, now));
        }
    }

    fn line(
        &self,
        pid: u32,
        level: LogLevel,
        target: &str,
        message: &str,
        (seconds, millis): (i64, i64),
    ) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_USUAL + message.len());
        let journal = self.journal.load(Ordering::Relaxed);
        let prefix = if journal { level.journal_prefix() } else { "" };
        line.extend_from_slice(prefix.as_bytes());
        // Writing to a vector cannot fail.
        if self.json.load(Ordering::Relaxed) {
            json_time(&mut line, (seconds, millis));
            let _ = write!(line, r#","level":"{}","pid":{pid},"target":"#, level.name());
            escape::json(&mut line, target.as_bytes());
            line.extend_from_slice(br#","message":"#);
            escape::json(&mut line, message.trim_end().as_bytes());
            line.push(b'}');
        } else {
            let t = LocalTime::at(seconds);
            let _ = write!(
                line,
                "[{:04}-{:02}-{:02} {:02}:{:02}:{:02} {}] [{pid}] [{}] ",
                t.year,
                t.month,
                t.day,
                t.hour,
                t.minute,
                t.second,
                t.offset(),
                level.name(),
            );
            escape::message(&mut line, message.trim_end(), prefix);
        }
        line.push(b'\n');
        line
    }
}

/// Logs panics of the server's own code.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Begins an object with its time.
fn json_time(line: &mut Vec<u8>, (seconds, millis): (i64, i64)) {
    let t = LocalTime::utc(seconds);
    // Writing to a vector cannot fail.
    let _ = write!(
        line,
        r#"{{"time":"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}Z""#,
        t.year, t.month, t.day, t.hour, t.minute, t.second,
    );
}

fn json_text(target: &str, text: &[u8], now: (i64, i64)) -> Vec<u8> {
    let mut line = Vec::with_capacity(LINE_USUAL + text.len());
    json_time(&mut line, now);
    let _ = write!(line, r#","pid":{},"target":"#, std::process::id());
    escape::json(&mut line, target.as_bytes());
    line.extend_from_slice(br#","message":"#);
    escape::json(&mut line, text.trim_ascii_end());
    line.extend_from_slice(b"}\n");
    line
}

impl LogLevel {
    /// gunicorn's name of the level in a line.
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// The priority of syslog(3), in the notation of sd-daemon(3) for the start of a line.
    fn journal_prefix(self) -> &'static str {
        match self {
            Self::Debug => "<7>",
            Self::Info => "<6>",
            Self::Warning => "<4>",
            Self::Error => "<3>",
            Self::Critical => "<2>",
        }
    }

    /// Converts a level of `tracing`; levels below debug are debug.
    fn from_tracing(level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// The `tracing` subscriber that writes to the log.
struct Events(Arc<ErrorLog>);

impl Subscriber for Events {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The level may change at any reload: read it each time, which costs one load.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() != Level::TRACE
            && self.0.enabled(LogLevel::from_tracing(*metadata.level()))
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let metadata = event.metadata();
        let level = LogLevel::from_tracing(*metadata.level());
        self.0.write(level, metadata.target(), &message.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, followed by its other fields as `name=value`.
#[derive(Default)]
struct Message(String);

impl Message {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            self.0.insert_str(0, &value.to_string());
            Ok(())
        } else {
            write!(self.0, " {}={value}", field.name())
        };
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, format_args!("{value}"));
        let mut cause = value.source();
        while let Some(error) = cause {
            self.add(field, format_args!("{error}"));
            cause = error.source();
        }
    }
}

/// Returns whether the file is the connection to the journal that systemd made for this service (systemd.exec(5),
/// `$JOURNAL_STREAM`).
fn is_journal(file: &LogFile) -> bool {
    let Ok(facts) = nix::sys::stat::fstat(file) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stream == format!("{}:{}", facts.st_dev, facts.st_ino))
}

/// Room for the prefix of a line.
const LINE_USUAL: usize = 96;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::file::tests::open;
    use crate::settings::Sources;

    fn log(json: bool, journal: bool) -> ErrorLog {
        ErrorLog {
            file: open(Path::new("/dev/null")),
            level: AtomicU8::new(LogLevel::Info as u8),
            json: AtomicBool::new(json),
            journal: AtomicBool::new(journal),
            captured: AtomicBool::default(),
            lines: OnceLock::new(),
            syslog: RwLock::new(None),
        }
    }

    fn settings(directory: &Path, args: &[&str]) -> Arc<Settings> {
        let args = args.iter().map(Into::into).collect();
        let sources = Sources { args, directory: directory.to_owned(), ..Sources::default() };
        sources.load().unwrap().0
    }

    #[test]
    fn text_lines_are_gunicorns() {
        let line =
            log(false, false).line(std::process::id(), LogLevel::Info, "x", "Booting\n", (0, 7));
        let line = String::from_utf8(line).unwrap();
        let pid = std::process::id();
        let offset = LocalTime::at(0).offset();
        assert!(line.ends_with(&format!(" {offset}] [{pid}] [INFO] Booting\n")), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(line.find(']'), Some("[1970-01-01 00:00:00 +0000".len()));
    }

    #[test]
    fn the_journal_receives_the_level_of_each_line() {
        let line =
            log(false, true).line(std::process::id(), LogLevel::Error, "x", "one\ntwo", (0, 0));
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("<3>["), "{line}");
        assert!(line.ends_with("one\n<3>two\n"), "{line}");
    }

    #[test]
    fn json_lines_read_back_on_one_line() {
        let line = log(true, false).line(
            std::process::id(),
            LogLevel::Critical,
            "mold",
            "a \"b\"\nc",
            (0, 7),
        );
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["time"], "1970-01-01T00:00:00.007Z");
        assert_eq!(read["level"], "CRITICAL");
        assert_eq!(read["target"], "mold");
        assert_eq!(read["message"], "a \"b\"\nc");
    }

    #[test]
    fn an_applications_text_is_written_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let log = ErrorLog::open(&settings(directory.path(), &["--log-file", "log"])).unwrap();
        log.write_text("wsgi.errors", "Traceback:\n  \x1b[1mline\u{e9}\n".as_bytes());
        log.write_text("wsgi.errors", b"");
        let json = ["--log-file", "log", "--log-format", "json", "--log-level", "error"];
        log.apply(&settings(directory.path(), &json)).unwrap();
        log.write_text("wsgi.errors", b"one\ntwo\n");
        let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
        let object = text.strip_prefix("Traceback:\n  \x1b[1mline\u{e9}\n").unwrap();
        let read: serde_json::Value = serde_json::from_str(object).unwrap();
        assert_eq!(
            (&read["message"], &read["target"]),
            (&"one\ntwo".into(), &"wsgi.errors".into())
        );
        assert_eq!(read["level"], serde_json::Value::Null);
    }

    #[test]
    fn events_have_their_fields_and_follow_the_current_level() {
        let directory = tempfile::tempdir().unwrap();
        let file = ["--log-file", "log"];
        let log = Arc::new(ErrorLog::open(&settings(directory.path(), &file)).unwrap());
        tracing::subscriber::with_default(Events(Arc::clone(&log)), || {
            tracing::debug!("not seen");
            tracing::info!(worker = 3, "booted");
            let quiet = [&file[..], &["--log-level", "error"]].concat();
            log.apply(&settings(directory.path(), &quiet)).unwrap();
            tracing::warn!("not seen either");
            let error = io::Error::other("no such thing");
            tracing::error!(error = &error as &dyn std::error::Error, "failed");
        });
        let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
        let messages: Vec<_> = text.lines().map(|l| l.splitn(4, "] ").last().unwrap()).collect();
        assert_eq!(messages, ["booted worker=3", "failed error=no such thing"]);
    }

    #[test]
    fn a_new_target_that_cannot_be_opened_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let log = ErrorLog::open(&settings(directory.path(), &["--log-file", "log"])).unwrap();
        let wrong = ["--log-file", "none/log", "--log-format", "json"];
        assert!(log.apply(&settings(directory.path(), &wrong)).is_err());
        log.write(LogLevel::Error, "x", "still text");
        let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(text.ends_with("[ERROR] still text\n"), "{text}");
    }

    #[test]
    fn captured_streams_follow_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = ErrorLog::open(&settings(directory.path(), &["--log-file", "log"])).unwrap();
        let speak = || {
            log.capture_streams()?;
            nix::unistd::write(io::stdout(), b"to standard output\n")?;
            std::fs::rename(&path, &rotated)?;
            log.reopen().map_err(io::Error::other)?;
            nix::unistd::write(io::stderr(), b"to standard error\n").map_err(io::Error::from)
        };
        // SAFETY: the child calls nothing that waits for another thread of this process: glibc makes its
        // allocator usable in a child.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let status = i32::from(speak().is_err());
                // SAFETY: ends the child without the exit handlers of the test process.
                unsafe { libc::_exit(status) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let end = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(end, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "to standard output\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "to standard error\n");
    }
}
