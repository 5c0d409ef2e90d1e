//! The double of the host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{Counter, HostBox, Listener, RawHost, RawHost_TO, TaskBox, TlsBox, Value};
use worker_api::{
    AccessRecord, AppHandle, AppModuleRef, Failure, Host, RawAppContext, RequestHead, Result,
};

use crate::locked;

/// A host in the process of the test. Its clones are handles of the same one.
#[derive(Clone, Default)]
pub struct TestHost {
    settings: HashMap<String, Value>,
    files: HashMap<String, String>,
    state: Arc<State>,
}

struct State {
    listener: Mutex<Option<TcpListener>>,
    alive: AtomicBool,
    /// Each byte is a [`Stop`].
    signals: UnixStream,
    wake: UnixStream,
    connections: AtomicI64,
    access_log: Mutex<Vec<String>>,
    error_log: Mutex<Vec<String>>,
}

impl Default for State {
    fn default() -> Self {
        let (signals, wake) = UnixStream::pair().unwrap();
        wake.set_nonblocking(true).unwrap();
        Self {
            listener: Mutex::default(),
            alive: AtomicBool::new(true),
            signals,
            wake,
            connections: AtomicI64::new(0),
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

/// What a test writes as the value of a setting.
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
    /// Sets a setting.
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

    /// Starts to listen on a port of the loopback interface, and returns the address.
    pub fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        *locked(&self.state.listener) = Some(listener);
        address
    }

    /// Returns another descriptor of the socket that [`Self::listen`] opened.
    pub fn listener(&self) -> TcpListener {
        let listener = locked(&self.state.listener);
        listener.as_ref().expect("the host listens").try_clone().unwrap()
    }

    /// Returns the services as a library receives them.
    pub fn services(&self) -> Host {
        Host::from_raw(self.raw())
    }

    fn raw(&self) -> HostBox {
        RawHost_TO::from_value(self.clone(), TD_Opaque)
    }

    /// Creates an application from its library, as the host does for a class and a guest loop.
    pub fn app(
        &self,
        library: AppModuleRef,
        spec: &str,
        class: &str,
        guest_loop: &str,
    ) -> Result<AppHandle> {
        let context =
            RawAppContext { spec: spec.into(), class: class.into(), guest_loop: guest_loop.into() };
        library.new()(self.raw(), context).into_result().map(AppHandle::from_raw)
    }

    /// Returns the number of open connections, as counted by the worker.
    pub fn connections(&self) -> i64 {
        self.state.connections.load(Ordering::SeqCst)
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
        (&self.state.signals).write_all(&[stop as u8]).unwrap();
    }

    /// Sets what [`RawHost::deliver_signals`] calls on this thread.
    pub(crate) fn handle_signals(handler: Option<Handler>) {
        HANDLER.set(handler);
    }
}

pub(crate) type Handler = Box<dyn Fn(Stop)>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

impl RawHost for TestHost {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        self.settings.get(name.as_str()).cloned().into()
    }

    fn section(&self) -> RString {
        RString::new()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        let file = self.files.get(name.as_str());
        RResult::ROk(file.map(|content| content.as_bytes().into()).into())
    }

    fn listeners(&self) -> RVec<Listener> {
        let listener = locked(&self.state.listener);
        let listeners = listener.iter().map(|listener| Listener {
            fd: listener.as_raw_fd(),
            name: listener.local_addr().unwrap().to_string().into(),
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

    fn notify(&self) {}

    fn alive(&self) -> bool {
        self.state.alive.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.state.alive.store(false, Ordering::SeqCst);
    }

    fn retire(&self) {}

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
        if counter == Counter::CONNECTIONS {
            self.state.connections.fetch_add(by, Ordering::SeqCst);
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

    fn retire_for(&self, _: RStr<'_>) {}

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
        tls::configure(&self.services(), &protocols).into()
    }
}
