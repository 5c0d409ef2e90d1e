//! Hook plugins: the trait that a `.so` implements to run code on server events and requests.
//!
//! Implement [`Hooks`] and export it with [`crate::export_hooks!`]. No hook runs in the arbiter: events of the arbiter are
//! delivered in the generation's mold, events of a worker in that worker. A hook that fails or panics is logged and has
//! no other effect.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice, RStr};

use crate::failure::{Failure, Result};
use crate::guard::{catch, catch_flat};
use crate::head::{AccessRecord, RequestHead};
use crate::host::Host;
use crate::raw::{HooksBox, RawHooks, RawHooks_TO};

/// gunicorn's server hooks. The default implementations do nothing.
///
/// In the mold: `on_starting` or `on_reload` once the generation is loaded, then `when_ready`, `pre_fork`,
/// `child_exit`, `nworkers_changed`, `pre_exec` and `on_exit`. In a worker: `post_fork`, `post_worker_init`,
/// `pre_request`, `post_request`, `worker_int`, `worker_abort` and `worker_exit`. A mold that blocks in a hook forks no
/// workers until the hook returns, and is replaced if that takes too long.
///
/// `age` is the worker's 1-based spawn number.
pub trait Hooks: Send + Sync + 'static {
    /// Called when the first generation is loaded.
    fn on_starting(&self) {}

    /// Called when a later generation is loaded.
    fn on_reload(&self) {}

    /// Called when the server serves for the first time.
    fn when_ready(&self) {}

    /// Called before a worker is forked.
    fn pre_fork(&self, age: i64) {
        let _ = age;
    }

    /// Called in a new worker process, right after the fork.
    fn post_fork(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// Called in a worker that has initialized, before it serves.
    fn post_worker_init(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// Called in a worker that received INT or QUIT.
    fn worker_int(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// Called in a worker that received SIGABRT, which the arbiter sends after a missed heartbeat. The worker exits
    /// afterwards.
    ///
    /// The hook interrupts the main thread wherever it is: a lock held there is never released. If the hook blocks, the
    /// worker is killed a second later.
    fn worker_abort(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// Called in a worker that exits, after its last request.
    fn worker_exit(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// Called when a worker has exited, with its exit status, or the negated signal number if a signal killed it.
    fn child_exit(&self, pid: i64, age: i64, status: i64) {
        let _ = (pid, age, status);
    }

    /// Called when the configured number of workers changes.
    fn nworkers_changed(&self, new: i64, old: i64) {
        let _ = (new, old);
    }

    /// Called before a new arbiter is executed (USR2).
    fn pre_exec(&self) {}

    /// Called when the server stops, after its last worker has exited.
    fn on_exit(&self) {}

    /// Returns whether to call [`Hooks::pre_request`] and [`Hooks::post_request`]. Called once.
    fn wants_requests(&self) -> bool {
        false
    }

    /// Called when a request head is complete, on the thread that serves the request. Blocking here delays the request,
    /// and under a cooperative class all requests of the worker.
    fn pre_request(&self, head: &RequestHead<'_>) {
        let _ = head;
    }

    /// Called at the end of a request.
    fn post_request(&self, record: &AccessRecord<'_>) {
        let _ = record;
    }
}

/// Constructor and identity of a hook plugin: the type that [`crate::export_hooks!`] takes.
pub trait HooksFactory: Hooks + Sized {
    /// Name of the plugin, for the log.
    const NAME: &'static str;
    /// Version of the plugin.
    const VERSION: &'static str;

    /// Creates the hooks, in the mold before it forks. Must be quick and must not start threads. `host` provides the
    /// settings; the plugin's section of the settings file is `[hooks]`.
    fn new(host: Host) -> Result<Self>;
}

/// Wraps hooks of this library to pass them across the boundary.
pub(crate) fn to_raw(hooks: impl Hooks) -> HooksBox {
    RawHooks_TO::from_value(Guarded(hooks), TD_Opaque)
}

/// Converts panics of hooks into failures.
struct Guarded<H>(H);

impl<H: Hooks> RawHooks for Guarded<H> {
    fn event(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        catch_flat("a hook", || {
            dispatch(&self.0, event.as_str(), facts.as_slice());
            Ok(())
        })
        .into()
    }

    fn wants_requests(&self) -> bool {
        catch("Hooks::wants_requests", || self.0.wants_requests()).unwrap_or_default()
    }

    fn pre_request(&self, head: &RequestHead<'_>) {
        let _ = catch("Hooks::pre_request", || self.0.pre_request(head));
    }

    fn post_request(&self, record: &AccessRecord<'_>) {
        let _ = catch("Hooks::post_request", || self.0.post_request(record));
    }
}

/// Calls the hook with this name. An unknown name is an event of a newer host and is ignored.
fn dispatch(hooks: &impl Hooks, event: &str, facts: &[i64]) {
    let fact = |index: usize| facts.get(index).copied().unwrap_or(0);
    match event {
        "on_starting" => hooks.on_starting(),
        "on_reload" => hooks.on_reload(),
        "when_ready" => hooks.when_ready(),
        "pre_fork" => hooks.pre_fork(fact(1)),
        "post_fork" => hooks.post_fork(fact(0), fact(1)),
        "post_worker_init" => hooks.post_worker_init(fact(0), fact(1)),
        "worker_int" => hooks.worker_int(fact(0), fact(1)),
        "worker_abort" => hooks.worker_abort(fact(0), fact(1)),
        "worker_exit" => hooks.worker_exit(fact(0), fact(1)),
        "child_exit" => hooks.child_exit(fact(0), fact(1), fact(2)),
        "nworkers_changed" => hooks.nworkers_changed(fact(0), fact(1)),
        "pre_exec" => hooks.pre_exec(),
        "on_exit" => hooks.on_exit(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Notes(std::sync::Arc<Mutex<Vec<String>>>);

    impl Hooks for Notes {
        fn child_exit(&self, pid: i64, age: i64, status: i64) {
            self.0.lock().expect("no test panics here").push(format!("{pid} {age} {status}"));
        }

        fn on_exit(&self) {
            panic!("no");
        }
    }

    #[test]
    fn events_reach_their_hook_and_panics_stay_inside() {
        let notes = Notes::default();
        let kept = std::sync::Arc::clone(&notes.0);
        let raw = to_raw(notes);
        let event = |name: &'static str, facts: &[i64]| {
            raw.event(RStr::from_str(name), RSlice::from_slice(facts)).into_result()
        };
        assert!(event("child_exit", &[7, 2, -9]).is_ok());
        assert!(event("an event of next year", &[]).is_ok());
        assert!(event("on_exit", &[]).is_err());
        assert_eq!(*kept.lock().expect("no test panics here"), ["7 2 -9"]);
        assert!(!raw.wants_requests());
    }
}
