//! The double of the host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};

use crate::app::{AppContext, AppFactory, AppHandle};
use crate::failure::{Failure, Result};
use crate::head::{AccessRecord, RequestHead};
use crate::host::Host;
use crate::raw::{Counter, HostBox, Listener, RawHost, RawHost_TO, TaskBox, TlsBox, Value};
use crate::testing::locked;

/// A host in the process of the test, of which clones are handles. It has the settings of the test, at most one listening
/// socket, and records of what was logged and counted.
#[derive(Clone, Default)]
pub struct TestHost {
    settings: HashMap<String, Value>,
    files: HashMap<String, String>,
    section: String,
    tls: Option<Arc<TlsProvider>>,
    state: Arc<State>,
}

type TlsProvider = dyn Fn(&Host, &[&str]) -> Result<TlsBox> + Send + Sync;

struct State {
    listener: Mutex<Option<TcpListener>>,
    alive: AtomicBool,
    /// Each byte is a [`Stop`].
    signals: UnixStream,
    wake: UnixStream,
    counters: [AtomicI64; COUNTERS],
    heartbeats: AtomicU64,
    is_retired: AtomicBool,
    is_running: AtomicBool,
    /// Receives a message at the first heartbeat of a running worker.
    boot: Mutex<Option<Sender<()>>>,
    access_log: Mutex<Vec<String>>,
    error_log: Mutex<Vec<String>>,
}

impl Default for State {
    fn default() -> Self {
        let (signals, wake) = UnixStream::pair().expect("there are descriptors left");
        wake.set_nonblocking(true).expect("a socket can be non-blocking");
        Self {
            listener: Mutex::default(),
            alive: AtomicBool::new(true),
            signals,
            wake,
            counters: Default::default(),
            heartbeats: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
            boot: Mutex::default(),
            access_log: Mutex::default(),
            error_log: Mutex::default(),
        }
    }
}

/// How a worker is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Gracefully, as by TERM.
    Term = b't' as isize,
    /// At once, as by QUIT.
    Quit = b'q' as isize,
}

/// What a test can write as the value of a setting.
pub trait Setting {
    /// Converts it to the value that plugins receive.
    fn into_value(self) -> Value;
}

impl Setting for Value {
    fn into_value(self) -> Value {
        self
    }
}

impl Setting for bool {
    fn into_value(self) -> Value {
        Value::Bool(self)
    }
}

impl Setting for i32 {
    fn into_value(self) -> Value {
        Value::Int(self.into())
    }
}

impl Setting for i64 {
    fn into_value(self) -> Value {
        Value::Int(self)
    }
}

impl Setting for f64 {
    fn into_value(self) -> Value {
        Value::Float(self)
    }
}

impl Setting for &str {
    fn into_value(self) -> Value {
        Value::Text(self.into())
    }
}

impl<const N: usize> Setting for [&str; N] {
    fn into_value(self) -> Value {
        Value::List(self.into_iter().map(Into::into).collect())
    }
}

impl TestHost {
    /// Sets a setting, by its name in the settings file. All others are unset: there are no defaults.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Setting) -> Self {
        self.settings.insert(name.to_owned(), value.into_value());
        self
    }

    /// Sets the content of a setting that is a file.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<String>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    /// Sets the plugin's section of the settings file, as TOML.
    #[must_use]
    pub fn section(mut self, toml: impl Into<String>) -> Self {
        self.section = toml.into();
        self
    }

    /// Sets what [`Host::tls`] does. Without, it fails: this crate has no TLS.
    #[must_use]
    pub fn tls(
        mut self,
        configure: impl Fn(&Host, &[&str]) -> Result<TlsBox> + Send + Sync + 'static,
    ) -> Self {
        self.tls = Some(Arc::new(configure));
        self
    }

    /// Creates an application of the test's crate, as the host does in the mold.
    ///
    /// What it logs with `tracing` goes to the subscriber of the test, if there is one.
    pub fn app<A: AppFactory>(&self) -> Result<AppHandle> {
        let context = AppContext {
            host: self.services(),
            spec: A::NAME.to_owned(),
            class: "test".to_owned(),
            guest_loop: String::new(),
        };
        A::new(context).map(AppHandle::from_app)
    }

    /// Starts to listen on a port of the loopback interface, and returns the address.
    pub fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("it is bound");
        *locked(&self.state.listener) = Some(listener);
        address
    }

    /// Returns another descriptor of the socket that [`Self::listen`] opened.
    ///
    /// # Panics
    /// If there is no such socket.
    pub fn listener(&self) -> TcpListener {
        let listener = locked(&self.state.listener);
        let listener = listener.as_ref().expect("the host listens");
        listener.try_clone().expect("there are descriptors left")
    }

    /// Returns the services as a library receives them.
    pub fn services(&self) -> Host {
        Host::from_raw(self.raw())
    }

    /// Returns the services in the form that crosses the boundary, for a root module.
    pub fn raw(&self) -> HostBox {
        RawHost_TO::from_value(self.clone(), TD_Opaque)
    }

    /// Returns the value of a counter.
    pub fn counter(&self, counter: Counter) -> i64 {
        self.state.counters.get(usize::from(counter.0)).map_or(0, |c| c.load(Ordering::SeqCst))
    }

    /// Returns the number of heartbeats ([`Host::notify`]).
    pub fn heartbeats(&self) -> u64 {
        self.state.heartbeats.load(Ordering::SeqCst)
    }

    /// Returns whether the worker has asked for a replacement ([`Host::retire`]).
    pub fn is_retired(&self) -> bool {
        self.state.is_retired.load(Ordering::SeqCst)
    }

    /// Returns one line per request with a head: method, target, status, bytes of body.
    pub fn access_log(&self) -> Vec<String> {
        locked(&self.state.access_log).clone()
    }

    /// Returns the lines of the error log since the last call.
    pub fn take_error_log(&self) -> String {
        std::mem::take(&mut *locked(&self.state.error_log)).join("\n")
    }

    /// Asks the worker to stop.
    pub fn stop_by(&self, stop: Stop) {
        self.state.alive.store(false, Ordering::SeqCst);
        (&self.state.signals).write_all(&[stop as u8]).expect("few signals are pending");
    }

    /// Returns what receives a message once a worker has booted.
    pub(super) fn await_boot(&self) -> Receiver<()> {
        let (boot, booted) = channel();
        *locked(&self.state.boot) = Some(boot);
        booted
    }

    /// Records that `run` of the worker is called, in which the first heartbeat reports the worker as ready.
    pub(super) fn enter_run(&self) {
        self.state.is_running.store(true, Ordering::SeqCst);
    }

    /// Records that the worker has ended, perhaps before it has booted.
    pub(super) fn leave_run(&self) {
        self.state.is_running.store(false, Ordering::SeqCst);
        locked(&self.state.boot).take();
    }

    /// Sets what [`RawHost::deliver_signals`] calls on this thread.
    pub(super) fn handle_signals(handler: Option<Handler>) {
        HANDLER.set(handler);
    }
}

pub(super) type Handler = Box<dyn Fn(Stop)>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

impl RawHost for TestHost {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        self.settings.get(name.as_str()).cloned().into()
    }

    fn section(&self) -> RString {
        self.section.as_str().into()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        let file = self.files.get(name.as_str());
        RResult::ROk(file.map(|content| content.as_bytes().into()).into())
    }

    fn listeners(&self) -> RVec<Listener> {
        let listener = locked(&self.state.listener);
        let listeners = listener.iter().map(|listener| Listener {
            fd: listener.as_raw_fd(),
            name: listener.local_addr().expect("it is bound").to_string().into(),
            unix: false,
        });
        listeners.collect()
    }

    fn close_listeners(&self) {
        locked(&self.state.listener).take();
    }

    fn spawn_index(&self) -> u64 {
        1
    }

    fn arbiter_pid(&self) -> i32 {
        std::os::unix::process::parent_id() as i32
    }

    fn notify(&self) {
        self.state.heartbeats.fetch_add(1, Ordering::SeqCst);
        if self.state.is_running.load(Ordering::SeqCst) {
            if let Some(boot) = locked(&self.state.boot).take() {
                // The test may have ended.
                let _ = boot.send(());
            }
        }
    }

    fn alive(&self) -> bool {
        self.state.alive.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.state.alive.store(false, Ordering::SeqCst);
    }

    fn retire(&self) {
        self.state.is_retired.store(true, Ordering::SeqCst);
    }

    fn wake_descriptor(&self) -> i32 {
        self.state.wake.as_raw_fd()
    }

    fn deliver_signals(&self) {
        let mut signals = [0; 8];
        let count = (&self.state.wake).read(&mut signals).unwrap_or_default();
        for signal in &signals[..count] {
            let stop = if *signal == Stop::Quit as u8 { Stop::Quit } else { Stop::Term };
            HANDLER.with_borrow(|handler| {
                if let Some(handler) = handler {
                    handler(stop);
                }
            });
        }
    }

    fn count(&self, counter: Counter, by: i64) {
        if let Some(counter) = self.state.counters.get(usize::from(counter.0)) {
            counter.fetch_add(by, Ordering::SeqCst);
        }
    }

    fn request_started(&self, _: &RequestHead<'_>) -> u32 {
        1
    }

    fn request_ended(&self, _: u32, record: &AccessRecord<'_>) {
        if let ROption::RSome(head) = record.head {
            let target = String::from_utf8_lossy(head.target.as_slice());
            let line = format!("{} {target} {} {}", head.method, record.status, record.body_bytes);
            locked(&self.state.access_log).push(line);
        }
    }

    fn wants_response_headers(&self) -> bool {
        false
    }

    fn log_level(&self) -> u8 {
        4
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>) {
        locked(&self.state.error_log).push(format!("{level} {target}: {message}"));
    }

    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        locked(&self.state.error_log).push(format!("{target}: {}", text.escape_ascii()));
    }

    fn retire_for(&self, _: RStr<'_>) {
        RawHost::retire(self);
    }

    fn logged_variables(&self) -> RVec<RString> {
        RVec::new()
    }

    fn set_logged_variable(&self, _: u64, _: RStr<'_>, _: RSlice<'_, u8>) {}

    fn on_signal(&self, _: i32) {}

    fn reclaim_signals(&self) {}

    fn signal_descriptor(&self) -> i32 {
        -1
    }

    fn remaining_backlog(&self, _: i32) -> u64 {
        u64::MAX
    }

    fn at_abort(&self, _: TaskBox) {}

    fn log_stack(&self, _: u8, _: RStr<'_>, _: RStr<'_>, _: RSlice<'_, usize>) {}

    fn tls(&self, protocols: RSlice<'_, RStr<'_>>) -> RResult<TlsBox, Failure> {
        let protocols: Vec<&str> = protocols.iter().map(RStr::as_str).collect();
        match &self.tls {
            Some(configure) => configure(&self.services(), &protocols).into(),
            None => RResult::RErr(Failure::config("certfile: the double of the host has no TLS")),
        }
    }
}

impl std::fmt::Debug for TestHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestHost").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Number of counters: those of [`Counter`].
const COUNTERS: usize = 8;
