//! The interpreter's lock: a thread holds it while it has a [`Python`].
//!
//! A thread of the worker class gets a Python thread state at its first call and keeps it until the thread ends,
//! so that `threading.local` lasts from request to request, as under gunicorn, and attaching does not allocate.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use pyo3_ffi::{PyGILState_STATE, PyThreadState};

use super::api::{self, Api};
use crate::library::Library;

/// Proof that this thread holds the interpreter's lock.
#[derive(Clone, Copy)]
pub struct Python<'py>(PhantomData<(&'py (), *mut ())>);

impl Python<'_> {
    /// Creates the proof.
    ///
    /// # Safety
    /// The interpreter runs, and this thread holds its lock throughout `'py`.
    pub(super) unsafe fn assume() -> Self {
        Self(PhantomData)
    }

    /// Returns CPython's functions.
    #[inline]
    #[allow(clippy::unused_self, reason = "the token is the proof that the table is filled")]
    pub(super) fn api(self) -> &'static Api {
        // SAFETY: a token exists only after `adopt`, which fills the table first.
        unsafe { api::api() }
    }

    /// Runs `work` without the interpreter's lock, so that other threads can take it. `work` may call
    /// [`attach`].
    pub fn detach<T>(self, work: impl FnOnce() -> T + Send) -> T {
        // SAFETY: the token proves that this thread is attached. `work` cannot use the token: it is not
        // `Send`.
        let state = unsafe { (self.api().PyEval_SaveThread)() };
        THREAD.with(|thread| thread.detached.set(state));
        let _back = Back;
        work()
    }
}

/// Attaches again when dropped, also if the work panicked.
struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        let state = THREAD.with(|thread| thread.detached.replace(ptr::null_mut()));
        // SAFETY: the state was saved on this thread, by `detach` or by the last guard that resumed it.
        unsafe { (api::api().PyEval_RestoreThread)(state) };
    }
}

/// Fills the table of functions of the interpreter that this process is. This thread, Python's main thread, stays
/// detached.
///
/// # Errors
/// The message for the missing symbol.
///
/// # Safety
/// Called once per process, before anything else in this module, on a thread that is not attached.
pub unsafe fn adopt() -> Result<(), String> {
    let library = Library::of_process()?;
    // SAFETY: first and only call, by this function's contract.
    unsafe { api::install(&library)? };
    // SAFETY: the table is filled. The first call attaches the thread with the state that it has had, the second saves
    // that.
    let state = unsafe {
        (api::api().PyGILState_Ensure)();
        (api::api().PyEval_SaveThread)()
    };
    THREAD.with(|thread| thread.state.set(state));
    Ok(())
}

/// Runs `work` with the interpreter's lock. A nested call on the same thread costs next to nothing.
///
/// Only valid after [`adopt`]; callers hold an object that proves this.
pub fn attach<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    let _guard = Attached::new();
    // SAFETY: the guard has attached this thread and outlives the call.
    work(unsafe { Python::assume() })
}

/// Runs `work` as [`attach`] does, on a thread that begins a request: of those threads, at most one at a time waits for the
/// interpreter's lock, and the others sleep. A thread that waits for that lock wakes up every switch interval (5 ms) to ask
/// for it, which takes time from the thread that computes.
pub fn attach_in_turn<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    // A thread that is attached must not wait for one that waits for the lock.
    let turn = (!is_attached()).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    attach(|py| {
        drop(turn);
        work(py)
    })
}

/// Returns whether this thread is inside [`attach`]. Async-signal-safe on a thread that has attached before.
pub fn is_attached() -> bool {
    THREAD.with(|thread| thread.attached.get())
}

/// Prepares the interpreter for a fork: its locks are held until [`after_fork`].
pub fn before_fork() {
    let guard = Attached::new();
    // SAFETY: attached, on the thread that forks.
    unsafe { (api::api().PyOS_BeforeFork)() };
    // The thread stays attached over the fork: `after_fork` detaches it.
    std::mem::forget(guard);
}

/// Completes [`before_fork`], in both processes, and detaches.
pub fn after_fork(in_child: bool) {
    // SAFETY: `before_fork` left this thread attached; CPython requires exactly one of the two calls
    // afterwards.
    unsafe {
        if in_child {
            (api::api().PyOS_AfterFork_Child)();
        } else {
            (api::api().PyOS_AfterFork_Parent)();
        }
    }
    THREAD.with(Thread::leave);
}

/// Attached until dropped.
struct Attached(Kind);

enum Kind {
    /// By this guard, with the thread's saved state.
    Ours,
    /// By a guard further up on this thread's stack.
    Nested,
    /// By a guard further up that has detached since.
    Resumed,
    /// The thread was created by Python and was attached already: only counted.
    Counted,
}

impl Attached {
    #[inline]
    fn new() -> Self {
        Self(THREAD.with(Thread::enter))
    }
}

impl Drop for Attached {
    #[inline]
    fn drop(&mut self) {
        match self.0 {
            Kind::Ours => THREAD.with(Thread::leave),
            Kind::Nested => {}
            Kind::Resumed => {
                // SAFETY: `enter` has attached this thread.
                let state = unsafe { (api::api().PyEval_SaveThread)() };
                THREAD.with(|thread| thread.detached.set(state));
            }
            // SAFETY: the counterpart of the call in `enter`.
            Kind::Counted => unsafe {
                (api::api().PyGILState_Release)(PyGILState_STATE::PyGILState_LOCKED);
            },
        }
    }
}

/// The Python state of this thread.
struct Thread {
    /// State with which the thread attaches, saved when it last detached; null before that.
    state: Cell<*mut PyThreadState>,
    /// Whether the thread is inside [`attach`], possibly detached again.
    attached: Cell<bool>,
    /// State saved by [`Python::detach`]; null outside of it.
    detached: Cell<*mut PyThreadState>,
    /// Whether the state was created for this thread and must be released when it ends.
    owned: Cell<bool>,
}

impl Thread {
    #[inline]
    fn enter(&self) -> Kind {
        if let Some(state) = NonNull::new(self.detached.replace(ptr::null_mut())) {
            // SAFETY: the state was saved on this thread, and has not been restored since.
            unsafe { (api::api().PyEval_RestoreThread)(state.as_ptr()) };
            return Kind::Resumed;
        }
        if self.attached.get() {
            return Kind::Nested;
        }
        let Some(state) = NonNull::new(self.state.get()) else {
            return self.enter_first();
        };
        // SAFETY: the state is this thread's, saved when it detached.
        unsafe { (api::api().PyEval_RestoreThread)(state.as_ptr()) };
        self.attached.set(true);
        Kind::Ours
    }

    #[cold]
    fn enter_first(&self) -> Kind {
        // SAFETY: the interpreter runs. If the thread had no state, this creates one, and since the call
        // is not undone before the thread ends, it stays.
        let before = unsafe { (api::api().PyGILState_Ensure)() };
        if before == PyGILState_STATE::PyGILState_LOCKED {
            return Kind::Counted;
        }
        self.owned.set(true);
        self.attached.set(true);
        Kind::Ours
    }

    #[inline]
    fn leave(&self) {
        self.attached.set(false);
        // SAFETY: this thread is attached.
        self.state.set(unsafe { (api::api().PyEval_SaveThread)() });
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.owned.get() || self.attached.get() {
            return;
        }
        let state = self.state.replace(ptr::null_mut());
        if !state.is_null() {
            // SAFETY: the state is this thread's; releasing what `enter_first` ensured clears and
            // frees it.
            unsafe {
                (api::api().PyEval_RestoreThread)(state);
                (api::api().PyGILState_Release)(PyGILState_STATE::PyGILState_UNLOCKED);
            }
        }
    }
}

/// Held while a thread waits for the interpreter's lock in [`attach_in_turn`].
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    static THREAD: Thread = const {
        Thread {
            state: Cell::new(ptr::null_mut()),
            attached: Cell::new(false),
            detached: Cell::new(ptr::null_mut()),
            owned: Cell::new(false),
        }
    };
}
