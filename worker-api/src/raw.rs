//! The traits whose objects cross the boundary, in the form in which `abi_stable` checks them.
//!
//! Not for daily use: [`crate::Exchange`], [`crate::Host`], [`crate::App`], [`crate::Worker`], [`crate::Runtime`] and
//! [`crate::Engine`] are the same in plain Rust, and catch panics. Who implements one of these traits directly (the
//! host and the kit do) catches panics itself with [`crate::guard::catch`]: `abi_stable` answers a panic that
//! reaches the boundary with `exit(1)`.
//!
//! Evolution: a new method comes last, with a default body that is one call; nothing else of a trait ever changes
//! within a major version.

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

/// What a primitive operation answers: it never blocks.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Done, for so many octets; 0 from a read means that the body has ended.
    Ready(usize),
    /// Nothing was done. The waker, where one was given, fires when it is worth while to try again.
    NotYet,
    /// It cannot be done any more.
    Failed(Failure),
}

/// What to wait for on a descriptor.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(pub u8);

impl Interest {
    /// Until it can be read, or is at its end.
    pub const READ: Self = Self(1);
    /// Until it can be written, or is broken.
    pub const WRITE: Self = Self(2);
}

/// A connection that an application took over.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Hijacked {
    /// The descriptor, non-blocking, owned by the receiver; -1 where the connection cannot be given as one. It carries plain
    /// bytes, also where the client speaks TLS.
    pub fd: i32,
    /// What had been read from the connection behind the request's head.
    pub already_read: RVec<u8>,
}

/// A setting's value.
#[repr(C)]
#[derive(StableAbi, Clone, PartialEq, Debug)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; durations are in seconds.
    Float(f64),
    /// Text, a path.
    Text(RString),
    /// Several.
    List(RVec<RString>),
}

/// One listening socket of the server.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Listener {
    /// The listening socket, non-blocking; owned by the host.
    pub fd: i32,
    /// As it was bound: `127.0.0.1:8000`, `unix:/run/app.sock`; or [`PRIVATE`].
    pub name: RString,
    /// Whether it is a unix socket.
    pub unix: bool,
}

/// The name of a listener that only the server itself connects to, for `health_path`: without TLS, whatever the
/// settings say. Since 1.1.
pub const PRIVATE: &str = "private";

/// What an application does that is older than [`RawApp::drain`].
fn not_interested() {}

/// What an application that is older than a method wants of it.
fn no_preference() -> u64 {
    0
}

/// What a host does that is older than [`RawHost::retire_for`].
fn not_replaced(_reason: RStr<'_>) {}

/// What a host or an application that is older than the methods for signals does.
fn no_signal(_signal: i32) {}

fn no_descriptor() -> i32 {
    -1
}

/// What is counted; see [`RawHost::count`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter(pub u8);

impl Counter {
    /// Connections accepted.
    pub const ACCEPTED: Self = Self(0);
    /// Connections that are open now: goes up and down.
    pub const CONNECTIONS: Self = Self(1);
    /// Greenlets or threads that are busy now: goes up and down.
    pub const BUSY_SLOTS: Self = Self(2);
    /// The bound of [`Self::BUSY_SLOTS`].
    pub const SLOTS: Self = Self(3);
    /// A request waited so many microseconds, from when its last octets arrived until the application is called for it:
    /// once for each request that is looked at, not a sum. Since 1.1.
    pub const QUEUED_US: Self = Self(4);
}

/// What wakes whoever waits. Made by the side that waits, called by the side that knows: from any thread of the
/// worker process, without blocking.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawWaker: Send + Sync + 'static {
    /// Says that it is worth while to try again.
    #[sabi(last_prefix_field)]
    fn wake(&self);
}

/// The owned form of [`RawWaker`].
pub type WakerBox = RawWaker_TO<RBox<()>>;

/// One request and its response: see [`crate::Exchange`]. Made by a worker class, in a worker process; used by one thread
/// at a time, that of the application's call or one to which the application moved it. Dropping it ends it.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawExchange: Send + 'static {
    /// The request's head, borrowed until the exchange is over; an empty head afterwards.
    fn head(&self) -> &RequestHead<'_>;
    /// Reads from the request's body; `Ready(0)` is its end. Never blocks.
    fn poll_read(&mut self, buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step;
    /// Begins the response, or replaces one whose head is not on the wire. Checks every field; sends nothing.
    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    /// Writes a part of the body: answers how much of it was taken. Never blocks.
    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step;
    /// Sends a part of an open file as a part of the body: answers how much of it was taken. Never blocks.
    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step;
    /// Sends an informational response (1xx) ahead of the final one.
    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    /// Sets the trailer fields of a body in chunks.
    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure>;
    /// Ends the response, without blocking; what is not sent yet is the class's to send. With a failure the exchange
    /// stays open, to be failed.
    fn finish(&mut self) -> RResult<(), Failure>;
    /// Ends the exchange for a failure: an error answer where nothing is on the wire, a cut otherwise.
    fn fail(&mut self, failure: Failure);
    /// Gives the connection away, before the response is begun or after the head of a 101: the descriptor in the result is
    /// the caller's.
    fn hijack(&mut self) -> RResult<Hijacked, Failure>;
    /// The connection's descriptor, to look at; -1 when the exchange is over.
    fn descriptor(&self) -> i32;
    /// Until when the response is to be over, `CLOCK_MONOTONIC` in nanoseconds; 0 for ever.
    fn deadline_ns(&self) -> u64;
    /// Moves the deadline by so many nanoseconds, from now where it has passed.
    fn extend_deadline(&mut self, by_ns: u64);
    /// Has the waker fire when the client hangs up; a class that cannot notice never fires it.
    fn on_gone(&mut self, waker: Waker);
    /// Blocks in the class's way until the last "not yet" in that direction is worth trying again, or fails for good.
    /// Only where the class called the application and waits for its return; never in a guest loop.
    #[sabi(last_prefix_field)]
    fn wait(&mut self, interest: Interest) -> RResult<(), Failure>;
    /// Whether the ends of the connection are those that a PROXY header named. Since 1.1.
    fn is_proxied(&self) -> bool {
        not_proxied()
    }
}

fn not_proxied() -> bool {
    false
}

/// The owned form of [`RawExchange`].
pub type ExchangeBox = RawExchange_TO<RBox<()>>;

/// The host's services: see [`crate::Host`]. Made by the host, one object for each library, in the mold; valid there and,
/// after the fork, in each worker. Callable from any thread.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawHost: Send + Sync + 'static {
    /// A setting by its name.
    fn setting(&self, name: RStr<'_>) -> ROption<Value>;
    /// The library's own section of the settings file, as TOML.
    fn section(&self) -> RString;
    /// The contents of the file that a setting names, as read at start.
    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure>;
    /// The listening sockets; they stay the host's.
    fn listeners(&self) -> RVec<Listener>;
    /// Closes this process's copies of the listening sockets. In a worker, by its class, once.
    fn close_listeners(&self);
    /// The how-manieth worker of the server this is; 0 in the mold.
    fn age(&self) -> u64;
    /// The arbiter's process id.
    fn arbiter_pid(&self) -> i32;
    /// The heartbeat. In a worker, by its class, at least once a second.
    fn notify(&self);
    /// Whether the worker is to go on.
    fn alive(&self) -> bool;
    /// Ends the worker as a TERM does.
    fn stop(&self);
    /// Asks the arbiter for a replacement; TERM follows when that can serve.
    fn retire(&self);
    /// Readable when a signal came.
    fn wake_descriptor(&self) -> i32;
    /// Empties the wake descriptor and calls the worker's `handle_*`, on the calling thread.
    fn deliver_signals(&self);
    /// Adds to a counter of the worker's slot.
    fn count(&self, counter: Counter, by: i64);
    /// A request's head is complete. Answers a token for its end; never 0.
    fn request_began(&self, head: &RequestHead<'_>) -> u32;
    /// The request of that token is over; 0 for one that was refused without a head.
    fn request_ended(&self, token: u32, record: &AccessRecord<'_>);
    /// Whether the access log needs response fields.
    fn wants_response_headers(&self) -> bool;
    /// The most verbose level that is logged, as a [`crate::LogLevel`].
    fn log_level(&self) -> u8;
    /// Writes a line to the error log.
    #[sabi(last_prefix_field)]
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>);
    /// As [`RawHost::retire`], with the reason for the log. Since 1.1.
    fn retire_for(&self, reason: RStr<'_>) {
        not_replaced(reason);
    }
    /// Writes text to the error log as it is, in one piece, whatever the level. Since 1.1.
    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        nothing_written(target, text);
    }
    /// The request variables that the access log has, by the names of CGI and WSGI: those that an application may
    /// change. Since 1.1.
    fn logged_variables(&self) -> RVec<RString> {
        no_variables()
    }
    /// The value that the application gave to such a variable, before the request is over. `request` is
    /// [`RequestHead::id`]. Since 1.1.
    fn set_logged_variable(&self, request: u64, name: RStr<'_>, value: RSlice<'_, u8>) {
        nothing_logged(request, name, value);
    }
    /// Does what the server's handler of that signal does; nothing in the mold, or for other signals. Since 1.1.
    fn on_signal(&self, signal: i32) {
        no_signal(signal);
    }
    /// Puts the server's handlers of its signals before those that the application has installed. In a worker. Since
    /// 1.1.
    fn reclaim_signals(&self) {
        no_signal(0);
    }
    /// A non-blocking descriptor: a byte other than 0 that is written to it makes the worker's main thread call
    /// [`RawApp::run_signal_handlers`]. -1 in the mold. Since 1.1.
    fn signal_descriptor(&self) -> i32 {
        no_descriptor()
    }
    /// Returns how many connections a stopping worker still accepts from this listening socket; 0 where others serve it.
    /// Since 1.1.
    fn remaining_backlog(&self, listener: i32) -> u64 {
        unlimited_backlog(listener)
    }
}

/// What a host without [`RawHost::remaining_backlog`] expects: a worker that stops empties the backlog.
fn unlimited_backlog(_listener: i32) -> u64 {
    u64::MAX
}

fn nothing_written(_: RStr<'_>, _: RSlice<'_, u8>) {}

fn no_variables() -> RVec<RString> {
    RVec::new()
}

fn nothing_logged(_: u64, _: RStr<'_>, _: RSlice<'_, u8>) {}

/// The owned form of [`RawHost`].
pub type HostBox = RawHost_TO<RBox<()>>;

/// An application: see [`crate::App`]. Made by its library in the mold, called there and in workers.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawApp: Send + Sync + 'static {
    /// The bits of [`crate::Needs`].
    fn needs(&self) -> u64;
    /// Loads what is slow or can fail: in the mold with `preload_app`, else in each worker.
    fn load(&self) -> RResult<(), Failure>;
    /// In the mold, before each fork.
    fn before_fork(&self);
    /// After each fork, in the mold and in the child.
    fn after_fork(&self, in_child: bool);
    /// In a worker, on its main thread, before the first request.
    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure>;
    /// Serves one request. On any thread of the class's, several at once where the class has threads.
    fn call(&self, exchange: ExchangeBox);
    /// Runs the application's own loop around the class's engine, on the main thread, until it has stopped.
    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure>;
    /// A server hook by its gunicorn name, with numbers that describe it.
    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure>;
    /// What its requests are doing now, as text. From any thread.
    fn trace(&self) -> RString;
    /// The files whose change means that the application has changed.
    fn files(&self) -> RVec<RString>;
    /// In a worker, on its main thread, after the last request.
    #[sabi(last_prefix_field)]
    fn shutdown(&self);
    /// The stack that threads which call the application need, in bytes; 0 for the class's default. Since 1.1.
    fn stack_size(&self) -> u64 {
        no_preference()
    }
    /// In a worker, on its main thread, from within [`RawHost::deliver_signals`]: the worker has begun to end. Since 1.1.
    fn drain(&self) {
        not_interested();
    }
    /// In a worker, on its main thread, from within [`RawHost::deliver_signals`]: a byte came through
    /// [`RawHost::signal_descriptor`]. Since 1.1.
    fn run_signal_handlers(&self) {
        no_signal(0);
    }
}

/// The owned form of [`RawApp`].
pub type AppBox = RawApp_TO<RBox<()>>;

/// A worker: see [`crate::Worker`]. Made by its class in a worker process, used on its main thread.
#[sabi_trait]
pub trait RawWorker: 'static {
    /// Prepares the process.
    fn init_process(&self) -> RResult<(), Failure>;
    /// Serves until the worker is to end; the worker is ready with the first [`RawHost::notify`] in here.
    fn run(&self) -> RResult<(), Failure>;
    /// TERM came. Called from within [`RawHost::deliver_signals`], as are the three below.
    fn handle_exit(&self);
    /// QUIT or INT came.
    fn handle_quit(&self);
    /// WINCH came.
    fn handle_winch(&self);
    /// USR1 came: the logs were reopened.
    fn handle_usr1(&self);
    /// What its threads and greenlets are doing now, as text.
    #[sabi(last_prefix_field)]
    fn trace(&self) -> RString;
}

/// The owned form of [`RawWorker`].
pub type WorkerBox = RawWorker_TO<RBox<()>>;

/// What a class does for an application while it serves: see [`crate::Runtime`]. Made by the class, in a worker; used
/// where the class calls the application and in what it spawned.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawRuntime: Send + Sync + 'static {
    /// Whether waiting lets other requests run on this thread.
    fn cooperative(&self) -> bool;
    /// Waits for a descriptor; false when the timeout (nanoseconds, `u64::MAX` for none) passed before.
    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure>;
    /// Waits so many nanoseconds.
    fn sleep(&self, ns: u64) -> RResult<(), Failure>;
    /// Runs a task beside the requests.
    fn spawn(&self, task: TaskBox) -> RResult<(), Failure>;
    /// Runs a task that may block, on a thread, and waits until it has run.
    #[sabi(last_prefix_field)]
    fn offload(&self, task: TaskBox) -> RResult<(), Failure>;
}

/// The owned form of [`RawRuntime`].
pub type RuntimeBox = RawRuntime_TO<RBox<()>>;

/// Something to run once. Made by the application's side, run by the class on whatever thread suits it.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawTask: Send + 'static {
    /// Runs it; panics are caught inside.
    #[sabi(last_prefix_field)]
    fn run(&mut self);
}

/// The owned form of [`RawTask`].
pub type TaskBox = RawTask_TO<RBox<()>>;

/// A class's engine for an application with a loop of its own: see [`crate::Engine`]. On the main thread alone.
#[sabi_trait]
pub trait RawEngine: 'static {
    /// The descriptor to watch for reading.
    fn descriptor(&self) -> i32;
    /// Does what there is to do, without blocking.
    fn turn(&self) -> RResult<(), Failure>;
    /// Whether the worker has nothing left to do and is to end.
    #[sabi(last_prefix_field)]
    fn stopped(&self) -> bool;
}

/// The owned form of [`RawEngine`].
pub type EngineBox = RawEngine_TO<RBox<()>>;

/// A hook plugin: see [`crate::Hooks`]. Made by its library in the mold, called there and in workers.
#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawHooks: Send + Sync + 'static {
    /// A server hook by its gunicorn name, with numbers that describe it.
    fn event(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure>;
    /// Whether the two below are to be called.
    fn wants_requests(&self) -> bool;
    /// A request's head is complete.
    fn pre_request(&self, head: &RequestHead<'_>);
    /// A request is over.
    #[sabi(last_prefix_field)]
    fn post_request(&self, record: &AccessRecord<'_>);
}

/// The owned form of [`RawHooks`].
pub type HooksBox = RawHooks_TO<RBox<()>>;
