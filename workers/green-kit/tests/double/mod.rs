//! A double of the host around a real worker of any cooperative class: it runs on a thread of the test, accepts from a
//! real listener, and is sent TERM and QUIT as the host delivers them.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{Counter, Listener, RawHost, RawHost_TO, TaskBox, Value};
use worker_api::{
    AccessRecord, App, AppHandle, Exchange, Failure, Host, RequestHead, Result, WorkerContext,
    WorkerFactory,
};

/// A worker that serves on a separate thread.
pub struct Running {
    pub address: SocketAddr,
    pub host: Double,
    ended: Receiver<Result<()>>,
}

impl Running {
    /// Runs a worker of class `W` with these settings, in seconds and numbers.
    pub fn start<W: WorkerFactory>(settings: &[(&str, f64)], app: impl App) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let host = Double::new(settings, socket);
        let (told, ended) = channel();
        let (ready, booted) = channel();
        let mut inner = host.clone();
        thread::spawn(move || {
            let raw = RawHost_TO::from_value(inner.clone(), TD_Opaque);
            let context =
                WorkerContext { host: Host::from_raw(raw), app: AppHandle::from_app(app) };
            let worker = Rc::new(W::new(context).unwrap());
            let signalled = Rc::clone(&worker);
            HANDLER.set(Some(Box::new(move |signal| match signal {
                b'q' => signalled.handle_quit(),
                _ => signalled.handle_exit(),
            })));
            worker.init_process().unwrap();
            ready.send(()).unwrap();
            let outcome = worker.run();
            inner.close();
            // Before the thread's own variables go.
            HANDLER.set(None);
            drop(worker);
            told.send(outcome).unwrap();
        });
        booted.recv_timeout(LONG).expect("the worker boots");
        Self { address, host, ended }
    }

    /// A new connection of a client.
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client
    }

    /// One request on a new connection, and the whole answer.
    pub fn get(&self, target: &str) -> String {
        let mut client = self.connect();
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a signal: `t` for TERM, `q` for QUIT.
    pub fn signal(&self, signal: u8) {
        self.host.0.alive.store(false, Ordering::SeqCst);
        (&self.host.0.signal).write_all(&[signal]).unwrap();
    }

    /// Waits for the worker's end.
    pub fn join(&self) -> Result<()> {
        self.ended.recv_timeout(LONG).expect("the worker ends")
    }
}

/// Reads one answer of a known length from a connection that is kept.
pub fn read_answer(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    client.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// An application that is a function.
pub struct Closure<F>(pub F);

impl<F: Fn(&mut Exchange) -> Result<()> + Send + Sync + 'static> App for Closure<F> {
    fn call(&self, exchange: &mut Exchange) -> Result<()> {
        (self.0)(exchange)
    }
}

/// The host.
#[derive(Clone)]
pub struct Double(Arc<State>);

struct State {
    settings: HashMap<String, f64>,
    listener: Mutex<Option<TcpListener>>,
    alive: AtomicBool,
    signal: UnixStream,
    wake: UnixStream,
    connections: AtomicI64,
    log: Mutex<Vec<String>>,
}

impl Double {
    fn new(settings: &[(&str, f64)], listener: TcpListener) -> Self {
        let (signal, wake) = UnixStream::pair().unwrap();
        wake.set_nonblocking(true).unwrap();
        Self(Arc::new(State {
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            listener: Mutex::new(Some(listener)),
            alive: AtomicBool::new(true),
            signal,
            wake,
            connections: AtomicI64::new(0),
            log: Mutex::default(),
        }))
    }

    /// How many connections the worker says it has.
    pub fn connections(&self) -> i64 {
        self.0.connections.load(Ordering::SeqCst)
    }

    /// One line a request: method, target, status.
    pub fn access_log(&self) -> Vec<String> {
        self.0.log.lock().unwrap().clone()
    }

    fn close(&mut self) {
        self.0.listener.lock().unwrap().take();
    }
}

impl RawHost for Double {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        let found = self.0.settings.get(name.as_str()).map(|value| {
            if value.fract() == 0.0 { Value::Int(*value as i64) } else { Value::Float(*value) }
        });
        found.into()
    }

    fn section(&self) -> RString {
        RString::new()
    }

    fn setting_file(&self, _: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        RResult::ROk(ROption::RNone)
    }

    fn listeners(&self) -> RVec<Listener> {
        let listener = self.0.listener.lock().unwrap();
        let fd = listener.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        vec![Listener { fd, name: "127.0.0.1:0".into(), unix: false }].into()
    }

    fn close_listeners(&self) {
        self.0.listener.lock().unwrap().take();
    }

    fn spawn_index(&self) -> u64 {
        1
    }

    fn arbiter_pid(&self) -> i32 {
        std::os::unix::process::parent_id() as i32
    }

    fn notify(&self) {}

    fn alive(&self) -> bool {
        self.0.alive.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.0.alive.store(false, Ordering::SeqCst);
    }

    fn retire(&self) {}

    fn wake_descriptor(&self) -> i32 {
        self.0.wake.as_raw_fd()
    }

    fn deliver_signals(&self) {
        let mut signals = [0; 8];
        let count = (&self.0.wake).read(&mut signals).unwrap_or_default();
        for signal in &signals[..count] {
            HANDLER.with_borrow(|handler| {
                if let Some(handler) = handler {
                    handler(*signal);
                }
            });
        }
    }

    fn count(&self, counter: Counter, by: i64) {
        if counter == Counter::CONNECTIONS {
            self.0.connections.fetch_add(by, Ordering::SeqCst);
        }
    }

    fn request_started(&self, _: &RequestHead<'_>) -> u32 {
        1
    }

    fn request_ended(&self, _: u32, record: &AccessRecord<'_>) {
        if let ROption::RSome(head) = record.head {
            let target = String::from_utf8_lossy(head.target.as_slice());
            let line = format!("{} {target} {}", head.method, record.status);
            self.0.log.lock().unwrap().push(line);
        }
    }

    fn wants_response_headers(&self) -> bool {
        false
    }

    fn log_level(&self) -> u8 {
        0
    }

    fn log(&self, _: u8, _: RStr<'_>, _: RStr<'_>) {}

    fn retire_for(&self, _: RStr<'_>) {}

    fn write_log(&self, _: RStr<'_>, _: RSlice<'_, u8>) {}

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
}

type Handler = Box<dyn Fn(u8)>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);
