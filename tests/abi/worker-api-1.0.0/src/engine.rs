//! The engine of a worker class, for applications that bring their own event loop (a guest loop): gevent's hub,
//! asyncio's loop.
//!
//! Accepting, parsing and timers are reduced to one descriptor that any loop can watch, and one call.

use std::os::fd::RawFd;

use crate::failure::Result;
use crate::raw::EngineBox;

/// The engine of a worker class. Passed to [`crate::App::run_loop`] on the worker's main thread and used only there.
///
/// The application watches [`Engine::descriptor`] for reading, level-triggered, and calls [`Engine::turn`] when it is
/// readable. Expired timers of the engine also make the descriptor readable.
pub struct Engine(EngineBox);

impl Engine {
    /// Wraps the object that a worker class created.
    pub fn from_raw(raw: EngineBox) -> Self {
        Self(raw)
    }

    /// Returns the descriptor to watch. It does not change while the engine exists.
    pub fn descriptor(&self) -> RawFd {
        self.0.descriptor()
    }

    /// Processes pending events without blocking.
    ///
    /// Before it returns, it passes ready exchanges to [`crate::App::call`] and fires wakers of exchanges. Both should
    /// only queue work for the loop.
    pub fn turn(&self) -> Result<()> {
        self.0.turn().into_result()
    }

    /// Returns whether the worker has stopped accepting and no exchange is open. [`crate::App::run_loop`] then returns.
    pub fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.descriptor()).finish()
    }
}
