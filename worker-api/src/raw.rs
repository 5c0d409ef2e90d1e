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
    /// The descriptor, non-blocking, owned by the receiver; -1 where the connection cannot be given as one (TLS).
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
    /// As it was bound: `127.0.0.1:8000`, `unix:/run/app.sock`.
    pub name: RString,
    /// Whether it is a unix socket.
    pub unix: bool,
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
}

#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawWaker: Send + Sync + 'static {
    #[sabi(last_prefix_field)]
    fn wake(&self);
}

/// The owned form of [`RawWaker`].
pub type WakerBox = RawWaker_TO<RBox<()>>;

#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawExchange: Send + 'static {
    fn head(&self) -> &RequestHead<'_>;
    fn poll_read(&mut self, buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step;
    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step;
    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step;
    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure>;
    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure>;
    fn finish(&mut self) -> RResult<(), Failure>;
    fn fail(&mut self, failure: Failure);
    fn hijack(&mut self) -> RResult<Hijacked, Failure>;
    fn descriptor(&self) -> i32;
    fn deadline_ns(&self) -> u64;
    fn extend_deadline(&mut self, by_ns: u64);
    fn on_gone(&mut self, waker: Waker);
    #[sabi(last_prefix_field)]
    fn wait(&mut self, interest: Interest) -> RResult<(), Failure>;
}

/// The owned form of [`RawExchange`].
pub type ExchangeBox = RawExchange_TO<RBox<()>>;

#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawHost: Send + Sync + 'static {
    fn setting(&self, name: RStr<'_>) -> ROption<Value>;
    fn section(&self) -> RString;
    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure>;
    fn listeners(&self) -> RVec<Listener>;
    fn close_listeners(&self);
    fn age(&self) -> u64;
    fn arbiter_pid(&self) -> i32;
    fn notify(&self);
    fn alive(&self) -> bool;
    fn stop(&self);
    fn retire(&self);
    fn wake_descriptor(&self) -> i32;
    fn deliver_signals(&self);
    fn count(&self, counter: Counter, by: i64);
    fn request_began(&self, head: &RequestHead<'_>) -> u32;
    fn request_ended(&self, token: u32, record: &AccessRecord<'_>);
    fn wants_response_headers(&self) -> bool;
    fn log_level(&self) -> u8;
    #[sabi(last_prefix_field)]
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>);
}

/// The owned form of [`RawHost`].
pub type HostBox = RawHost_TO<RBox<()>>;

#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawApp: Send + Sync + 'static {
    fn needs(&self) -> u64;
    fn load(&self) -> RResult<(), Failure>;
    fn before_fork(&self);
    fn after_fork(&self, in_child: bool);
    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure>;
    fn call(&self, exchange: ExchangeBox);
    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure>;
    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure>;
    fn trace(&self) -> RString;
    fn files(&self) -> RVec<RString>;
    #[sabi(last_prefix_field)]
    fn shutdown(&self);
}

/// The owned form of [`RawApp`].
pub type AppBox = RawApp_TO<RBox<()>>;

#[sabi_trait]
pub trait RawWorker: 'static {
    fn init_process(&self) -> RResult<(), Failure>;
    fn run(&self) -> RResult<(), Failure>;
    fn handle_exit(&self);
    fn handle_quit(&self);
    fn handle_winch(&self);
    fn handle_usr1(&self);
    #[sabi(last_prefix_field)]
    fn trace(&self) -> RString;
}

/// The owned form of [`RawWorker`].
pub type WorkerBox = RawWorker_TO<RBox<()>>;

#[sabi_trait]
#[sabi(impl_InterfaceType(Send, Sync))]
pub trait RawRuntime: Send + Sync + 'static {
    fn cooperative(&self) -> bool;
    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure>;
    fn sleep(&self, ns: u64) -> RResult<(), Failure>;
    fn spawn(&self, task: TaskBox) -> RResult<(), Failure>;
    #[sabi(last_prefix_field)]
    fn offload(&self, task: TaskBox) -> RResult<(), Failure>;
}

/// The owned form of [`RawRuntime`].
pub type RuntimeBox = RawRuntime_TO<RBox<()>>;

#[sabi_trait]
#[sabi(impl_InterfaceType(Send))]
pub trait RawTask: Send + 'static {
    #[sabi(last_prefix_field)]
    fn run(&mut self);
}

/// The owned form of [`RawTask`].
pub type TaskBox = RawTask_TO<RBox<()>>;

#[sabi_trait]
pub trait RawEngine: 'static {
    fn descriptor(&self) -> i32;
    fn turn(&self) -> RResult<(), Failure>;
    #[sabi(last_prefix_field)]
    fn stopped(&self) -> bool;
}

/// The owned form of [`RawEngine`].
pub type EngineBox = RawEngine_TO<RBox<()>>;
