//! The threads that call the application, and the queue of whole requests before them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kit::Connection;

/// The queue before the threads. A thread that finds it empty sleeps.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<Connection>>,
    idle: usize,
    closed: bool,
}

impl Queue {
    /// Puts requests before the threads, and wakes as many threads as there is work for.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = Box<Connection>>) {
        let mut state = self.lock();
        let before = state.waiting.len();
        state.waiting.extend(requests);
        let wake = state.idle.min(state.waiting.len() - before);
        drop(state);
        for _ in 0..wake {
            self.filled.notify_one();
        }
    }

    /// The next request, slept for; nothing when the pool is closed and the queue is empty. `idle` is called when this
    /// thread has nothing to do, before it sleeps.
    pub(crate) fn next(&self, idle: impl Fn()) -> Option<Box<Connection>> {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.closed {
            state.idle += 1;
            drop(state);
            idle();
            state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle -= 1;
        }
        state.waiting.pop_front()
    }

    /// Whether a thread is free that no waiting request is meant for.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        state.idle > state.waiting.len()
    }

    /// Has the threads end when there is nothing left to do.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
