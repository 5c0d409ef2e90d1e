//! A hook plugin: what a `.so` implements that wants to hear of the server's life, and of requests.
//!
//! Written as [`Hooks`] and exported with [`crate::export_hooks!`]. Nothing of it runs in the arbiter: its events
//! reach the mold of the generation, those of a worker happen there. A hook that fails, or panics, is a line of the
//! log and changes nothing else.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice, RStr};

use crate::failure::{Failure, Result};
use crate::guard::{catch, catch_flat};
use crate::head::{AccessRecord, RequestHead};
use crate::host::Host;
use crate::raw::{HooksBox, RawHooks, RawHooks_TO};

/// gunicorn's server hooks. All have a default that does nothing.
///
/// In the mold: `on_starting` or `on_reload` once the generation is loaded, then `when_ready`, `pre_fork`,
/// `child_exit`, `nworkers_changed`, `pre_exec` and `on_exit`. In a worker: `post_fork`, `post_worker_init`,
/// `pre_request`, `post_request`, `worker_int`, `worker_abort` and `worker_exit`. A mold that blocks in a hook forks no
/// workers meanwhile, and is replaced when that takes too long.
pub trait Hooks: Send + Sync + 'static {
    /// The first generation is loaded.
    fn on_starting(&self) {}

    /// A later generation is loaded.
    fn on_reload(&self) {}

    /// The server serves for the first time.
    fn when_ready(&self) {}

    /// A worker is about to be forked, which is the `age`th of the server.
    fn pre_fork(&self, age: i64) {
        let _ = age;
    }

    /// This process has become a worker.
    fn post_fork(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// The worker is about to serve.
    fn post_worker_init(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// The worker was told to end at once (INT or QUIT).
    fn worker_int(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// The worker was sent SIGABRT, as the arbiter does to one without a heartbeat, and ends after this.
    ///
    /// In the midst of whatever its main thread does: a lock that is held there is never released. Who waits for one
    /// is killed a second later.
    fn worker_abort(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// The worker has answered its last request and ends.
    fn worker_exit(&self, pid: i64, age: i64) {
        let _ = (pid, age);
    }

    /// A worker has ended with this status; of one that a signal killed, the signal's number below zero.
    fn child_exit(&self, pid: i64, age: i64, status: i64) {
        let _ = (pid, age, status);
    }

    /// There shall be another number of workers.
    fn nworkers_changed(&self, new: i64, old: i64) {
        let _ = (new, old);
    }

    /// Another arbiter is about to be started (USR2).
    fn pre_exec(&self) {}

    /// The server ends, and its last worker has ended.
    fn on_exit(&self) {}

    /// Whether [`Hooks::pre_request`] and [`Hooks::post_request`] are to be called. Asked once.
    fn wants_requests(&self) -> bool {
        false
    }

    /// A request's head is complete. On the thread that serves it; blocking here blocks the request, and under a
    /// cooperative class all requests.
    fn pre_request(&self, head: &RequestHead<'_>) {
        let _ = head;
    }

    /// A request is over.
    fn post_request(&self, record: &AccessRecord<'_>) {
        let _ = record;
    }
}

/// Makes hooks: the type that [`crate::export_hooks!`] takes.
pub trait HooksFactory: Hooks + Sized {
    /// The plugin's name, for the log.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;

    /// Makes it, in the mold before it forks: quick, and without threads. `host` has the settings; the plugin's
    /// section of the settings file is `[hooks]`.
    fn new(host: Host) -> Result<Self>;
}

/// Wraps hooks of this library for the way over the boundary.
pub(crate) fn to_raw(hooks: impl Hooks) -> HooksBox {
    RawHooks_TO::from_value(Guarded(hooks), TD_Opaque)
}

/// Catches panics on the side where they happen.
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

/// Calls the hook of that name; a name that this version does not know is that of a newer host's event.
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
