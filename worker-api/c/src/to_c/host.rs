//! The host's services for the other side.
//!
//! Settings, the section, files and listeners are converted at the first call and kept for the life of the process: the
//! other side frees nothing, and there are as many as the server has settings.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use worker_api::raw::HostBox;
use worker_api::{Counter, Failure, Host, LogLevel, Value};

use crate::tables::{
    Bytes, Head, HostObject, HostTable, ListeningSocket, RawFailure, Record, SettingValue, Sink,
    Str, Table, TaskObject, TlsConfigObject,
};
use crate::values::{OwnedParts, outcome, slice_of, with_record_of};

/// The services, and what was converted of them.
struct HostForC {
    host: Host,
    settings: Mutex<HashMap<String, Kept>>,
    files: Mutex<HashMap<String, &'static [u8]>>,
    section: OnceLock<String>,
    listeners: OnceLock<Vec<ListeningSocket>>,
}

/// A converted setting.
#[derive(Clone, Copy)]
struct Kept(SettingValue);

// SAFETY: it refers to memory that is never freed or changed.
unsafe impl Send for Kept {}

// SAFETY: the listeners refer to names that are never freed or changed; all else is `Send` and `Sync`.
unsafe impl Send for HostForC {}
// SAFETY: see above.
unsafe impl Sync for HostForC {}

impl HostObject {
    /// The services for the other side, which keeps them for the life of the process.
    pub fn of(host: HostBox) -> &'static Self {
        let host: &'static HostForC = Box::leak(Box::new(HostForC {
            host: Host::from_raw(host),
            settings: Mutex::default(),
            files: Mutex::default(),
            section: OnceLock::new(),
            listeners: OnceLock::new(),
        }));
        let this = ptr::from_ref(host).cast_mut().cast();
        Box::leak(Box::new(Self { functions: &raw const HOST, this }))
    }
}

static HOST: HostTable = HostTable {
    table: Table::of::<HostTable>(),
    setting: Some(setting),
    section: Some(section),
    setting_file: Some(setting_file),
    listeners: Some(listeners),
    remaining_backlog: Some(remaining_backlog),
    close_listeners: Some(close_listeners),
    spawn_index: Some(spawn_index),
    arbiter_pid: Some(arbiter_pid),
    notify: Some(notify),
    alive: Some(alive),
    stop: Some(stop),
    retire: Some(retire),
    wake_descriptor: Some(wake_descriptor),
    deliver_signals: Some(deliver_signals),
    on_signal: Some(on_signal),
    reclaim_signals: Some(reclaim_signals),
    signal_descriptor: Some(signal_descriptor),
    count: Some(count),
    request_started: Some(request_started),
    request_ended: Some(request_ended),
    wants_response_headers: Some(wants_response_headers),
    log_level: Some(log_level),
    log: Some(log),
    write_log: Some(write_log),
    set_logged_variable: Some(set_logged_variable),
    at_abort: Some(at_abort),
    logged_variables: Some(logged_variables),
    log_stack: Some(log_stack),
    tls: Some(tls),
};

/// # Safety
/// `this` is an object of this module.
unsafe fn of(this: *mut c_void) -> &'static HostForC {
    // SAFETY: as the caller promises; it is never dropped.
    unsafe { &*this.cast::<HostForC>() }
}

fn kept_text(text: &str) -> Str {
    Str::of(Box::leak(Box::<str>::from(text)))
}

impl SettingValue {
    const UNSET: Self = Self {
        kind: 0,
        boolean: false,
        integer: 0,
        real: 0.0,
        text: Str { data: ptr::null(), length: 0 },
        list: ptr::null(),
        list_length: 0,
    };

    fn kept(value: Value) -> Self {
        match value {
            Value::Bool(boolean) => Self { kind: 1, boolean, ..Self::UNSET },
            Value::Int(integer) => Self { kind: 2, integer, ..Self::UNSET },
            Value::Float(real) => Self { kind: 3, real, ..Self::UNSET },
            Value::Text(text) => Self { kind: 4, text: kept_text(&text), ..Self::UNSET },
            Value::List(items) => {
                let items: Vec<Str> = items.iter().map(|item| kept_text(item)).collect();
                let items = items.leak();
                Self { kind: 5, list: items.as_ptr(), list_length: items.len(), ..Self::UNSET }
            }
        }
    }
}

// SAFETY of the functions below: jimu.h has the other side pass the object's `self`, pointers that are valid during the
// call, and tasks by value.

unsafe extern "C" fn setting(this: *mut c_void, name: Str) -> SettingValue {
    // SAFETY: see above.
    let (this, name) = unsafe { (of(this), name.lossy()) };
    let mut settings = this.settings.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(value) = settings.get(&name).map(|kept| kept.0).or_else(|| {
        let value = SettingValue::kept(this.host.setting(&name)?);
        settings.insert(name, Kept(value));
        Some(value)
    }) else {
        return SettingValue::UNSET;
    };
    value
}

unsafe extern "C" fn section(this: *mut c_void) -> Str {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    Str::of(this.section.get_or_init(|| this.host.section()))
}

unsafe extern "C" fn setting_file(
    this: *mut c_void,
    name: Str,
    contents: *mut Bytes,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let (this, name) = unsafe { (of(this), name.lossy()) };
    let mut files = this.files.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match files.get(&name) {
        Some(file) => Ok(Some(*file)),
        None => this.host.setting_file(&name).map(|file| {
            let file: Option<&'static [u8]> = file.map(|file| &*file.leak());
            file.inspect(|file| {
                files.insert(name, file);
            })
        }),
    };
    let result = found.map(|file| {
        let none = Bytes { data: ptr::null(), length: 0 };
        // SAFETY: see above.
        unsafe { contents.write(file.map_or(none, Bytes::of)) };
    });
    // SAFETY: see above.
    unsafe { outcome(result, failure) }
}

unsafe extern "C" fn listeners(this: *mut c_void, count: *mut usize) -> *const ListeningSocket {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    let listeners = this.listeners.get_or_init(|| {
        let listeners = this.host.listeners();
        let convert = |listener: &worker_api::Listener| ListeningSocket {
            fd: listener.fd,
            is_unix: listener.unix,
            name: kept_text(&listener.name),
        };
        listeners.iter().map(convert).collect()
    });
    // SAFETY: see above.
    unsafe { count.write(listeners.len()) };
    listeners.as_ptr()
}

unsafe extern "C" fn remaining_backlog(this: *mut c_void, listener: i32) -> u64 {
    // SAFETY: see above.
    unsafe { of(this) }.host.remaining_backlog(listener)
}

unsafe extern "C" fn close_listeners(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.host.close_listeners();
}

unsafe extern "C" fn spawn_index(this: *mut c_void) -> u64 {
    // SAFETY: see above.
    unsafe { of(this) }.host.spawn_index()
}

unsafe extern "C" fn arbiter_pid(this: *mut c_void) -> i32 {
    // SAFETY: see above.
    unsafe { of(this) }.host.arbiter_pid()
}

unsafe extern "C" fn notify(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.host.notify();
}

unsafe extern "C" fn alive(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { of(this) }.host.alive()
}

unsafe extern "C" fn stop(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.host.stop();
}

unsafe extern "C" fn retire(this: *mut c_void, reason: Str) {
    // SAFETY: see above.
    let (this, reason) = unsafe { (of(this), reason.lossy()) };
    if reason.is_empty() { this.host.retire() } else { this.host.retire_for(&reason) }
}

unsafe extern "C" fn wake_descriptor(this: *mut c_void) -> i32 {
    // SAFETY: see above.
    unsafe { of(this) }.host.wake_descriptor()
}

unsafe extern "C" fn deliver_signals(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.host.deliver_signals();
}

unsafe extern "C" fn on_signal(this: *mut c_void, signal: i32) {
    // SAFETY: see above.
    unsafe { of(this) }.host.on_signal(signal);
}

unsafe extern "C" fn reclaim_signals(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.host.reclaim_signals();
}

unsafe extern "C" fn signal_descriptor(this: *mut c_void) -> i32 {
    // SAFETY: see above.
    unsafe { of(this) }.host.signal_descriptor()
}

unsafe extern "C" fn count(this: *mut c_void, counter: u8, by: i64) {
    // SAFETY: see above.
    unsafe { of(this) }.host.count(Counter(counter), by);
}

unsafe extern "C" fn request_started(this: *mut c_void, head: *const Head) -> u32 {
    // SAFETY: see above.
    let (this, parts) = unsafe { (of(this), head.as_ref().map(|head| OwnedParts::of(head))) };
    match parts {
        Some(Ok(parts)) => this.host.request_started(&parts.head()),
        Some(Err(field)) => {
            let words = format!("request_started: `{field}` of the head is not UTF-8");
            this.host.log(LogLevel::ERROR, "jimu.h", &words);
            0
        }
        None => 0,
    }
}

unsafe extern "C" fn request_ended(this: *mut c_void, token: u32, record: *const Record) {
    // SAFETY: see above.
    unsafe {
        let this = of(this);
        if let Some(record) = record.as_ref() {
            with_record_of(record, |record| this.host.request_ended(token, record));
        }
    }
}

unsafe extern "C" fn wants_response_headers(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { of(this) }.host.wants_response_headers()
}

unsafe extern "C" fn log_level(this: *mut c_void) -> u8 {
    // SAFETY: see above.
    unsafe { of(this) }.host.log_level().0
}

unsafe extern "C" fn log(this: *mut c_void, level: u8, target: Str, message: Str) {
    // SAFETY: see above.
    let (this, target, message) = unsafe { (of(this), target.lossy(), message.lossy()) };
    this.host.log(LogLevel(level), &target, &message);
}

unsafe extern "C" fn write_log(this: *mut c_void, target: Str, text: Bytes) {
    // SAFETY: see above.
    let (this, target, text) = unsafe { (of(this), target.lossy(), text.slice()) };
    this.host.write_log(&target, text);
}

unsafe extern "C" fn set_logged_variable(this: *mut c_void, request: u64, name: Str, value: Bytes) {
    // SAFETY: see above.
    let (this, name, value) = unsafe { (of(this), name.lossy(), value.slice()) };
    this.host.set_logged_variable(request, &name, value);
}

unsafe extern "C" fn at_abort(this: *mut c_void, task: TaskObject) {
    // SAFETY: see above.
    let (this, mut task) = unsafe { (of(this), task.task()) };
    this.host.at_abort(move || task.run());
}

unsafe extern "C" fn logged_variables(this: *mut c_void, sink: *const Sink) {
    // SAFETY: see above.
    let (names, sink) = unsafe { (of(this).host.logged_variables(), &*sink) };
    for name in names {
        // SAFETY: see above.
        unsafe { sink.put(&name) };
    }
}

unsafe extern "C" fn log_stack(
    this: *mut c_void,
    level: u8,
    target: Str,
    heading: Str,
    addresses: *const usize,
    count: usize,
) {
    // SAFETY: see above.
    let (this, addresses) = unsafe { (of(this), slice_of(addresses, count)) };
    // SAFETY: see above.
    let (target, heading) = unsafe { (target.lossy(), heading.lossy()) };
    this.host.log_stack(LogLevel(level), &target, &heading, addresses);
}

unsafe extern "C" fn tls(
    this: *mut c_void,
    protocols: *const Str,
    count: usize,
    config: *mut TlsConfigObject,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let (this, names) = unsafe { (of(this), slice_of(protocols, count)) };
    // SAFETY: see above.
    let names: Vec<String> = names.iter().map(|name| unsafe { name.lossy() }).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let none = || Failure::config("certfile: it is not set, so there is no TLS");
    let made = this.host.tls(&names).and_then(|tls| tls.ok_or_else(none)).map(|tls| {
        // SAFETY: see above.
        unsafe { config.write(TlsConfigObject::of(tls)) };
    });
    // SAFETY: see above.
    unsafe { outcome(made, failure) }
}
