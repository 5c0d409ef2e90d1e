//! The traits whose objects cross the boundary, in the form that `abi_stable` checks.
//!
//! Most code uses [`crate::Exchange`], [`crate::Host`], [`crate::App`], [`crate::Worker`], [`crate::Runtime`] and
//! [`crate::Engine`] instead, which are plain Rust and catch panics. An implementation of these raw traits (the host and
//! the kit have some) must catch panics with [`crate::guard::catch`]: a panic that reaches the boundary makes
//! `abi_stable` call `exit(1)`.
//!
//! Evolution: a new method is appended with a default body that is a single call. Nothing else in a trait changes within
//! a major version.

// `sabi_trait` generates impls inside constants.
#![allow(
    non_local_definitions,
    unused_qualifications,
    missing_docs,
    clippy::pedantic,
    elided_lifetimes_in_paths
)]

use abi_stable::std_types::{RBox, ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use abi_stable::{StableAbi, sabi_trait};

use crate::failure::Failure;
use crate::head::{AccessRecord, Header, RequestHead};
use crate::waker::Waker;

/// Result of a primitive operation, which never blocks.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Completed for this number of bytes. 0 from a read means the end of the body.
    Ready(usize),
    /// Nothing was done. The waker, if given, fires when the operation can be retried.
    Pending,
    /// Failed permanently.
    Failed(Failure),
}

/// Readiness to wait for on a descriptor.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(pub u8);

impl Interest {
    /// Readable, or at end of file.
    pub const READ: Self = Self(1);
    /// Writable, or broken.
    pub const WRITE: Self = Self(2);
    /// Either of the two.
    pub const READ_WRITE: Self = Self(3);
}

/// A connection that an application has taken over.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Hijacked {
    /// Non-blocking descriptor, owned by the receiver; -1 if the connection cannot be handed over. It carries plain bytes,
    /// even if the client uses TLS.
    pub fd: i32,
    /// Bytes that were already received after the request's head.
    pub already_read: RVec<u8>,
}

/// Value of a setting.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Debug)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// Integer. Durations are in seconds.
    Int(i64),
    /// Floating-point number. Durations are in seconds.
    Float(f64),
    /// String or path.
    Text(RString),
    /// List of strings.
    List(RVec<RString>),
}

/// One listening socket of the server.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Listener {
    /// Listening socket, non-blocking. Owned by the host.
    pub fd: i32,
    /// Address as bound: `127.0.0.1:8000`, `unix:/run/app.sock`; or [`PRIVATE`].
    pub name: RString,
    /// Whether this is a unix socket.
    pub unix: bool,
}

/// Name of the listener to which only the server itself connects, to probe `health_path`. It never uses TLS.
pub const PRIVATE: &str = "private";

/// Counter in a scoreboard slot; see [`RawHost::count`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter(pub u8);

impl Counter {
    /// Number of connections accepted.
    pub const ACCEPTED: Self = Self(0);
    /// Number of open connections (gauge).
    pub const CONNECTIONS: Self = Self(1);
    /// Number of busy greenlets or threads (gauge).
    pub const BUSY_SLOTS: Self = Self(2);
    /// Upper bound of [`Self::BUSY_SLOTS`].
    pub const SLOTS: Self = Self(3);
    /// Time in microseconds that one request waited, from the arrival of its last bytes to the call of the application.
    /// Reported once per sampled request.
    pub const QUEUED_US: Self = Self(4);
    /// Number of open connections that carry another protocol after a 101, or a 2xx to a CONNECT (gauge). The kit counts
    /// them.
    pub const UPGRADED: Self = Self(5);
    /// Number of WebSocket messages received. Counted by what decodes them, usually the application's plugin.
    pub const MESSAGES_RECEIVED: Self = Self(6);
    /// Number of WebSocket messages sent.
    pub const MESSAGES_SENT: Self = Self(7);
}

/// Why an operation of a TLS session has failed.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq, Debug)]
pub enum TlsError {
    /// The system's error number from the socket. `EAGAIN`: the operation can be retried when the socket is ready.
    System(i32),
    /// The client violates the protocol, or the session cannot continue, for this reason.
    Refused(RString),
    /// The client does not use TLS: its first byte is that of an HTTP request.
    PlainHttp,
}

/// Properties of a TLS session.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsProperties {
    /// See [`crate::TlsFacts::protocol`].
    pub protocol: RString,
    /// See [`crate::TlsFacts::cipher`].
    pub cipher: RString,
    /// See [`crate::TlsFacts::server_name`].
    pub server_name: RString,
    /// See [`crate::TlsFacts::client_certificate`].
    pub client_certificate: RVec<u8>,
}

/// Wakes a waiting caller. Created by the side that waits; called by the other side, from any thread of the worker
/// process, without blocking.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawWaker: Send + Sync + 'static {
    /// Notifies the waiting side that the operation can be retried.
    #[sabi(last_prefix_field)]
    fn wake(&self);
}

/// Owned [`RawWaker`].
pub type WakerBox = RawWaker_TO<RBox<()>>;

/// One request and its response; see [`crate::Exchange`]. Created by a worker class in a worker process. Used by one
/// thread at a time: the one that calls the application, or one to which the application moved it. Dropping it ends the
/// exchange.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawExchange: Send + 'static {
    /// Returns the request head, or an empty head after the end of the exchange.
    fn head(&self) -> &RequestHead<'_>;
    /// Reads from the request body, or the client's raw bytes after a switch of protocols; `Ready(0)` is their end. Never
    /// blocks.
    fn poll_read(&mut self, buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step;
    /// Starts the response, or replaces one whose head has not been sent. Validates every header; sends nothing, except
    /// the head of a 101 or of a 2xx to a CONNECT, which switches protocols: see [`crate::Exchange::start`].
    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    /// Writes a part of the body, or raw bytes after a switch of protocols, and returns the number of bytes accepted. Never
    /// blocks.
    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step;
    /// Sends a part of an open file as a part of the body and returns the number of bytes accepted. Never blocks.
    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step;
    /// Sends an informational response (1xx) ahead of the final one.
    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    /// Sets the trailer fields of a chunked body.
    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure>;
    /// Finishes the response without blocking; the class sends what is still buffered. On failure the exchange stays open
    /// and must be failed.
    fn finish(&mut self) -> RResult<(), Failure>;
    /// Fails the exchange: sends an error response if nothing has been sent, otherwise closes the connection.
    fn fail(&mut self, failure: Failure);
    /// Hands the connection over, before the response is started or after the head of a 101. The caller owns the returned
    /// descriptor.
    fn hijack(&mut self) -> RResult<Hijacked, Failure>;
    /// Returns the connection's descriptor, for inspection; -1 after the end of the exchange.
    fn descriptor(&self) -> i32;
    /// Returns the deadline of the response on `CLOCK_MONOTONIC` in nanoseconds; 0 for none.
    fn deadline_ns(&self) -> u64;
    /// Extends the deadline by this number of nanoseconds, counted from now if it has passed.
    fn extend_deadline(&mut self, by_ns: u64);
    /// Registers a waker that fires when the client disconnects. A class that cannot detect this never fires it.
    fn on_disconnect(&mut self, waker: Waker);
    /// Blocks until the last [`Step::Pending`] in this direction can be retried, or fails permanently. Only valid while the
    /// class waits for the application's call to return; never in a guest loop.
    fn wait(&mut self, interest: Interest) -> RResult<(), Failure>;
    /// Returns whether the addresses in the head come from a PROXY header.
    #[sabi(last_prefix_field)]
    fn is_proxied(&self) -> bool;
}

/// Owned [`RawExchange`].
pub type ExchangeBox = RawExchange_TO<RBox<()>>;

/// The server's TLS configuration; see [`crate::Tls`]. Created by the host in the mold or in a worker.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawTls: Send + Sync + 'static {
    /// See [`crate::Tls::session`].
    #[sabi(last_prefix_field)]
    fn session(&self, received: RSlice<'_, u8>) -> RResult<TlsSessionBox, TlsError>;
}

/// Owned [`RawTls`].
pub type TlsBox = RawTls_TO<RBox<()>>;

/// The TLS session of a connection; see [`crate::TlsSession`]. Created by the host in a worker. Callable from any thread.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawTlsSession: Send + Sync + 'static {
    /// See [`crate::TlsSession::read`].
    fn read(&self, socket: i32, buffer: RSliceMut<'_, u8>) -> RResult<usize, TlsError>;
    /// See [`crate::TlsSession::write`].
    fn write(&self, socket: i32, parts: RSlice<'_, RSlice<'_, u8>>) -> RResult<usize, TlsError>;
    /// See [`crate::TlsSession::flush_some`].
    fn flush_some(&self, socket: i32) -> RResult<usize, TlsError>;
    /// See [`crate::TlsSession::send_close_notify`].
    fn send_close_notify(&self, socket: i32) -> RResult<(), TlsError>;
    /// See [`crate::TlsSession::seal`].
    fn seal(&self, last: RSlice<'_, u8>) -> ROption<RVec<u8>>;
    /// See [`crate::TlsSession::wants_write`].
    fn wants_write(&self) -> bool;
    /// See [`crate::TlsSession::properties`].
    #[sabi(last_prefix_field)]
    fn properties(&self) -> TlsProperties;
}

/// Owned [`RawTlsSession`].
pub type TlsSessionBox = RawTlsSession_TO<RBox<()>>;

/// Services of the host; see [`crate::Host`]. Created by the host in the mold, one object per library; valid there and,
/// after the fork, in each worker. Callable from any thread.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawHost: Send + Sync + 'static {
    /// See [`crate::Host::setting`].
    fn setting(&self, name: RStr<'_>) -> ROption<Value>;
    /// See [`crate::Host::section`].
    fn section(&self) -> RString;
    /// See [`crate::Host::setting_file`].
    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure>;
    /// See [`crate::Host::listeners`]. The host keeps ownership.
    fn listeners(&self) -> RVec<Listener>;
    /// See [`crate::Host::close_listeners`]. Called once in a worker, by its class.
    fn close_listeners(&self);
    /// 1-based spawn number of this worker; 0 in the mold.
    fn spawn_index(&self) -> u64;
    /// Process ID of the arbiter.
    fn arbiter_pid(&self) -> i32;
    /// Records a heartbeat. Called in a worker, by its class, at least once per second.
    fn notify(&self);
    /// Returns whether the worker should continue.
    fn alive(&self) -> bool;
    /// Stops the worker as TERM does.
    fn stop(&self);
    /// Asks the arbiter for a replacement; TERM follows when the replacement is ready.
    fn retire(&self);
    /// Returns a descriptor that becomes readable when a signal arrives.
    fn wake_descriptor(&self) -> i32;
    /// Drains the wake descriptor and calls the worker's `handle_*` methods on the calling thread.
    fn deliver_signals(&self);
    /// Adds to a counter in the worker's slot.
    fn count(&self, counter: Counter, by: i64);
    /// Reports that a request head is complete. Returns a token for `request_ended`, never 0.
    fn request_started(&self, head: &RequestHead<'_>) -> u32;
    /// Reports the end of the request with this token; 0 for a request that was rejected without a head.
    fn request_ended(&self, token: u32, record: &AccessRecord<'_>);
    /// Returns whether the access log needs response headers.
    fn wants_response_headers(&self) -> bool;
    /// Returns the most verbose level that is logged, as a [`crate::LogLevel`].
    fn log_level(&self) -> u8;
    /// Writes a line to the error log.
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>);
    /// Like [`RawHost::retire`], with a reason for the log.
    fn retire_for(&self, reason: RStr<'_>);
    /// Writes text to the error log unchanged and in one piece, regardless of the level.
    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>);
    /// See [`crate::Host::logged_variables`].
    fn logged_variables(&self) -> RVec<RString>;
    /// See [`crate::Host::set_logged_variable`].
    fn set_logged_variable(&self, request: u64, name: RStr<'_>, value: RSlice<'_, u8>);
    /// Performs the action of the server's handler for this signal. Does nothing in the mold and for other signals. For
    /// SIGABRT: runs what [`RawHost::at_abort`] was given, and does not end the process; by this call an application
    /// declares that it has logged where it stands, and the host leaves out the native stack.
    fn on_signal(&self, signal: i32);
    /// Reinstalls the server's signal handlers in front of those of the application. Called in a worker.
    fn reclaim_signals(&self);
    /// Returns a non-blocking descriptor: writing a byte other than 0 makes the worker's main thread call
    /// [`RawApp::run_signal_handlers`]. -1 in the mold.
    fn signal_descriptor(&self) -> i32;
    /// Returns the number of connections that a stopping worker still accepts from this listening socket; 0 if other
    /// processes serve it.
    fn remaining_backlog(&self, listener: i32) -> u64;
    /// Keeps a task that runs once if another process aborts the worker, before it ends: in a signal handler, on any
    /// thread. It must not wait. In a worker, by its class.
    fn at_abort(&self, task: TaskBox);
    /// See [`crate::Host::log_stack`].
    #[sabi(last_prefix_field)]
    fn log_stack(
        &self,
        level: u8,
        target: RStr<'_>,
        heading: RStr<'_>,
        addresses: RSlice<'_, usize>,
    );
    /// See [`crate::Host::tls`]. Since 1.1.
    fn tls(&self, protocols: RSlice<'_, RStr<'_>>) -> RResult<TlsBox, Failure> {
        no_tls(protocols)
    }
}

/// What a host of worker-api 1.0 returns.
fn no_tls(_: RSlice<'_, RStr<'_>>) -> RResult<TlsBox, Failure> {
    RResult::RErr(Failure::config(
        "certfile: this server provides no TLS to worker classes; install one with worker-api 1.1 or later",
    ))
}

/// Owned [`RawHost`].
pub type HostBox = RawHost_TO<RBox<()>>;

/// An application; see [`crate::App`]. Created by its library in the mold; called there and in workers.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawApp: Send + Sync + 'static {
    /// Returns the bits of [`crate::Requirements`].
    fn requirements(&self) -> u64;
    /// See [`crate::App::load`]. Called in the mold with `preload_app`, otherwise in each worker.
    fn load(&self) -> RResult<(), Failure>;
    /// Called in the mold before each fork.
    fn before_fork(&self);
    /// Called after each fork, in the mold and in the child.
    fn after_fork(&self, in_child: bool);
    /// Called in a worker, on its main thread, before the first request.
    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure>;
    /// Serves one request. Called on any thread of the class, concurrently if the class has threads.
    fn call(&self, exchange: ExchangeBox);
    /// Runs the application's own loop around the class's engine, on the main thread, until the engine has stopped.
    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure>;
    /// See [`crate::App::hook`].
    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure>;
    /// See [`crate::App::trace`]. Callable from any thread.
    fn trace(&self) -> RString;
    /// See [`crate::App::files`].
    fn files(&self) -> RVec<RString>;
    /// Called in a worker, on its main thread, after the last request.
    fn shutdown(&self);
    /// Returns the stack size in bytes of the threads that call the application; 0 for the class's default.
    fn stack_size(&self) -> u64;
    /// Called in a worker, on its main thread, from within [`RawHost::deliver_signals`], when the worker begins to drain.
    fn drain(&self);
    /// Called in a worker, on its main thread, from within [`RawHost::deliver_signals`], when a byte was written to
    /// [`RawHost::signal_descriptor`].
    fn run_signal_handlers(&self);
    /// In the mold, on its main thread, before it reads each message from this descriptor.
    #[sabi(last_prefix_field)]
    fn wait_in_mold(&self, descriptor: i32);
}

/// Owned [`RawApp`].
pub type AppBox = RawApp_TO<RBox<()>>;

/// A worker; see [`crate::Worker`]. Created by its class in a worker process; used on the main thread.
#[sabi_trait]
pub trait RawWorker: 'static {
    /// Prepares the process.
    fn init_process(&self) -> RResult<(), Failure>;
    /// Serves until the worker stops. The first [`RawHost::notify`] in this call reports the worker as ready.
    fn run(&self) -> RResult<(), Failure>;
    /// Handles TERM. Called from within [`RawHost::deliver_signals`], as are the other `handle_*` methods.
    fn handle_exit(&self);
    /// Handles QUIT and INT.
    fn handle_quit(&self);
    /// Handles WINCH.
    fn handle_winch(&self);
    /// Handles USR1, after the host has reopened its logs.
    fn handle_usr1(&self);
    /// Describes what the worker's threads and greenlets are doing.
    #[sabi(last_prefix_field)]
    fn trace(&self) -> RString;
}

/// Owned [`RawWorker`].
pub type WorkerBox = RawWorker_TO<RBox<()>>;

/// Services of a class for the application; see [`crate::Runtime`]. Created by the class in a worker; used on the threads
/// on which the class calls the application, and in spawned tasks.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawRuntime: Send + Sync + 'static {
    /// Returns whether waiting lets other requests run on this thread.
    fn cooperative(&self) -> bool;
    /// Waits for a descriptor. Returns false if the timeout (nanoseconds, `u64::MAX` for none) passes first.
    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure>;
    /// Waits for this number of nanoseconds.
    fn sleep(&self, ns: u64) -> RResult<(), Failure>;
    /// Runs a task in the background.
    fn spawn(&self, task: TaskBox) -> RResult<(), Failure>;
    /// Runs a task that may block on a thread, and waits until it has finished.
    #[sabi(last_prefix_field)]
    fn offload(&self, task: TaskBox) -> RResult<(), Failure>;
    /// See [`crate::Runtime::connect`]. Returns a descriptor that the caller owns. Since 1.1.
    fn connect(&self, address: RStr<'_>, timeout_ns: u64) -> RResult<i32, Failure> {
        no_connect(address, timeout_ns)
    }
    /// See [`crate::Runtime::resolve`]. Returns each address as text with its port. Since 1.1.
    fn resolve(
        &self,
        host: RStr<'_>,
        port: u16,
        timeout_ns: u64,
    ) -> RResult<RVec<RString>, Failure> {
        no_resolve(host, port, timeout_ns)
    }
}

/// What a class of worker-api 1.0 returns.
fn no_connect(_: RStr<'_>, _: u64) -> RResult<i32, Failure> {
    RResult::RErr(Failure::unsupported("this worker class is older than Runtime::connect"))
}

/// What a class of worker-api 1.0 returns.
fn no_resolve(_: RStr<'_>, _: u16, _: u64) -> RResult<RVec<RString>, Failure> {
    RResult::RErr(Failure::unsupported("this worker class is older than Runtime::resolve"))
}

/// Owned [`RawRuntime`].
pub type RuntimeBox = RawRuntime_TO<RBox<()>>;

/// A closure to run once. Created on the application's side; run by the class on a thread of its choice.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawTask: Send + 'static {
    /// Runs the task. Catches panics.
    #[sabi(last_prefix_field)]
    fn run(&mut self);
}

/// Owned [`RawTask`].
pub type TaskBox = RawTask_TO<RBox<()>>;

/// The engine of a class, for an application with its own loop; see [`crate::Engine`]. Used only on the main thread.
#[sabi_trait]
pub trait RawEngine: 'static {
    /// Returns the descriptor to watch for reading.
    fn descriptor(&self) -> i32;
    /// Processes pending events without blocking.
    fn turn(&self) -> RResult<(), Failure>;
    /// Returns whether the worker has stopped and has no exchange left.
    #[sabi(last_prefix_field)]
    fn stopped(&self) -> bool;
}

/// Owned [`RawEngine`].
pub type EngineBox = RawEngine_TO<RBox<()>>;

/// A hook plugin; see [`crate::Hooks`]. Created by its library in the mold; called there and in workers.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawHooks: Send + Sync + 'static {
    /// Runs a server hook, given by its gunicorn name, with numbers that describe the event.
    fn event(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure>;
    /// Returns whether to call `pre_request` and `post_request`.
    fn wants_requests(&self) -> bool;
    /// Called when a request head is complete.
    fn pre_request(&self, head: &RequestHead<'_>);
    /// Called at the end of a request.
    #[sabi(last_prefix_field)]
    fn post_request(&self, record: &AccessRecord<'_>);
}

/// Owned [`RawHooks`].
pub type HooksBox = RawHooks_TO<RBox<()>>;
