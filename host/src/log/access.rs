//! The access log of one worker: a line for each request, gathered and written in blocks.
//!
//! Lines wait in shared memory (see [`buffer`](super::buffer)) until the slot is full or a second
//! has passed; what waits when the worker dies, the arbiter writes.

use std::{
    io::{self, Write as _},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use worker_api::AccessRecord;

use super::{
    buffer::AccessBuffer,
    clock::{self, LocalTime},
    escape,
    file::LogFile,
    format::{AccessFormat, Scene, basic_user, decimal_seconds, number, request_id},
    syslog::{Part, Syslog},
};
use crate::settings::{LogFormat, LogLevel, LogTarget, Settings};

/// The access log of this worker; any of its threads may write to it.
#[derive(Debug)]
pub struct AccessLog {
    file: Arc<LogFile>,
    form: Form,
    lines: Mutex<Lines>,
    /// Asked once: the log belongs to one process.
    pid: u32,
    syslog: Option<Syslog>,
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
    /// When the first line that still waits was written.
    oldest: i64,
}

impl AccessLog {
    /// Opens the file that the settings name; nothing where there is to be no access log. Done by
    /// the arbiter, which needs the file for what workers leave.
    pub fn open_file(settings: &Settings) -> io::Result<Option<LogFile>> {
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
        let lines = Lines { buffer, line: Vec::new(), stamp, oldest: 0 };
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

    /// Writes the line of a request that is over.
    pub fn record(&self, record: &AccessRecord<'_>) {
        if self.sample > 1 && matches!(record.status, 1..500) {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed);
            if !seen.is_multiple_of(self.sample) {
                return;
            }
        }
        let now = clock::now();
        let lines = &mut *self.lock();
        lines.stamp.set(now, &self.form);
        lines.line.clear();
        let Stamp { text, local, .. } = &lines.stamp;
        let scene = Scene { time: text, local_time: local, pid: self.pid };
        match &self.form {
            Form::Text(format) => format.write(&mut lines.line, record, &scene),
            Form::Json => write_json(&mut lines.line, record, &scene),
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(LogLevel::Info, &lines.line);
        }
        if lines.buffer.is_empty() {
            lines.oldest = now;
        }
        if !lines.buffer.append(&lines.line) {
            lines.buffer.flush(&self.file);
            lines.oldest = now;
            // A line that is longer than the whole slot waits for nothing.
            if !lines.buffer.append(&lines.line) {
                self.file.append(&lines.line);
            }
        }
    }

    /// Writes the waiting lines out once they have waited for a second; to be called now and then.
    pub fn flush_due(&self) {
        let lines = &mut *self.lock();
        if !lines.buffer.is_empty() && clock::now() > lines.oldest {
            lines.buffer.flush(&self.file);
        }
    }

    /// Writes the waiting lines out: at the end of the worker.
    pub fn flush(&self) {
        self.lock().buffer.flush(&self.file);
    }

    /// Opens the file anew (USR1), after the lines that belong to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        self.flush();
        self.file.reopen()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // What a panicking thread left is whole lines, and at worst the beginning of one that is
        // cleared before the next.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
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
fn write_json(line: &mut Vec<u8>, record: &AccessRecord<'_>, scene: &Scene<'_>) {
    let head = record.head.into_option();
    line.extend_from_slice(br#"{"time":""#);
    line.extend_from_slice(scene.time);
    line.extend_from_slice(br#"","remote":"#);
    escape::json(line, head.map_or(record.peer, |head| head.peer).host.as_str().as_bytes());
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

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use worker_api::abi::std_types::{ROption, RSlice, RStr};
    use worker_api::{Address, Header, RequestHead, Version};

    use super::*;
    use crate::log::buffer::{AccessBuffers, tests::open};

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
        let buffer = AccessBuffers::map(1).unwrap().claim(0).unwrap();
        let stamp = Stamp::default();
        let lines = Lines { buffer, line: Vec::new(), stamp, oldest: 0 };
        AccessLog {
            file: Arc::new(file),
            form,
            lines: Mutex::new(lines),
            pid: 1,
            syslog: None,
            sample: 1,
            seen: AtomicU64::new(0),
        }
    }

    fn short_format() -> Form {
        Form::Text(AccessFormat::compile("%(m)s %(s)s").unwrap())
    }

    #[test]
    fn lines_wait_for_a_flush_a_full_slot_or_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = log(short_format(), open(&path));
        let head = head(&[]);
        log.record(&record(Some(&head), &[]));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        log.lock().oldest -= 2;
        log.flush_due();
        assert_eq!(fs::read_to_string(&path).unwrap(), "GET 200\n");
        for _ in 0..20_000 {
            log.record(&record(Some(&head), &[]));
        }
        assert!(fs::metadata(&path).unwrap().len() > 100_000, "a full slot is written");
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "GET 200").count(), 20_001);
        assert_eq!(text.lines().count(), 20_001);
    }

    #[test]
    fn a_line_longer_than_a_slot_is_written_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let rotated = folder.path().join("log.1");
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
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
}
