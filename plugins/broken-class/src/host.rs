//! A host between the class and the host, which leaves out what the fault leaves out: so the class itself can be an
//! ordinary one.

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{RawHost, RawHost_TO, TaskBox, Value};
use worker_api::{AccessRecord, Counter, Failure, Host, Listener, LogLevel, RequestHead};

use crate::fault::Fault;

/// The host as the class is to see it.
pub(crate) fn with_fault(host: Host, fault: Option<Fault>) -> Host {
    match fault {
        Some(fault) => Host::from_raw(RawHost_TO::from_value(Between { host, fault }, TD_Opaque)),
        None => host,
    }
}

struct Between {
    host: Host,
    fault: Fault,
}

impl Between {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

impl RawHost for Between {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        let forgotten = name == "max_requests" && self.has(Fault::NeverRetires);
        if forgotten { ROption::RNone } else { self.host.setting(&name).into() }
    }

    fn section(&self) -> RString {
        self.host.section().into()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        self.host.setting_file(&name).map(|file| file.map(RVec::from).into()).into()
    }

    fn listeners(&self) -> RVec<Listener> {
        self.host.listeners().into()
    }

    fn close_listeners(&self) {
        self.host.close_listeners();
    }

    fn remaining_backlog(&self, listener: i32) -> u64 {
        self.host.remaining_backlog(listener)
    }

    fn age(&self) -> u64 {
        self.host.age()
    }

    fn arbiter_pid(&self) -> i32 {
        // To be an orphan, one has to know whose child one was.
        if self.has(Fault::OutlivesArbiter) {
            nix::unistd::getppid().as_raw()
        } else {
            self.host.arbiter_pid()
        }
    }

    fn notify(&self) {
        if !self.has(Fault::HasNoHeartbeat) {
            self.host.notify();
        }
    }

    fn alive(&self) -> bool {
        let orphaned = || nix::unistd::getppid().as_raw() != self.host.arbiter_pid();
        self.has(Fault::IgnoresTerm)
            || (self.has(Fault::OutlivesArbiter) && orphaned())
            || self.host.alive()
    }

    fn stop(&self) {
        self.host.stop();
    }

    fn retire(&self) {
        self.host.retire();
    }

    fn wake_descriptor(&self) -> i32 {
        self.host.wake_descriptor()
    }

    fn deliver_signals(&self) {
        if !self.has(Fault::IsDeaf) {
            self.host.deliver_signals();
        }
    }

    fn count(&self, counter: Counter, by: i64) {
        self.host.count(counter, by);
    }

    fn request_began(&self, head: &RequestHead<'_>) -> u32 {
        if self.has(Fault::RecordsNothing) { 1 } else { self.host.request_began(head) }
    }

    fn request_ended(&self, token: u32, record: &AccessRecord<'_>) {
        if !self.has(Fault::RecordsNothing) {
            self.host.request_ended(token, record);
        }
    }

    fn wants_response_headers(&self) -> bool {
        self.host.wants_response_headers()
    }

    fn log_level(&self) -> u8 {
        self.host.log_level().0
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>) {
        self.host.log(LogLevel(level), &target, &message);
    }

    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        self.host.write_log(&target, &text);
    }

    fn logged_variables(&self) -> RVec<RString> {
        self.host.logged_variables().into_iter().map(RString::from).collect()
    }

    fn set_logged_variable(&self, request: u64, name: RStr<'_>, value: RSlice<'_, u8>) {
        self.host.set_logged_variable(request, &name, &value);
    }

    fn on_signal(&self, signal: i32) {
        self.host.on_signal(signal);
    }

    fn reclaim_signals(&self) {
        self.host.reclaim_signals();
    }

    fn at_abort(&self, mut task: TaskBox) {
        self.host.at_abort(move || task.run());
    }

    fn signal_descriptor(&self) -> i32 {
        self.host.signal_descriptor()
    }
}
