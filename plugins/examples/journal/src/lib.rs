//! A hook plugin that writes a journal of the server's events, one on each line: the example to copy.
//!
//! ```toml
//! hooks_module = "libjournal_hooks.so"
//! [hooks]
//! journal = "/var/log/host/journal"
//! requests = true                  # also two lines for each request
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use worker_api::{AccessRecord, Failure, Hooks, HooksFactory, Host, RequestHead, Result};

worker_api::export_hooks!(Journal);

/// The journal of one generation.
pub struct Journal {
    /// Opened in the mold, for appending, so that the lines of several processes do not mix.
    file: File,
    requests: bool,
}

impl HooksFactory for Journal {
    const NAME: &'static str = "journal";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(host: Host) -> Result<Self> {
        let section: toml::Table = host.section().parse().unwrap_or_default();
        let path = section.get("journal").and_then(toml::Value::as_str);
        let path =
            path.ok_or_else(|| Failure::config("hooks.journal: expected the path of a file"))?;
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file =
            file.map_err(|error| Failure::config(format!("hooks.journal: {path}: {error}")))?;
        let requests = section.get("requests").and_then(toml::Value::as_bool).unwrap_or(false);
        Ok(Self { file, requests })
    }
}

impl Journal {
    fn write(&self, line: &str) {
        // The server works without a journal.
        let _ = (&self.file).write_all(format!("{line}\n").as_bytes());
    }
}

impl Hooks for Journal {
    fn on_starting(&self) {
        self.write("on_starting");
    }

    fn on_reload(&self) {
        self.write("on_reload");
    }

    fn when_ready(&self) {
        self.write("when_ready");
    }

    fn pre_fork(&self, age: i64) {
        self.write(&format!("pre_fork {age}"));
    }

    fn post_fork(&self, pid: i64, age: i64) {
        self.write(&format!("post_fork {pid} {age}"));
    }

    fn post_worker_init(&self, pid: i64, age: i64) {
        self.write(&format!("post_worker_init {pid} {age}"));
    }

    fn worker_int(&self, pid: i64, age: i64) {
        self.write(&format!("worker_int {pid} {age}"));
    }

    fn worker_abort(&self, pid: i64, age: i64) {
        self.write(&format!("worker_abort {pid} {age}"));
    }

    fn worker_exit(&self, pid: i64, age: i64) {
        self.write(&format!("worker_exit {pid} {age}"));
    }

    fn child_exit(&self, pid: i64, age: i64, status: i64) {
        self.write(&format!("child_exit {pid} {age} {status}"));
    }

    fn nworkers_changed(&self, new: i64, old: i64) {
        self.write(&format!("nworkers_changed {new} {old}"));
    }

    fn pre_exec(&self) {
        self.write("pre_exec");
    }

    fn on_exit(&self) {
        self.write("on_exit");
    }

    fn wants_requests(&self) -> bool {
        self.requests
    }

    fn pre_request(&self, head: &RequestHead<'_>) {
        self.write(&format!("pre_request {}", head.method.as_str()));
    }

    fn post_request(&self, record: &AccessRecord<'_>) {
        self.write(&format!("post_request {}", record.status));
    }
}
