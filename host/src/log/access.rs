//! The access log of one worker: a line for each request, gathered and written in blocks.
//!
//! A line is written at once where none was written shortly before. Otherwise it waits in the worker's shared memory
//! (see [`AccessBuffer`]) for others, until a timer fires or the slot is full. The timer wakes the worker's loop: a
//! worker whose only thread is busy with a request writes when that is over. What waits when the worker dies, the
//! arbiter writes.

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
    clock::{self, LocalTime},
    escape,
    file::LogFile,
    format::{AccessFormat, LineContext, basic_user, decimal_seconds, number, request_id},
    open::OpenError,
    syslog::{Part, Syslog},
};
use crate::{
    scoreboard::{ACCESS_LINES_MAX, AccessBuffer},
    settings::{LogFormat, LogLevel, LogTarget, Settings},
};

/// The access log of this worker; any of its threads may write to it.
#[derive(Debug)]
pub struct AccessLog {
    file: Arc<LogFile>,
    form: Form,
    lines: Mutex<Lines>,
    /// Asked once: the log belongs to one process.
    pid: u32,
    syslog: Option<Syslog>,
    variables: Variables,
    /// One of so many lines is written; how many there were.
    sample: u64,
    seen: AtomicU64,
}

#[derive(Debug)]
enum Form {
    Text(AccessFormat),
    Json,
}

/// What changes from line to line.
#[derive(Debug)]
struct Lines {
    buffer: AccessBuffer,
    /// The line that is being made; kept for its memory.
    line: Vec<u8>,
    stamp: Stamp,
    pace: Pace,
}

/// When lines are written.
#[derive(Debug)]
struct Pace {
    /// Fires when lines have waited; nothing where the system has no timer: they wait for [`AccessLog::flush_due`].
    timer: Option<TimerFd>,
    /// Whether it is set.
    armed: bool,
    /// When lines were last written, by the monotonic clock in milliseconds.
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

    /// Has the timer fire when the lines that wait are due.
    fn arm(&mut self, now_ms: i64) {
        let Some(timer) = self.timer.as_ref().filter(|_| !self.armed) else { return };
        let left = self.written_ms.saturating_add(PACE_MS).saturating_sub(now_ms).clamp(1, PACE_MS);
        let after = Expiration::OneShot(TimeSpec::milliseconds(left));
        self.armed = timer.set(after, TimerSetTimeFlags::empty()).is_ok();
    }
}

impl AccessLog {
    /// Opens the file that the settings name; nothing where there is to be no access log. Done by
    /// the arbiter, which needs the file for what workers leave.
    pub fn open_file(settings: &Settings) -> Result<Option<LogFile>, OpenError> {
        let open = |target| LogFile::open(target, io::stdout().as_fd(), settings);
        // With syslog alone, lines go the same way to where nothing is kept.
        let nowhere = LogTarget::File("/dev/null".into());
        let to_syslog = settings.syslog && !settings.disable_redirect_access_to_syslog;
        let only_syslog = to_syslog.then_some(&nowhere);
        settings.accesslog.as_ref().or(only_syslog).map(open).transpose()
    }

    /// The log of the worker that owns `buffer`; to be made in the worker itself.
    pub fn new(settings: &Settings, file: Arc<LogFile>, buffer: AccessBuffer) -> Self {
        let form = match settings.log_format {
            LogFormat::Text => Form::Text(settings.access_log_format.clone()),
            LogFormat::Json => Form::Json,
        };
        let stamp = Stamp::default();
        let lines = Lines { buffer, line: Vec::new(), stamp, pace: Pace::new() };
        let syslog = Syslog::open(settings, Part::Access).unwrap_or_else(|error| {
            tracing::error!("the access log cannot be sent to syslog: {error}");
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

    /// Takes another form for its lines of text: a worker class has one of its own.
    pub fn set_format(&mut self, format: AccessFormat) {
        if let Form::Text(old) = &mut self.form {
            *old = format;
        }
    }

    /// Whether a line needs the fields of the response.
    pub fn wants_response_headers(&self) -> bool {
        matches!(&self.form, Form::Text(format) if format.wants_response_headers())
    }

    /// The variables of the environ that lines have and an application may set.
    pub fn variables(&self) -> Vec<String> {
        match &self.form {
            Form::Text(format) => format.variables(),
            Form::Json => vec!["REMOTE_ADDR".to_owned()],
        }
    }

    /// Sets such a variable of a request that is not over.
    pub fn set_variable(&self, request: u64, name: &str, value: &[u8]) {
        self.variables.set(request, name, value);
    }

    /// Writes the line of a request that is over.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let request = record.head.into_option().map(|head| head.id);
        let variables = request.map(|id| self.variables.take(id)).unwrap_or_default();
        if self.sample > 1 && matches!(record.status, 1..500) {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed);
            if !seen.is_multiple_of(self.sample) {
                return;
            }
        }
        let now = clock::now();
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

    /// Writes the waiting lines out where their time has come; to be called now and then.
    pub fn flush_due(&self) {
        let lines = &mut *self.lock();
        if !lines.buffer.is_empty() && lines.pace.is_due(clock::monotonic_millis()) {
            lines.flush(&self.file);
        }
    }

    /// Readable when [`AccessLog::on_timer`] is to be called.
    pub fn timer(&self) -> Option<OwnedFd> {
        self.lock().pace.timer.as_ref()?.as_fd().try_clone_to_owned().ok()
    }

    /// Writes the waiting lines out when the timer has fired.
    pub fn on_timer(&self) {
        let lines = &mut *self.lock();
        if std::mem::take(&mut lines.pace.armed) {
            if let Some(timer) = &lines.pace.timer {
                // It may not have fired yet; set to nothing, it is not readable in any case.
                let _ = timer.unset();
            }
            lines.flush(&self.file);
        }
    }

    /// Writes the waiting lines out: at the end of the worker.
    pub fn flush(&self) {
        self.lock().flush(&self.file);
    }

    /// Opens the file again (USR1), after the lines that belong to the old one.
    pub fn reopen(&self) -> Result<(), OpenError> {
        self.flush();
        self.file.reopen()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // What a panicking thread left is whole lines, and at worst the beginning of one that is
        // cleared before the next.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What applications have set for requests that are not over.
#[derive(Debug, Default)]
struct Variables {
    /// How many requests there are, so that most need no lock.
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
            // A plugin has set one for a request that was over.
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
    /// Takes the line that was made: writes it with those that wait, or lets it wait.
    fn take(&mut self, file: &LogFile) {
        if !self.buffer.append(&self.line) {
            self.flush(file);
            if !self.buffer.append(&self.line) {
                if self.buffer.is_empty() {
                    // A line that is longer than the whole slot waits for nothing.
                    file.append(&self.line);
                } else {
                    file.lose(&self.line, Errno::EAGAIN);
                }
            }
        }
        let now_ms = clock::monotonic_millis();
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
        self.pace.written_ms = clock::monotonic_millis();
    }
}

/// Writes lines out. Returns how many bytes are done with; those that the log's reader has no room for are not.
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

/// Lines of dead workers that their log had no room for. The arbiter, which waits for no reader, leaves them to the
/// next worker.
#[derive(Debug, Default)]
pub struct LeftLines(Vec<u8>);

impl LeftLines {
    /// Writes out what a worker has left, behind what was left before. Where that is more than one worker can
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

    /// Writes the lines where no worker will; what the log does not take is lost.
    pub fn finish(&mut self, file: &LogFile) {
        if !self.0.is_empty() {
            file.append(&self.take());
        }
    }
}

/// The current second as the format writes it, made once a second.
#[derive(Debug)]
struct Stamp {
    second: i64,
    text: Vec<u8>,
    /// The local time without its zone.
    local: Vec<u8>,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: i64::MIN, text: Vec::new(), local: Vec::new() }
    }
}

impl Stamp {
    fn set(&mut self, now: i64, form: &Form) {
        // A zone that has changed shows in the next second.
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

/// How long a line may wait for others. With the worker's way to its loop, less than 100 ms.
const PACE_MS: i64 = 50;
/// More requests than one worker has between the end of the application and the end of the response.
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
    fn the_first_line_is_written_at_once_and_those_behind_it_by_the_timer_or_a_full_slot() {
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
    fn of_a_sample_one_line_of_so_many_is_written_and_every_failure() {
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
        assert!(file.trouble().unwrap().contains("does not read"));
        let kept = left.take();
        assert_eq!(kept.len(), ACCESS_LINES_MAX / line.len() * line.len());
    }
}
