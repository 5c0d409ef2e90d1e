//! Panic guards: no panic crosses the boundary of a `.so`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::{Failure, FailureKind};

/// Runs `body` and converts a panic into a failure of kind [`FailureKind::PANIC`] whose message names `what`.
///
/// The panic hook that [`crate::log::install`] sets has already logged the location and the stack. State shared with
/// `body` may be inconsistent: the caller must abandon the exchange or the worker that was running.
pub fn catch<T>(what: &str, body: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let message = format!("{what} panicked: {}", payload_words(payload.as_ref()));
        // A payload whose own drop panics would leave this function by unwinding.
        std::mem::forget(payload);
        Failure::new(FailureKind::PANIC, message)
    })
}

/// Like [`catch`], for a body that returns a [`Result`].
pub fn catch_flat<T>(what: &str, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch(what, body).and_then(|result| result)
}

/// Returns the text of a panic payload.
pub(crate) fn payload_words(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a payload that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_with_its_words() {
        let failure = catch("the test", || panic!("number {}", 7)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::PANIC);
        assert_eq!(failure.message.as_str(), "the test panicked: number 7");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let failure = catch("the test", || std::panic::panic_any(Bomb)).unwrap_err();
        assert!(failure.message.contains("no text"), "{failure}");
    }
}
