//! Services of the host for worker classes, applications and hooks.
//!
//! Settings, files, listeners and the log are available in the mold (before the fork); everything else only in worker
//! processes.

use std::sync::Arc;
use std::time::Duration;

use abi_stable::std_types::{ROption, RSlice, RStr};

use crate::choices::Choice;
use crate::failure::{Failure, Result};
use crate::head::{AccessRecord, RequestHead};
use crate::raw::{Counter, HostBox, Listener, Value};
use crate::runtime::task_box;
use crate::tls::{Tls, protocol_names};

/// Services of the host. Cheap to clone; usable from any thread of the process.
#[derive(Clone)]
pub struct Host(Arc<HostBox>);

impl Host {
    /// Wraps the object that the host created.
    pub fn from_raw(raw: HostBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Returns a setting by its name in the settings file, or `None` if it does not exist or is not set.
    pub fn setting(&self, name: &str) -> Option<Value> {
        self.0.setting(RStr::from_str(name)).into_option()
    }

    /// Returns a boolean setting; false if it is not set.
    pub fn setting_bool(&self, name: &str) -> bool {
        matches!(self.setting(name), Some(Value::Bool(true)))
    }

    /// Returns an integer setting.
    pub fn setting_int(&self, name: &str) -> Option<i64> {
        match self.setting(name)? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// Returns a non-negative integer setting.
    pub fn setting_usize(&self, name: &str) -> Option<usize> {
        usize::try_from(self.setting_int(name)?).ok()
    }

    /// Returns a setting that is a string or a path.
    pub fn setting_text(&self, name: &str) -> Option<String> {
        match self.setting(name)? {
            Value::Text(text) => Some(text.into_string()),
            _ => None,
        }
    }

    /// Returns a setting that is a choice of words; `None` if it is not set. An error names the setting.
    pub fn setting_choice<T: Choice>(&self, name: &str) -> Result<Option<T>> {
        let word = match self.setting(name) {
            None => return Ok(None),
            Some(Value::Int(number)) => number.to_string(),
            Some(Value::Text(text)) => text.into_string(),
            Some(_) => String::new(),
        };
        let choice = T::from_word(&word).ok_or_else(|| {
            Failure::config(format!("{name}: `{word}` is not one of {}", T::WORDS.join(", ")))
        })?;
        Ok(Some(choice))
    }

    /// Returns a list setting; empty if it is not set.
    pub fn setting_list(&self, name: &str) -> Vec<String> {
        match self.setting(name) {
            Some(Value::List(items)) => items.into_iter().map(Into::into).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns a setting that is a time in seconds. `None` if it is not set or 0, which always means "no limit".
    pub fn setting_duration(&self, name: &str) -> Option<Duration> {
        let seconds = match self.setting(name)? {
            Value::Int(whole) => {
                return u64::try_from(whole).ok().filter(|s| *s > 0).map(Duration::from_secs);
            }
            Value::Float(seconds) => seconds,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero())
    }

    /// Returns this library's section of the settings file as TOML: `[class.NAME]` for a class, `[application]` for an
    /// application, `[hooks]` for hooks. Empty if there is none.
    pub fn section(&self) -> String {
        self.0.section().into_string()
    }

    /// Returns the contents of the file that a setting names (`certfile`, `keyfile`, `ca_certs`), as read before
    /// privileges were dropped. `None` if the setting is not set.
    pub fn setting_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = self.0.setting_file(RStr::from_str(name)).into_result()?;
        Ok(bytes.into_option().map(Into::into))
    }

    /// Returns the TLS configuration by the settings `certfile`, `keyfile`, `ca_certs`, `cert_reqs` and `ssl_version_min`;
    /// `None` if `certfile` is not set. `protocols` are the application protocols that the class speaks, by their names
    /// for ALPN (RFC 7301): a client that offers only others is rejected.
    ///
    /// Call it in [`crate::WorkerFactory::setup`], too: that rejects invalid settings before a worker exists, and creates
    /// the secret by which every worker resumes the sessions of the others.
    pub fn tls(&self, protocols: &[&str]) -> Result<Option<Tls>> {
        if self.setting_file("certfile")?.is_none() {
            return Ok(None);
        }
        let names = protocol_names(protocols);
        let tls = self.0.tls(RSlice::from_slice(&names)).into_result()?;
        Ok(Some(Tls::from_raw(tls)))
    }

    /// Returns the server's listening sockets: non-blocking, shared with the other workers. Do not close them; see
    /// [`Host::close_listeners`].
    pub fn listeners(&self) -> Vec<Listener> {
        self.0.listeners().into_vec()
    }

    /// Returns the number of connections that a stopping worker still has to accept from this listening socket.
    ///
    /// It is 0 if other processes serve the socket (reload, TERM to one worker, `max_requests`): the worker stops
    /// accepting at once. When the server stops, it is at least the number of connections in the backlog at the time of
    /// the call: accept until that many have been accepted or `accept` would block.
    pub fn remaining_backlog(&self, listener: i32) -> u64 {
        self.0.remaining_backlog(listener)
    }

    /// Closes this process's copies of the listening sockets. Call it when the class has stopped accepting and has
    /// accepted [the rest of the backlog](Host::remaining_backlog). Remove the sockets from every poller first.
    pub fn close_listeners(&self) {
        self.0.close_listeners();
    }

    /// Returns the 1-based spawn number of this worker; 0 in the mold. gunicorn calls it the worker's age.
    pub fn spawn_index(&self) -> u64 {
        self.0.spawn_index()
    }

    /// Returns the arbiter's process ID. A worker with another parent is orphaned.
    pub fn arbiter_pid(&self) -> i32 {
        self.0.arbiter_pid()
    }

    /// Records a heartbeat. Call it at least once per second while the class works.
    ///
    /// The first call within [`crate::Worker::run`] reports the worker as ready, or ends it if it has no free
    /// descriptors for connections. The call also flushes the access log when a flush is due. It usually makes no system
    /// call.
    pub fn notify(&self) {
        self.0.notify();
    }

    /// Returns whether this worker should continue. Becomes false permanently after TERM, INT, QUIT and [`Host::stop`].
    pub fn alive(&self) -> bool {
        self.0.alive()
    }

    /// Makes [`Host::alive`] return false, as TERM does.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Asks the arbiter to replace this worker (`max_requests`). The arbiter spawns a replacement and sends TERM to this
    /// worker once the replacement is ready; until then the worker keeps serving. Calling it again has no effect.
    pub fn retire(&self) {
        self.0.retire();
    }

    /// Like [`Host::retire`], with a reason for the log.
    pub fn retire_for(&self, reason: &str) {
        self.0.retire_for(RStr::from_str(reason));
    }

    /// Returns a descriptor that becomes readable when a signal arrives. Watch it and call [`Host::deliver_signals`].
    pub fn wake_descriptor(&self) -> i32 {
        self.0.wake_descriptor()
    }

    /// Calls the worker's `handle_*` method for each signal that has arrived, on the calling thread, before it returns.
    pub fn deliver_signals(&self) {
        self.0.deliver_signals();
    }

    /// Performs the action of the server's handler for that signal. Does nothing in the mold and for signals that the
    /// server does not handle. For runtimes with their own handler table, which return the previous handler to the
    /// application.
    pub fn on_signal(&self, signal: i32) {
        self.0.on_signal(signal);
    }

    /// Reinstalls the server's signal handlers in front of handlers that the application has installed, which are then
    /// chained. The host calls it when a worker has booted and once per second.
    pub fn reclaim_signals(&self) {
        self.0.reclaim_signals();
    }

    /// Returns a non-blocking descriptor for use in signal handlers. Writing a byte other than 0 makes the worker's main
    /// thread call [`crate::App::run_signal_handlers`], even while it is waiting. -1 in the mold.
    pub fn signal_descriptor(&self) -> i32 {
        self.0.signal_descriptor()
    }

    /// Adds `by` to a counter in this worker's scoreboard slot.
    pub fn count(&self, counter: Counter, by: i64) {
        self.0.count(counter, by);
    }

    /// Reports that a request head is complete: the request is listed as in flight and the `pre_request` hooks run.
    /// Returns a token for [`Host::request_ended`].
    pub fn request_started(&self, head: &RequestHead<'_>) -> u32 {
        self.0.request_started(head)
    }

    /// Reports the end of a request: writes the access log, updates the counters and runs the `post_request` hooks.
    /// Token 0 stands for a request that was rejected before [`Host::request_started`].
    pub fn request_ended(&self, token: u32, record: &AccessRecord<'_>) {
        self.0.request_ended(token, record);
    }

    /// Returns whether the access log format refers to response headers.
    pub fn wants_response_headers(&self) -> bool {
        self.0.wants_response_headers()
    }

    /// Returns the most verbose level that is logged.
    pub fn log_level(&self) -> LogLevel {
        LogLevel(self.0.log_level())
    }

    /// Writes a line to the error log. Prefer the macros of `tracing`.
    pub fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.0.log(level.0, RStr::from_str(target), RStr::from_str(message));
    }

    /// Writes text to the error log unchanged, in one piece and without a level: for an application's error stream.
    /// `target` names the stream.
    pub fn write_log(&self, target: &str, text: &[u8]) {
        self.0.write_log(RStr::from_str(target), RSlice::from_slice(text));
    }

    /// Returns the request variables that the access log uses, by their CGI and WSGI names: `REMOTE_ADDR` and those in
    /// the log format. Empty without an access log.
    pub fn logged_variables(&self) -> Vec<String> {
        self.0.logged_variables().into_iter().map(Into::into).collect()
    }

    /// Overrides the value of such a variable for the access log. Call it before the end of the request; `request` is
    /// [`RequestHead::id`].
    pub fn set_logged_variable(&self, request: u64, name: &str, value: &[u8]) {
        self.0.set_logged_variable(request, RStr::from_str(name), RSlice::from_slice(value));
    }

    /// Has `task` run once if another process aborts the worker, as the arbiter does to one without a heartbeat, before
    /// the process ends. It runs in a signal handler, on any thread: it must not wait. The first call counts.
    pub fn at_abort(&self, task: impl FnOnce() + Send + 'static) {
        self.0.at_abort(task_box(task));
    }

    /// Writes a stack to the error log: `heading`, and the functions at `addresses`, the innermost first, which
    /// [`crate::stack::addresses`] returns for the calling thread.
    ///
    /// In a worker that serves it returns at once: another process finds the names of the functions, and the lines follow
    /// later; a stack that the worker has logged before is only referred to.
    pub fn log_stack(&self, level: LogLevel, target: &str, heading: &str, addresses: &[usize]) {
        let (target, heading) = (RStr::from_str(target), RStr::from_str(heading));
        self.0.log_stack(level.0, target, heading, RSlice::from_slice(addresses));
    }

    /// Returns a setting that must be set; the error names it.
    pub fn required(&self, name: &str) -> Result<Value> {
        match self.0.setting(RStr::from_str(name)) {
            ROption::RSome(value) => Ok(value),
            ROption::RNone => Err(Failure::config(format!("the setting `{name}` is not set"))),
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

/// Log level. A higher number is more verbose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogLevel(pub u8);

impl LogLevel {
    /// The server cannot continue.
    pub const CRITICAL: Self = Self(0);
    /// An operation failed.
    pub const ERROR: Self = Self(1);
    /// Unexpected, but handled.
    pub const WARNING: Self = Self(2);
    /// Events of interest to operators.
    pub const INFO: Self = Self(3);
    /// Details for developers.
    pub const DEBUG: Self = Self(4);
    /// Everything, per event.
    pub const TRACE: Self = Self(5);
}
