//! Panics are contained where they happen and reported with the location and backtrace that only the panic hook
//! can see. The previously installed hook is still called, first.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

/// A recorded panic.
#[derive(Debug, Clone)]
pub struct PanicReport {
    inner: Rc<Trail>,
    message: Rc<str>,
}

#[derive(Debug)]
struct Trail {
    location: String,
    backtrace: Backtrace,
}

impl PanicReport {
    /// Returns the payload of the panic if it is text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the location of the panic as `file:line:column`.
    pub fn location(&self) -> &str {
        &self.inner.location
    }

    /// Returns the stack at the panic: of the greenlet and of the hub below it.
    pub fn backtrace(&self) -> &Backtrace {
        &self.inner.backtrace
    }

    fn new(payload: &(dyn Any + Send)) -> Self {
        let unknown = || Trail { location: "unknown".into(), backtrace: Backtrace::disabled() };
        let trail = TRAIL.take().unwrap_or_else(unknown);
        Self { inner: Rc::new(trail), message: payload_text(payload).into() }
    }
}

impl std::fmt::Display for PanicReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "panicked at {}: {}", self.location(), self.message())
    }
}

/// Runs `f`; converts a panic into a report.
pub(crate) fn contain<T>(f: impl FnOnce() -> T) -> Result<T, PanicReport> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| PanicReport::new(&*payload))
}

/// Returns the text of a panic payload.
pub(crate) fn payload_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is no text".to_owned())
}

/// Records panics on this thread from now on.
pub(crate) fn watch_this_thread() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            if WATCHED.get() {
                let location = info.location().map_or_else(String::new, ToString::to_string);
                TRAIL.set(Some(Trail { location, backtrace: Backtrace::force_capture() }));
            }
        }));
    });
    WATCHED.set(true);
}

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static TRAIL: RefCell<Option<Trail>> = const { RefCell::new(None) };
}
