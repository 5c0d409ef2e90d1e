//! The context switch: the one place where stacks change. It knows neither hub nor scheduling.

use std::cell::Cell;
use std::ptr::NonNull;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::stack::PooledStack;

type YielderSlot = Cell<Option<NonNull<Yielder<Entry, ()>>>>;
type Stackful = Coroutine<Entry, (), (), PooledStack>;

/// Passed in at each resume; only the first one is read, by the coroutine's first lines.
struct Entry(NonNull<YielderSlot>);

/// A coroutine with its stack, and the way to leave it from within.
pub(crate) struct Context {
    /// Absent while it runs and after it has ended.
    coroutine: Cell<Option<Stackful>>,
    yielder: YielderSlot,
}

impl Context {
    /// `body` must not unwind: a panic that left it would come out of `resume`.
    pub(crate) fn new(stack: PooledStack, body: impl FnOnce() + 'static) -> Self {
        let coroutine =
            Coroutine::with_stack(stack, move |yielder: &Yielder<Entry, ()>, entry: Entry| {
                // SAFETY: `resume` made the pointer from a reference to the slot which is alive until it
                // returns, and nothing has been suspended yet: it has not returned.
                unsafe { entry.0.as_ref() }.set(Some(NonNull::from(yielder)));
                body();
            });
        Self { coroutine: Cell::new(Some(coroutine)), yielder: Cell::new(None) }
    }

    /// Runs the coroutine until it suspends or ends; answers whether it has ended. The stack of an
    /// ended coroutine goes back to its pool here.
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

    /// Leaves the running coroutine; comes back at the next `resume`. Must be called on its own stack.
    pub(crate) fn suspend(&self) {
        let Some(yielder) = self.yielder.get() else {
            debug_assert!(false, "suspend outside a running coroutine");
            return;
        };
        // SAFETY: the yielder lives on the coroutine's stack, below every frame of its body, for as long
        // as the body runs; the slot is emptied when it ends. That the caller runs on this very stack is
        // the contract of this function: the hub calls it for its current greenlet only.
        unsafe { yielder.as_ref() }.suspend(());
    }

    pub(crate) fn has_started(&self) -> bool {
        self.yielder.get().is_some()
    }

    /// Gives up a coroutine that will never be resumed. One that has not started drops its body; the
    /// frames of a suspended one are leaked, since unwinding them could meet foreign ones.
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
