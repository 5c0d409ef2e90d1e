//! Bounded sets of greenlets: eventlet's [`GreenPool`], whose `spawn` waits for room, and gevent's [`Pool`],
//! which reports whether there is room so that an accept watch can be paused.

mod eventlet;
mod gevent;

pub use eventlet::{GreenPool, GreenPoolError};
pub use gevent::{Pool, PoolError};
