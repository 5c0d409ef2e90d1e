//! The access log of one worker: one line for each request, collected and written in blocks.
//!
//! A line is written immediately if none was written recently. Otherwise it waits with others in the worker's
//! shared memory (see [`AccessBuffer`]) until a timer fires or the slot is full. The timer wakes the worker's
//! loop: a worker whose only thread is busy with a request writes once that has ended. If a worker dies, the
//! arbiter writes its remaining lines.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::{
        time::{TimeSpec, TimeValLike as _},
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use worker_api::AccessRecord;

use super::{
    escape,
    file::LogFile,
    format::{AccessFormat, LineContext, basic_user, decimal_seconds, number, request_id},
    open::OpenError,
    syslog::{Part, Syslog},
    wall_clock::{self, LocalTime},
};
use crate::{
    scoreboard::{ACCESS_LINES_MAX, AccessBuffer},
    settings::{LogFormat, LogLevel, LogTarget, Settings},
};

/// The access log of this worker. Any of its threads may write to it.
#[derive(Debug)]
pub struct AccessLog {
    file: Arc<LogFile>,
    form: Form,
    lines: Mutex<Lines>,
    /// Process ID, read once: the log belongs to one process.
    pid: u32,
    syslog: Option<Syslog>,
    variables: Variables,
    /// Sampling: one of `sample` lines is written. `seen` counts them all.
    sample: u64,
    seen: AtomicU64,
}

#[derive(Debug)]
enum Form {
    Text(AccessFormat),
    Json,
}

/// State that changes from line to line.
#[derive(Debug)]
struct Lines {
    buffer: AccessBuffer,
    /// Buffer for the line being formatted, reused.
    line: Vec<u8>,
    stamp: Stamp,
    pace: Pace,
}

/// When lines are written.
#[derive(Debug)]
struct Pace {
    /// Fires when buffered lines are due. `None` if the system has no timer: lines then wait for
    /// [`AccessLog::flush_due`].
    timer: Option<TimerFd>,
    /// Whether the timer is set.
    armed: bool,
    /// Time of the last write, in milliseconds of the monotonic clock.
    written_ms: i64,
}

impl Pace {
    fn new() -> Self {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok(),
            armed: false,
            written_ms: i64::MIN,
        }
    }

    fn is_due(&self, now_ms: i64) -> bool {
        now_ms >= self.written_ms.saturating_add(PACE_MS)
    }

    /// Sets the timer to fire when the buffered lines are due.
    fn arm(&mut self, now_ms: i64) {
        let Some(timer) = self.timer.as_ref().filter(|_| !self.armed) else { return };
        let left = self.written_ms.saturating_add(PACE_MS).saturating_sub(now_ms).clamp(1, PACE_MS);
        let after = Expiration::OneShot(TimeSpec::milliseconds(left));
        self.armed = timer.set(after, TimerSetTimeFlags::empty()).is_ok();
    }
}

impl AccessLog {
    /// Opens the file named by the settings; returns `None` without an access log. Called by the arbiter,
    /// which needs the file for the lines that dead workers leave.
    pub fn open_file(settings: &Settings) -> Result<Option<LogFile>, OpenError> {
        let open = |target| LogFile::open(target, io::stdout().as_fd(), settings);
        // With syslog alone, lines take the same path to a file that keeps nothing.
        let nowhere = LogTarget::File("/dev/null".into());
        let to_syslog = settings.syslog && !settings.disable_redirect_access_to_syslog;
        let only_syslog = to_syslog.then_some(&nowhere);
        settings.accesslog.as_ref().or(only_syslog).map(open).transpose()
    }

    /// Creates the log of the worker that owns `buffer`. Must be called in the worker itself.
    pub fn new(settings: &Settings, file: Arc<LogFile>, buffer: AccessBuffer) -> Self {
        let form = match settings.log_format {
            LogFormat::Text => Form::Text(settings.access_log_format.clone()),
            LogFormat::Json => Form::Json,
        };
        let stamp = Stamp::default();
        let lines = Lines { buffer, line: Vec::new(), stamp, pace: Pace::new() };
        let syslog = Syslog::open(settings, Part::Access).unwrap_or_else(|error| {
            tracing::error!("cannot send the access log to syslog: {error}");
            None
        });
        Self {
            file,
            form,
            lines: Mutex::new(lines),
            pid: std::process::id(),
            syslog,
            variables: Variables::default(),
            sample: settings.access_log_sample,
            seen: AtomicU64::new(0),
        }
    }

    /// Replaces the format of text lines: worker classes may have their own.
    pub fn set_format(&mut self, format: AccessFormat) {
        if let Form::Text(old) = &mut self.form {
            *old = format;
        }
    }

    /// Returns whether lines contain headers of the response.
    pub fn wants_response_headers(&self) -> bool {
        matches!(&self.form, Form::Text(format) if format.wants_response_headers())
    }

    /// Returns the environ variables that lines contain and that an application may set.
    pub fn variables(&self) -> Vec<String> {
        match &self.form {
            Form::Text(format) => format.variables(),
            Form::Json => vec!["REMOTE_ADDR".to_owned()],
        }
    }

    /// Sets such a variable for an unfinished request.
    pub fn set_variable(&self, request: u64, name: &str, value: &[u8]) {
        self.variables.set(request, name, value);
    }

    /// Writes the line of a finished request.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let request = record.head.into_option().map(|head| head.id);
        let variables = request.map(|id| self.variables.take(id)).unwrap_or_default();
        if self.sample > 1 && matches!(record.status, 1..500) {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed);
            if !seen.is_multiple_of(self.sample) {
                return;
            }
        }
        let now = wall_clock::now();
        let trouble = {
            let lines = &mut *self.lock();
            lines.stamp.set(now, &self.form);
            lines.line.clear();
            let Stamp { text, local, .. } = &lines.stamp;
            let pid = self.pid;
            let scene = LineContext { time: text, local_time: local, pid, variables: &variables };
            match &self.form {
                Form::Text(format) => format.write(&mut lines.line, record, &scene),
                Form::Json => write_json(&mut lines.line, record, &scene),
            }
            if let Some(syslog) = &self.syslog {
                syslog.send(LogLevel::Info, &lines.line);
            }
            lines.take(&self.file);
            self.file.trouble()
        };
        if let Some(trouble) = trouble {
            tracing::warn!("access log: {trouble}");
        }
    }

    /// Writes the buffered lines if they are due. Called from time to time.
    pub fn flush_due(&self) {
        let lines = &mut *self.lock();
        if !lines.buffer.is_empty() && lines.pace.is_due(wall_clock::monotonic_millis()) {
            lines.flush(&self.file);
        }
    }

    /// Returns the descriptor of the timer. Call [`AccessLog::on_timer`] when it is readable.
    pub fn timer(&self) -> Option<OwnedFd> {
        self.lock().pace.timer.as_ref()?.as_fd().try_clone_to_owned().ok()
    }

    /// Writes the buffered lines when the timer has fired.
    pub fn on_timer(&self) {
        let lines = &mut *self.lock();
        if std::mem::take(&mut lines.pace.armed) {
            if let Some(timer) = &lines.pace.timer {
                // It may not have fired yet. Once unset, it is not readable in either case.
                let _ = timer.unset();
            }
            lines.flush(&self.file);
        }
    }

    /// Writes the buffered lines: at the end of the worker.
    pub fn flush(&self) {
        self.lock().flush(&self.file);
    }

    /// Reopens the file (USR1), after writing the buffered lines to the old one.
    pub fn reopen(&self) -> Result<(), OpenError> {
        self.flush();
        self.file.reopen()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A thread that panics leaves whole lines, and at worst the beginning of one that is cleared
        // before the next.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Variables that applications have set for unfinished requests.
#[derive(Debug, Default)]
struct Variables {
    /// Number of requests with variables: most lines then need no lock.
    count: AtomicUsize,
    by_request: Mutex<VecDeque<(u64, Set)>>,
}

/// Names and values.
type Set = Vec<(Box<str>, Box<[u8]>)>;

impl Variables {
    fn set(&self, request: u64, name: &str, value: &[u8]) {
        let requests = &mut *self.lock();
        let variable = (name.into(), value.into());
        match requests.iter_mut().find(|(of, _)| *of == request) {
            Some((_, set)) => set.push(variable),
            None => requests.push_back((request, vec![variable])),
        }
        if requests.len() > REQUESTS_MAX {
            // A plugin has set a variable after the end of its request.
            requests.pop_front();
        }
        self.count.store(requests.len(), Ordering::Release);
    }

    fn take(&self, request: u64) -> Set {
        if self.count.load(Ordering::Acquire) == 0 {
            return Set::new();
        }
        let requests = &mut *self.lock();
        let found = requests.iter().position(|(of, _)| *of == request);
        let set = found.and_then(|at| requests.swap_remove_back(at)).map(|(_, set)| set);
        self.count.store(requests.len(), Ordering::Release);
        set.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Set)>> {
        self.by_request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Takes the finished line: writes it together with the buffered ones, or buffers it.
    fn take(&mut self, file: &LogFile) {
        if !self.buffer.append(&self.line) {
            self.flush(file);
            if !self.buffer.append(&self.line) {
                if self.buffer.is_empty() {
                    // A line longer than the whole slot is not buffered.
                    file.append(&self.line);
                } else {
                    file.lose(&self.line, Errno::EAGAIN);
                }
            }
        }
        let now_ms = wall_clock::monotonic_millis();
        if self.pace.is_due(now_ms) {
            self.flush(file);
        } else {
            self.pace.arm(now_ms);
        }
    }

    fn flush(&mut self, file: &LogFile) {
        let waiting = self.buffer.waiting();
        if !waiting.is_empty() {
            let written = write_lines(file, waiting);
            self.buffer.remove(written);
        }
        self.pace.written_ms = wall_clock::monotonic_millis();
    }
}

/// Writes lines. Returns the number of bytes that need no further attempt: all but those that the log's reader
/// has no room for.
fn write_lines(file: &LogFile, lines: &[u8]) -> usize {
    match file.append_some(lines) {
        Ok(()) => lines.len(),
        Err((written, Errno::EAGAIN)) => written,
        Err((written, error)) => {
            file.lose(&lines[written..], error);
            lines.len()
        }
    }
}

/// Lines of dead workers that their log had no room for. The arbiter, which never waits for a reader, passes them
/// to the next worker.
#[derive(Debug, Default)]
pub struct LeftLines(Vec<u8>);

impl LeftLines {
    /// Writes the lines that a worker has left, after those left earlier. If they exceed what one worker can
    /// take over, the latest lines are lost.
    pub fn write(&mut self, file: &LogFile, lines: &[u8]) {
        self.0.extend_from_slice(lines);
        let written = write_lines(file, &self.0);
        self.0.drain(..written);
        if self.0.len() > ACCESS_LINES_MAX {
            let kept = &self.0[..ACCESS_LINES_MAX];
            let end = kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            file.lose(&self.0[end..], Errno::EAGAIN);
            self.0.truncate(end);
        }
    }

    /// Takes the lines for a new worker.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Writes the lines when there will be no worker to do so. Lines that the log does not accept are lost.
    pub fn finish(&mut self, file: &LogFile) {
        if !self.0.is_empty() {
            file.append(&self.take());
        }
    }
}

/// The current second in the format's notation, updated once a second.
#[derive(Debug)]
struct Stamp {
    second: i64,
    text: Vec<u8>,
    /// Local time without the zone.
    local: Vec<u8>,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: i64::MIN, text: Vec::new(), local: Vec::new() }
    }
}

impl Stamp {
    fn set(&mut self, now: i64, form: &Form) {
        // A change of the zone shows in the next second.
        if now == self.second {
            return;
        }
        self.second = now;
        self.text.clear();
        self.local.clear();
        // Writing to a vector cannot fail.
        let _ = match form {
            Form::Text(_) => {
                let t = LocalTime::at(now);
                let month = MONTHS[t.month as usize - 1];
                let _ = write!(
                    self.local,
                    "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                    t.year, t.month, t.day, t.hour, t.minute, t.second,
                );
                write!(
                    self.text,
                    "[{:02}/{month}/{:04}:{:02}:{:02}:{:02} {}]",
                    t.day,
                    t.year,
                    t.hour,
                    t.minute,
                    t.second,
                    t.offset(),
                )
            }
            Form::Json => {
                let t = LocalTime::utc(now);
                write!(
                    self.text,
                    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                    t.year, t.month, t.day, t.hour, t.minute, t.second,
                )
            }
        };
    }
}

/// Appends one line with all that is known of a request.
fn write_json(line: &mut Vec<u8>, record: &AccessRecord<'_>, scene: &LineContext<'_>) {
    let head = record.head.into_option();
    line.extend_from_slice(br#"{"time":""#);
    line.extend_from_slice(scene.time);
    line.extend_from_slice(br#"","remote":"#);
    let peer = head.map_or(record.peer, |head| head.peer);
    let remote = scene.variable("REMOTE_ADDR").unwrap_or(peer.host.as_str().as_bytes());
    escape::json(line, remote);
    if let Some(head) = head {
        let user = head.header("authorization").and_then(basic_user);
        for (name, value) in [
            (r#","user":"#, user.as_deref()),
            (r#","method":"#, Some(head.method.as_str().as_bytes())),
            (r#","target":"#, Some(head.target.as_slice())),
            (r#","protocol":"#, Some(head.version.name().as_bytes())),
            (r#","host":"#, Some(head.authority.as_str().as_bytes())),
            (r#","referer":"#, head.header("referer")),
            (r#","user_agent":"#, head.header("user-agent")),
        ] {
            if let Some(value) = value {
                line.extend_from_slice(name.as_bytes());
                escape::json(line, value);
            }
        }
    } else {
        line.extend_from_slice(br#","request_line":"#);
        escape::json(line, record.request_line.as_slice());
    }
    line.extend_from_slice(br#","status":"#);
    number(line, record.status.into());
    line.extend_from_slice(br#","bytes":"#);
    number(line, record.body_bytes);
    line.extend_from_slice(br#","duration":"#);
    decimal_seconds(line, record.duration_ns);
    line.extend_from_slice(br#","pid":"#);
    number(line, scene.pid.into());
    if let Some(head) = head {
        line.extend_from_slice(br#","id":""#);
        request_id(line, scene.pid, head.id);
        line.push(b'"');
    }
    line.extend_from_slice(b"}\n");
}

/// Longest time that a line is buffered. Including the wake-up of the worker's loop, less than 100 ms.
const PACE_MS: i64 = 50;
/// More requests than a worker has between the end of the application and the end of the response.
const REQUESTS_MAX: usize = 4096;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use std::os::fd::AsRawFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use worker_api::abi::std_types::{ROption, RSlice, RStr};
    use worker_api::{Address, Header, RequestHead, Version};

    use super::*;
    use crate::log::file::tests::open;
    use crate::scoreboard::{Scoreboard, tests::claim};

    pub(in crate::log) fn head<'a>(fields: &'a [Header<'a>]) -> RequestHead<'a> {
        RequestHead {
            method: RStr::from_str("GET"),
            target: RSlice::from_slice(b"/a%20b?c=d"),
            path: RSlice::from_slice(b"/a%20b"),
            query: RSlice::from_slice(b"c=d"),
            authority: RStr::from_str("localhost"),
            version: Version::HTTP_11,
            trusted_peer: false,
            chunked: false,
            content_length: ROption::RSome(0),
            scheme: RStr::from_str("http"),
            headers: RSlice::from_slice(fields),
            peer: Address { host: RStr::from_str("10.0.0.7"), port: 4711 },
            local: Address { host: RStr::from_str("10.0.0.1"), port: 80 },
            tls: ROption::RNone,
            received_ns: 0,
            id: 1,
        }
    }

    pub(in crate::log) fn record<'a>(
        head: Option<&'a RequestHead<'a>>,
        sent: &'a [Header<'a>],
    ) -> AccessRecord<'a> {
        AccessRecord {
            head: head.into(),
            request_line: RSlice::from_slice(b"BAD \"\r"),
            peer: Address { host: RStr::from_str("10.0.0.9"), port: 1 },
            status: 200,
            body_bytes: 1024,
            duration_ns: 1_234_567_890,
            response_headers: RSlice::from_slice(sent),
        }
    }

    fn log(form: Form, file: LogFile) -> AccessLog {
        let (_, writer, _) = claim(&Scoreboard::new().unwrap(), 1, 1);
        let buffer = AccessBuffer::take(writer).unwrap();
        let stamp = Stamp::default();
        let lines = Lines { buffer, line: Vec::new(), stamp, pace: Pace::new() };
        AccessLog {
            file: Arc::new(file),
            form,
            lines: Mutex::new(lines),
            pid: 1,
            syslog: None,
            variables: Variables::default(),
            sample: 1,
            seen: AtomicU64::new(0),
        }
    }

    fn short_format() -> Form {
        Form::Text(AccessFormat::compile("%(m)s %(s)s").unwrap())
    }

    #[test]
    fn the_first_line_is_written_immediately_and_later_ones_by_the_timer_or_a_full_slot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = log(short_format(), open(&path));
        let head = head(&[]);
        for _ in 0..3 {
            log.record(&record(Some(&head), &[]));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "GET 200\n");
        let timer = log.timer().unwrap();
        let mut watched = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut watched, PollTimeout::from(5000_u16)).unwrap(), 1);
        log.on_timer();
        assert_eq!(fs::read_to_string(&path).unwrap(), "GET 200\n".repeat(3));
        assert_eq!(poll(&mut watched, PollTimeout::ZERO).unwrap(), 0);
        for _ in 0..20_000 {
            log.record(&record(Some(&head), &[]));
        }
        assert!(fs::metadata(&path).unwrap().len() > 100_000, "a full slot is written");
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "GET 200").count(), 20_003);
        assert_eq!(text.lines().count(), 20_003);
    }

    #[test]
    fn a_line_longer_than_a_slot_is_written_whole_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = log(Form::Text(AccessFormat::compile("%(a)s").unwrap()), open(&path));
        let agent = "x".repeat(100_000);
        let huge = [Header::new("User-Agent", &agent)];
        let small = [Header::new("User-Agent", "short")];
        log.record(&record(Some(&head(&small)), &[]));
        log.record(&record(Some(&head(&huge)), &[]));
        log.record(&record(Some(&head(&small)), &[]));
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("short\n{agent}\nshort\n"));
    }

    #[test]
    fn a_reopened_log_leaves_the_old_lines_in_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rotated = directory.path().join("log.1");
        let log = log(short_format(), open(&path));
        let head = head(&[]);
        log.record(&record(Some(&head), &[]));
        fs::rename(&path, &rotated).unwrap();
        log.reopen().unwrap();
        log.record(&record(Some(&head), &[]));
        log.flush();
        assert_eq!(fs::read_to_string(rotated).unwrap(), "GET 200\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "GET 200\n");
    }

    #[test]
    fn json_lines_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = log(Form::Json, open(&path));
        let fields = [Header::new("User-Agent", b"a\"b\n\xff")];
        log.record(&record(Some(&head(&fields)), &[]));
        log.record(&record(None, &[]));
        log.flush();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["user_agent"], "a\"b\n\u{fffd}");
        assert_eq!(lines[0]["target"], "/a%20b?c=d");
        assert_eq!(lines[0]["duration"], 1.234_567);
        assert_eq!(lines[1]["request_line"], "BAD \"\r");
        assert_eq!(lines[1]["remote"], "10.0.0.9");
    }

    #[test]
    fn sampling_keeps_one_line_in_n_and_every_failure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let form = Form::Text(AccessFormat::compile("%(i)s %(s)s").unwrap());
        let log = AccessLog { sample: 10, ..log(form, open(&path)) };
        let head = head(&[]);
        for status in [200, 503, 0] {
            for _ in 0..20 {
                log.record(&AccessRecord { status, ..record(Some(&head), &[]) });
            }
        }
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        let count = |line: &str| text.lines().filter(|found| *found == line).count();
        assert_eq!([count("1-1 200"), count("1-1 503"), count("1-1 -")], [2, 20, 20], "{text}");
    }

    #[test]
    fn the_stamp_is_common_log_format() {
        let mut stamp = Stamp::default();
        stamp.set(951_782_400 + 12 * 3600, &short_format());
        let text = String::from_utf8(stamp.text).unwrap();
        let offset = LocalTime::at(951_825_600).offset();
        assert!(text.starts_with('[') && text.ends_with(&format!(" {offset}]")), "{text}");
        assert!(text.contains("/Feb/2000:") || text.contains("/Mar/2000:"), "{text}");
    }

    #[test]
    fn lines_that_the_reader_has_no_room_for_wait_within_bounds() {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        let number = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let file = open(number.as_ref());
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        for filler in [&line[..], b"x\n"] {
            while file.append_some(filler).is_ok() {}
        }
        let mut left = LeftLines::default();
        left.write(&file, b"one\n");
        left.write(&file, b"two\n");
        assert_eq!(left.take(), b"one\ntwo\n");
        assert_eq!(left.take(), b"");
        for _ in 0..100 {
            left.write(&file, &line);
        }
        assert!(file.trouble().unwrap().contains("is not reading"));
        let kept = left.take();
        assert_eq!(kept.len(), ACCESS_LINES_MAX / line.len() * line.len());
    }
}
