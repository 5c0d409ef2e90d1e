//! The kit for worker classes in C: the functions of `jimu_kit.h`, which documents them.
//!
//! It is linked to a class and reaches the server by `jimu.h` alone, like the class itself: the host and the application
//! that the class received become objects of `worker-api` here.
//!
//! | module | contents |
//! | --- | --- |
//! | `lib` | the kit of a worker |
//! | `connection` | connections, and calling the application |
//!
//! **Invariant:** no function unwinds: what can panic runs in a guard of `worker-api`.

mod connection;

use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use c_api::from_c::app::ForeignApp;
use c_api::from_c::host::host_from;
use c_api::tables::{AppObject, HostObject, RawFailure};
use c_api::values::outcome;
use jimu_kit::config::Config;
use jimu_kit::{
    Buffering, Deadline, RequestDeadlines, WaitingConnections, WorkerBase, blocking, clock,
};
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::guard::{catch, catch_flat};
use worker_api::raw::RawApp_TO;
use worker_api::{AppHandle, Failure, Host, Result, WorkerContext, log};

/// `jimu_kit`: the kit of a worker.
pub struct Kit {
    base: WorkerBase,
    deadlines: RequestDeadlines,
    waiting: WaitingConnections,
    stack_size: OnceLock<usize>,
    /// The thread that gives the heartbeat.
    main: ThreadId,
}

/// Takes the host that the class received, and connects this library to its log.
///
/// # Safety
/// `host` is the host's object.
unsafe fn host_of(host: *const HostObject) -> Result<Host> {
    // SAFETY: as the caller promises.
    let host = unsafe { host_from(host) }.map_err(|misfit| Failure::config(misfit.to_string()))?;
    let host = Host::from_raw(host);
    log::install(&host);
    Ok(host)
}

// SAFETY of the functions below: jimu_kit.h has the class pass the objects that it received, a kit that `jimu_kit_new`
// returned, and pointers that are valid during the call.

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_check(host: *const HostObject, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    let check = || unsafe { host_of(host) }.and_then(|host| Config::check(&host));
    // SAFETY: see above.
    unsafe { outcome(catch_flat("the kit's check", check), failure) }
}

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_new(
    host: *const HostObject,
    app: *const AppObject,
    flags: u32,
    failure: *mut RawFailure,
) -> *mut Kit {
    let create = || {
        // SAFETY: see above.
        let host = unsafe { host_of(host) }?;
        // SAFETY: see above.
        let app = unsafe { ForeignApp::of_host(app) };
        let app = app.map_err(|misfit| Failure::config(misfit.to_string()))?;
        let app = AppHandle::from_raw(RawApp_TO::from_value(app, TD_Opaque));
        let (context, keep_alive) = (WorkerContext { host, app }, flags & KEEP_ALIVE != 0);
        let base = match flags & BUFFERS {
            0 => WorkerBase::new(context, keep_alive)?,
            _ => WorkerBase::with_buffers(context, keep_alive, Buffering::All)?,
        };
        // The connection of a request that times out is shut down; its thread notices that.
        let deadlines = RequestDeadlines::start(&base, |_| ())
            .map_err(|error| Failure::io("cannot watch the deadlines of requests", &error))?;
        let waiting = WaitingConnections::new(&base.context);
        let (stack_size, main) = (OnceLock::new(), thread::current().id());
        Ok(Kit { base, deadlines, waiting, stack_size, main })
    };
    match catch_flat("creating the kit", create) {
        Ok(kit) => Box::into_raw(Box::new(kit)),
        Err(error) => {
            // SAFETY: see above.
            unsafe { outcome(Err(error), failure) };
            std::ptr::null_mut()
        }
    }
}

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_init_worker(kit: &Kit, failure: *mut RawFailure) -> i32 {
    let init = || kit.base.app.init_worker(blocking::runtime(&kit.base.context));
    // SAFETY: see above.
    unsafe { outcome(catch_flat("the application's init_worker", init), failure) }
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_tick(kit: &Kit) {
    kit.base.tick();
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_pause_ns(kit: &Kit) -> u64 {
    clock::nanoseconds(kit.base.pause())
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_wait_for_clients(kit: &Kit, accepts: bool) {
    kit.base.wait_for_clients(accepts);
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_make_room(kit: &Kit, index: usize) -> usize {
    let needed = kit.base.acceptors.get(index).map_or(0, jimu_kit::Acceptor::waiting);
    kit.waiting.make_room(needed)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_now_ns() -> u64 {
    clock::now_ns()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_stack_size(kit: &Kit) -> usize {
    *kit.stack_size.get_or_init(|| jimu_kit::threads::stack_size(&kit.base.app))
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_capacity(kit: &Kit) -> usize {
    kit.base.context.config.worker_connections
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_listeners(kit: &Kit) -> usize {
    kit.base.acceptors.len()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_listener(kit: &Kit, index: usize) -> i32 {
    kit.base.acceptors.get(index).map_or(-1, jimu_kit::Acceptor::fd)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_note_evicted(kit: &Kit, closed: usize) {
    kit.base.context.note_crowd(closed);
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_is_stuck(kit: &Kit) -> bool {
    kit.base.context.is_stuck()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_drain(kit: &Kit) {
    kit.base.context.drain();
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_draining(kit: &Kit) -> bool {
    kit.base.context.draining()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_remaining_backlog(kit: &Kit, index: usize) -> u64 {
    let listener = kit.base.acceptors.get(index).map(jimu_kit::Acceptor::fd);
    listener.map_or(0, |listener| kit.base.host.remaining_backlog(listener))
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_graceful_deadline_ns(kit: &Kit) -> u64 {
    nanoseconds(kit.base.graceful_deadline())
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_has_background_work(kit: &Kit) -> bool {
    !kit.base.context.background.is_idle()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_cut_requests(kit: &Kit, connections: usize) {
    // After a panic they are cut by the end of the process.
    let _ = catch("cutting requests", || kit.base.cut_requests(connections));
}

/// Returns a deadline as the header has it: `JIMU_FOREVER` for none.
fn nanoseconds(deadline: Deadline) -> u64 {
    if deadline.is_never() { u64::MAX } else { deadline.to_abi() }
}

/// `JIMU_KIT_KEEP_ALIVE`.
const KEEP_ALIVE: u32 = 1;
/// `JIMU_KIT_BUFFERS`.
const BUFFERS: u32 = 2;
