//! Green threads for one thread: a hub, greenlets, pools, timeouts and cooperative sockets, modeled on gevent and
//! eventlet.
//!
//! Code in a greenlet is written as if it blocked. Where it would block, it suspends, and the hub (the event loop) runs other
//! greenlets until the operation can proceed. There is no `async`, no executor and no work stealing: a hub and its
//! greenlets belong to one thread.
//!
//! # Example
//!
//! A server and a client, each in a greenlet of the same thread:
//!
//! ```
//! use std::io::{Read, Write};
//! use jimu_green::{Hub, spawn};
//! use jimu_green::net::{TcpListener, TcpStream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::new()?;
//! let response = hub.block_on(|| -> Result<String, Box<dyn std::error::Error>> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let address = listener.local_addr()?;
//!     spawn(move || -> std::io::Result<()> {
//!         let (mut stream, _) = listener.accept()?;
//!         stream.write_all(b"hello")
//!     })?;
//!     let mut response = String::new();
//!     TcpStream::connect_to(address)?.read_to_string(&mut response)?;
//!     Ok(response)
//! })?;
//! assert_eq!(response.map_err(|error| error.to_string()), Ok("hello".to_owned()));
//! # Ok(())
//! # }
//! ```
//!
//! A hub does not have to own the thread. In guest mode it is one pollable descriptor inside another event loop (asyncio's,
//! gevent's), which calls [`Hub::turn`] whenever the descriptor is readable.
//!
//! # Map
//!
//! | items | contents |
//! | --- | --- |
//! | [`Hub`], [`Handle`], [`Timer`], [`Observer`] | the event loop: epoll, timers, wake-ups from other threads, scheduling |
//! | [`mod@greenlet`], [`spawn`], [`Greenlet`], [`JoinHandle`] | greenlets: start, kill, join; their stacks, panics and overflows |
//! | [`park`], [`sleep`], [`yield_now`], [`Waker`] | suspending the current greenlet and resuming it |
//! | [`Source`], [`Interest`], [`wait_fd`] | descriptors registered in the hub, and waiting for any descriptor |
//! | [`Timeout`], [`Interrupt`] | timeouts as scopes, and what a blocking call returns when it is interrupted |
//! | [`net`] | cooperative TCP and unix sockets, listeners, name resolution |
//! | [`pool`] | bounded sets of greenlets: eventlet's [`GreenPool`](pool::GreenPool), gevent's [`Pool`](pool::Pool) |
//! | [`sync`] | [`Event`](sync::Event), [`Semaphore`](sync::Semaphore), [`Queue`](sync::Queue) |
//! | [`offload`](fn@offload) | blocking work on threads |
//! | `watchdog`, [`report_stacks`] | logs greenlets that compute for too long; where stacks are logged |
//!
//! # Invariants
//!
//! - **A suspended greenlet is never unwound from outside.** Kill and timeout are errors that its blocking call returns
//!   ([`Interrupt`]); greenlets that are suspended when the hub is dropped are leaked. Greenlets may therefore have frames of
//!   other languages or libraries on their stacks.
//! - **A greenlet stays on its thread.** Only [`Handle`] and [`Waker`] may leave it.
//! - **A panic ends its greenlet**, or its callback, and nothing else: it is logged with its location and reported, with its
//!   backtrace, to the greenlet that joins.
//! - **An idle connection costs only a descriptor**: a watch ([`Source::watch`], [`net::Stream::idle`]) holds neither a
//!   greenlet nor a stack.
//! - **A steady connection makes no `epoll_ctl` call**, and setting a timeout makes no system call.
//! - **No borrow is held over a switch**; [`park`] documents what that requires of users.
//! - **No greenlet starves**: a greenlet that never has to wait yields periodically, and a turn of the hub runs a bounded
//!   number of greenlets before it checks descriptors and timers again.

pub mod greenlet;
mod hub;
mod interrupt;
pub mod net;
mod offload;
pub mod pool;
mod stack_trace;
pub mod sync;
mod timeout;
mod watchdog;

pub use greenlet::overflow::report_overflow;
pub use greenlet::panics::PanicReport;
pub use greenlet::stack::{StackConfig, StackError};
pub use greenlet::{Greenlet, JoinError, JoinHandle, SpawnError, current, spawn};
pub use hub::ready::{Interest, Ready, Trigger};
pub use hub::source::{Source, expire_idle};
pub use hub::{
    Handle, Hub, HubError, NoSuspend, Observer, RunError, Timer, Waker, park, sleep, waker,
    yield_now,
};
pub use interrupt::{Interrupt, Interrupted, TimeoutId};
pub use net::wait_fd;
pub use offload::{OffloadError, offload};
pub use stack_trace::{StackTrace, report_stacks};
pub use timeout::Timeout;

/// Compiles the examples of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
