//! What the host does for a worker class and for an application.
//!
//! In the mold (before the fork) settings, files, listeners and the log work; the rest is for the worker process.

use std::sync::Arc;
use std::time::Duration;

use abi_stable::std_types::{ROption, RSlice, RStr};

use crate::failure::{Failure, Result};
use crate::head::{AccessRecord, RequestHead};
use crate::raw::{Counter, HostBox, Listener, Value};

/// The host's services. Cheap to clone; usable from any thread of the process.
#[derive(Clone)]
pub struct Host(Arc<HostBox>);

impl Host {
    /// Wraps what the host made.
    pub fn from_raw(raw: HostBox) -> Self {
        Self(Arc::new(raw))
    }

    /// A setting by its name, as in the settings file; nothing where there is no such setting or it is not set.
    pub fn setting(&self, name: &str) -> Option<Value> {
        self.0.setting(RStr::from_str(name)).into_option()
    }

    /// A setting that is true or false; false where it is not set.
    pub fn setting_bool(&self, name: &str) -> bool {
        matches!(self.setting(name), Some(Value::Bool(true)))
    }

    /// A setting that is a whole number.
    pub fn setting_int(&self, name: &str) -> Option<i64> {
        match self.setting(name)? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// A setting that is a whole number and not negative.
    pub fn setting_usize(&self, name: &str) -> Option<usize> {
        usize::try_from(self.setting_int(name)?).ok()
    }

    /// A setting that is text or a path.
    pub fn setting_text(&self, name: &str) -> Option<String> {
        match self.setting(name)? {
            Value::Text(text) => Some(text.into_string()),
            _ => None,
        }
    }

    /// A setting that is a list.
    pub fn setting_list(&self, name: &str) -> Vec<String> {
        match self.setting(name) {
            Some(Value::List(items)) => items.into_iter().map(Into::into).collect(),
            _ => Vec::new(),
        }
    }

    /// A setting that is a time in seconds. Nothing where it is not set or 0, which means "no limit" throughout.
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

    /// The section of the settings file that belongs to this class (`[class.NAME]`) or to the application
    /// (`[application]`), as TOML; empty where there is none.
    pub fn section(&self) -> String {
        self.0.section().into_string()
    }

    /// The contents of the file that a setting names (`certfile`, `keyfile`, `ca_certs`), read before privileges were
    /// dropped; nothing where the setting is not set.
    pub fn setting_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = self.0.setting_file(RStr::from_str(name)).into_result()?;
        Ok(bytes.into_option().map(Into::into))
    }

    /// The server's listening sockets: non-blocking, shared with the other workers. Never close one by yourself.
    pub fn listeners(&self) -> Vec<Listener> {
        self.0.listeners().into_vec()
    }

    /// Returns how many connections a worker that stops still accepts from this listening socket.
    ///
    /// It is 0 where other processes serve the socket: at a reload, after a TERM to one worker, at `max_requests`. There
    /// the worker stops accepting at once. At the end of the server it is at least the number of connections in the
    /// backlog at the time of the call; accept them until that many have come or `accept` would block.
    pub fn remaining_backlog(&self, listener: i32) -> u64 {
        self.0.remaining_backlog(listener)
    }

    /// Closes this process's copies of the listening sockets: when the class has stopped accepting for good, after it
    /// has accepted [what remains in the backlog](Host::remaining_backlog). Take them out of every poller before.
    pub fn close_listeners(&self) {
        self.0.close_listeners();
    }

    /// The how-manieth worker of this server this is, from 1.
    pub fn age(&self) -> u64 {
        self.0.age()
    }

    /// The arbiter's process id: a worker whose parent is another has been orphaned.
    pub fn arbiter_pid(&self) -> i32 {
        self.0.arbiter_pid()
    }

    /// The heartbeat: to be called at least once in each second in which the class is well. The first one within
    /// [`crate::Worker::run`] reports the worker as ready, or ends it where it has no free descriptors for connections.
    /// Also flushes the access log where its time has come. Usually makes no system call.
    pub fn notify(&self) {
        self.0.notify();
    }

    /// Whether this worker is to go on. Becomes false for good at TERM, INT, QUIT, and by [`Host::stop`].
    pub fn alive(&self) -> bool {
        self.0.alive()
    }

    /// Makes [`Host::alive`] false, as a TERM does.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Tells the arbiter that this worker has served enough (`max_requests`): it makes a replacement, and sends TERM to
    /// this one when the replacement can serve. The worker goes on until then. The second call does nothing.
    pub fn retire(&self) {
        self.0.retire();
    }

    /// As [`Host::retire`], with the reason for the log.
    pub fn retire_for(&self, reason: &str) {
        self.0.retire_for(RStr::from_str(reason));
    }

    /// Becomes readable when a signal came: watch it, and call [`Host::deliver_signals`] then.
    pub fn wake_descriptor(&self) -> i32 {
        self.0.wake_descriptor()
    }

    /// Takes the signals that came and calls the worker's `handle_*` for each, on this thread, before it returns.
    pub fn deliver_signals(&self) {
        self.0.deliver_signals();
    }

    /// Does what the server's handler of that signal does; nothing in the mold, or for signals that are not the
    /// server's. For applications whose runtime keeps handlers of its own and gives out the one before.
    pub fn on_signal(&self, signal: i32) {
        self.0.on_signal(signal);
    }

    /// Puts the server's handlers of its signals before those that the application has installed, which then run after
    /// them. The host does so when a worker has booted and once a second.
    pub fn reclaim_signals(&self) {
        self.0.reclaim_signals();
    }

    /// A non-blocking descriptor for handlers of signals: a byte other than 0 that is written to it makes the worker's
    /// main thread call [`crate::App::run_signal_handlers`], also where it waits. -1 in the mold.
    pub fn signal_descriptor(&self) -> i32 {
        self.0.signal_descriptor()
    }

    /// Adds to a counter of this worker's scoreboard slot.
    pub fn count(&self, counter: Counter, by: i64) {
        self.0.count(counter, by);
    }

    /// A request's head is complete: it is shown as in flight, and the `pre_request` hooks run. Give the token back
    /// with [`Host::request_ended`].
    pub fn request_began(&self, head: &RequestHead<'_>) -> u32 {
        self.0.request_began(head)
    }

    /// A request is over: writes the access log, counts, runs the `post_request` hooks. Token 0 stands for a request
    /// that was refused before [`Host::request_began`].
    pub fn request_ended(&self, token: u32, record: &AccessRecord<'_>) {
        self.0.request_ended(token, record);
    }

    /// Whether the access log needs the fields of responses.
    pub fn wants_response_headers(&self) -> bool {
        self.0.wants_response_headers()
    }

    /// The most verbose level that the log takes.
    pub fn log_level(&self) -> LogLevel {
        LogLevel(self.0.log_level())
    }

    /// Writes a line to the error log; prefer the macros of `tracing`.
    pub fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.0.log(level.0, RStr::from_str(target), RStr::from_str(message));
    }

    /// Writes text to the error log as it is and in one piece, without a level: for an application's own error stream.
    /// `target` names the stream. Since 1.1.
    pub fn write_log(&self, target: &str, text: &[u8]) {
        self.0.write_log(RStr::from_str(target), RSlice::from_slice(text));
    }

    /// The request variables that the access log has, by the names of CGI and WSGI: `REMOTE_ADDR`, and those that the
    /// log's format names. Empty without an access log. Since 1.1.
    pub fn logged_variables(&self) -> Vec<String> {
        self.0.logged_variables().into_iter().map(Into::into).collect()
    }

    /// Sets the value of such a variable for the access log, if the application has given it one of its own. To be
    /// called before the request is over; `request` is [`RequestHead::id`]. Since 1.1.
    pub fn set_logged_variable(&self, request: u64, name: &str, value: &[u8]) {
        self.0.set_logged_variable(request, RStr::from_str(name), RSlice::from_slice(value));
    }

    /// A setting that must be there; the failure names it.
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

/// A level of the log: the higher the number, the more verbose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogLevel(pub u8);

impl LogLevel {
    /// Nothing can go on.
    pub const CRITICAL: Self = Self(0);
    /// Something failed.
    pub const ERROR: Self = Self(1);
    /// Something is not as it should be.
    pub const WARNING: Self = Self(2);
    /// What an operator wants to know.
    pub const INFO: Self = Self(3);
    /// What a developer wants to know.
    pub const DEBUG: Self = Self(4);
    /// Everything.
    pub const TRACE: Self = Self(5);
}
