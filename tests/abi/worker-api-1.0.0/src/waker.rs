//! Wakers: notifications that a pending operation can be retried.

use std::sync::Arc;
use std::task::{Wake, Waker as StdWaker};

use abi_stable::{StableAbi, sabi_trait::TD_Opaque};

use crate::raw::{RawWaker, RawWaker_TO, WakerBox};

/// Passed to an operation that can return [`crate::Step::Pending`]; fires at most once per such operation.
///
/// [`Waker::wake`] may be called from any thread of the process. It only schedules the waiting side; application code
/// never runs inside it. Wake-ups may be spurious: the receiver retries the operation.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct Waker(WakerBox);

impl Waker {
    /// Creates a waker that calls `wake`, which must neither block nor panic.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(RawWaker_TO::from_value(Closure(wake), TD_Opaque))
    }

    /// Wakes the waiting side.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Converts the waker of a Rust future, for executors.
impl From<StdWaker> for Waker {
    fn from(waker: StdWaker) -> Self {
        Self::new(move || waker.wake_by_ref())
    }
}

/// Converts into the waker of a Rust future.
impl From<Waker> for StdWaker {
    fn from(waker: Waker) -> Self {
        Arc::new(Shared(waker)).into()
    }
}

struct Closure<F>(F);

impl<F: Fn() + Send + Sync + 'static> RawWaker for Closure<F> {
    fn wake(&self) {
        (self.0)();
    }
}

struct Shared(Waker);

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_waker_survives_the_way_through_a_std_waker() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let waker = Waker::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let back = Waker::from(StdWaker::from(waker));
        back.wake();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }
}
