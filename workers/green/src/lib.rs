//! Green threads for one thread: a hub, greenlets, pools, timeouts and cooperative sockets, in the sense
//! of gevent and eventlet.
//!
//! Code that runs in a greenlet reads as if it blocked; where it waits, the hub runs others. There is no
//! `async`, no executor and no work stealing: a hub and its greenlets belong to one thread for good.
//!
//! ```
//! use std::io::{Read, Write};
//! use green::{Hub, spawn};
//! use green::net::{TcpListener, TcpStream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::new()?;
//! let answer = hub.block_on(|| -> Result<String, Box<dyn std::error::Error>> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let address = listener.local_addr()?;
//!     spawn(move || -> std::io::Result<()> {
//!         let (mut stream, _) = listener.accept()?;
//!         stream.write_all(b"hello")
//!     })?;
//!     let mut answer = String::new();
//!     TcpStream::connect_to(address)?.read_to_string(&mut answer)?;
//!     Ok(answer)
//! })?;
//! assert_eq!(answer.map_err(|error| error.to_string()), Ok("hello".to_owned()));
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//!
//! | module | what is there |
//! | --- | --- |
//! | `hub` | the loop: epoll, timers, wake-up from other threads, sources, watches, scheduling |
//! | [`mod@greenlet`] | greenlets: start, kill, join; their stacks, panics and overflows |
//! | `timeout` | [`Timeout`] scopes; `interrupt`: what a blocking call returns when it is cut short |
//! | [`sync`] | [`Event`](sync::Event), [`Semaphore`](sync::Semaphore), [`Queue`](sync::Queue) |
//! | [`pool`] | eventlet's [`GreenPool`](pool::GreenPool), gevent's [`Pool`](pool::Pool) |
//! | [`net`] | streams, listeners, names, any descriptor |
//! | `offload` | blocking work on threads |
//! | `watchdog` | names greenlets that compute for too long |
//!
//! # Invariants
//!
//! - **A suspended greenlet is never unwound from outside.** Kill and timeout are errors that its
//!   blocking call returns ([`Interrupt`]); what is suspended when the hub is dropped is leaked. So
//!   greenlets may have frames of other languages or libraries on their stacks.
//! - **A greenlet stays on its thread**, and only [`Handle`] and [`Waker`] leave it.
//! - **A panic ends its greenlet**, or its callback, and nothing else: it is logged with its backtrace and
//!   reported to whoever joins.
//! - **Idle costs nothing but a descriptor**: a watch ([`Source::watch`], [`net::Stream::idle`]) holds
//!   neither greenlet nor stack.
//! - **A steady connection costs no `epoll_ctl`**, and setting a timeout no system call.
//! - **No borrow is held over a switch**; see [`park`] for what that asks of users.
//! - **Nobody starves**: a greenlet that never has to wait yields now and then, and a turn of the hub
//!   runs a bounded number of greenlets before it looks at descriptors and timers again.

pub mod greenlet;
mod hub;
mod interrupt;
pub mod net;
mod offload;
pub mod pool;
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
pub use timeout::Timeout;
