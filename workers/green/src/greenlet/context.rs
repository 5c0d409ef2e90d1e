//! The context switch: the only place where stacks are switched. Independent of the hub and of scheduling.

use std::cell::Cell;
use std::ptr::NonNull;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::stack::PooledStack;

type YielderSlot = Cell<Option<NonNull<Yielder<Entry, ()>>>>;
type Stackful = Coroutine<Entry, (), (), PooledStack>;

/// Passed in at each resume; only the first is read, at the start of the coroutine.
struct Entry(NonNull<YielderSlot>);

/// A coroutine with its stack, and the yielder to suspend it from within.
pub(crate) struct Context {
    /// `None` while the coroutine runs and after it has finished.
    coroutine: Cell<Option<Stackful>>,
    yielder: YielderSlot,
}

impl Context {
    /// `body` must not unwind: a panic would propagate out of `resume`.
    pub(crate) fn new(stack: PooledStack, body: impl FnOnce() + 'static) -> Self {
        let coroutine =
            Coroutine::with_stack(stack, move |yielder: &Yielder<Entry, ()>, entry: Entry| {
                // SAFETY: `resume` created the pointer from a reference to the slot, which is
                // alive until `resume` returns. Nothing has been suspended yet, so it has not
                // returned.
                unsafe { entry.0.as_ref() }.set(Some(NonNull::from(yielder)));
                body();
            });
        Self { coroutine: Cell::new(Some(coroutine)), yielder: Cell::new(None) }
    }

    /// Runs the coroutine until it suspends or finishes; returns whether it has finished. The stack of a
    /// finished coroutine is returned to its pool here.
    pub(crate) fn resume(&self) -> bool {
        let Some(mut coroutine) = self.coroutine.take() else { return true };
        match coroutine.resume(Entry(NonNull::from(&self.yielder))) {
            CoroutineResult::Yield(()) => {
                self.coroutine.set(Some(coroutine));
                false
            }
            CoroutineResult::Return(()) => {
                self.yielder.set(None);
                true
            }
        }
    }

    /// Suspends the running coroutine; returns at the next `resume`. Must be called on the coroutine's stack.
    pub(crate) fn suspend(&self) {
        let Some(yielder) = self.yielder.get() else {
            debug_assert!(false, "suspend outside a running coroutine");
            return;
        };
        // SAFETY: the yielder lives on the coroutine's stack, below every frame of its body, while the
        // body runs; the slot is cleared when it finishes. The contract of this function requires the
        // caller to run on this stack: the hub calls it only for its current greenlet.
        unsafe { yielder.as_ref() }.suspend(());
    }

    pub(crate) fn has_started(&self) -> bool {
        self.yielder.get().is_some()
    }

    /// Abandons a coroutine that will not be resumed again. An unstarted coroutine drops its body. The frames
    /// of a suspended coroutine are leaked, because unwinding could reach foreign frames.
    pub(crate) fn abandon(&self) {
        if let Some(coroutine) = self.coroutine.take()
            && coroutine.started()
        {
            std::mem::forget(coroutine);
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("started", &self.has_started()).finish_non_exhaustive()
    }
}
