//! The seam for an application that brings its own event loop (a guest loop): gevent's hub, asyncio's loop.
//!
//! The worker class's engine — accepting, parsing, timing — is one descriptor that any loop can watch, and one call.

use std::os::fd::RawFd;

use crate::failure::Result;
use crate::raw::EngineBox;

/// The worker class's engine, given to [`crate::App::run_loop`] on the worker's main thread and used there alone.
///
/// The application watches [`Engine::descriptor`] for reading in its own loop and calls [`Engine::turn`] when it is
/// readable; level-triggered watching is right. Timers of the engine make the descriptor readable too.
pub struct Engine(EngineBox);

impl Engine {
    /// Wraps what a worker class made.
    pub fn from_raw(raw: EngineBox) -> Self {
        Self(raw)
    }

    /// The descriptor to watch; the same for the engine's whole life.
    pub fn descriptor(&self) -> RawFd {
        self.0.descriptor()
    }

    /// Does what there is to do without blocking. Ready exchanges go to [`crate::App::call`] before it returns, and
    /// wakers that were given to exchanges fire; both are to make a note, which the loop acts upon afterwards.
    pub fn turn(&self) -> Result<()> {
        self.0.turn().into_result()
    }

    /// Whether the worker is to end: nothing is accepted any more, and no exchange is left. `run_loop` then returns.
    pub fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.descriptor()).finish()
    }
}
