//! The class's services for the application, and its engine, for the other side.

use std::ffi::c_void;
use std::time::Duration;

use worker_api::raw::{EngineBox, Interest, RuntimeBox};
use worker_api::{Engine, Runtime};

use crate::tables::{
    EngineObject, EngineTable, FOREVER, RawFailure, RuntimeObject, RuntimeTable, Table, TaskObject,
};
use crate::values::outcome;

impl RuntimeObject {
    /// A runtime for the other side, which keeps it for the life of the process.
    pub fn of(runtime: RuntimeBox) -> &'static Self {
        let runtime = Box::leak(Box::new(Runtime::from_raw(runtime)));
        let this = (&raw mut *runtime).cast();
        Box::leak(Box::new(Self { functions: &raw const RUNTIME, this }))
    }
}

static RUNTIME: RuntimeTable = RuntimeTable {
    table: Table::of::<RuntimeTable>(),
    cooperative: Some(cooperative),
    wait_fd: Some(wait_fd),
    sleep: Some(sleep),
    spawn: Some(spawn),
    offload: Some(offload),
};

/// # Safety
/// `this` is a runtime of this module.
unsafe fn of(this: *mut c_void) -> &'static Runtime {
    // SAFETY: as the caller promises; it is never dropped.
    unsafe { &*this.cast::<Runtime>() }
}

// SAFETY of the functions below: jimu.h has the other side pass the object's `self`, pointers that are valid during the
// call, and tasks by value.

unsafe extern "C" fn cooperative(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { of(this) }.cooperative()
}

unsafe extern "C" fn wait_fd(
    this: *mut c_void,
    fd: i32,
    interest: u8,
    timeout_ns: u64,
    ready: *mut bool,
    failure: *mut RawFailure,
) -> i32 {
    let timeout = (timeout_ns != FOREVER).then(|| Duration::from_nanos(timeout_ns));
    // SAFETY: see above.
    let result = unsafe { of(this) }.wait_fd(fd, Interest(interest), timeout).map(|is_ready| {
        if !ready.is_null() {
            // SAFETY: see above.
            unsafe { ready.write(is_ready) };
        }
    });
    // SAFETY: see above.
    unsafe { outcome(result, failure) }
}

unsafe extern "C" fn sleep(this: *mut c_void, ns: u64, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(of(this).sleep(Duration::from_nanos(ns)), failure) }
}

unsafe extern "C" fn spawn(this: *mut c_void, task: TaskObject, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe {
        let mut task = task.task();
        outcome(of(this).spawn(move || task.run()), failure)
    }
}

unsafe extern "C" fn offload(this: *mut c_void, task: TaskObject, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe {
        let mut task = task.task();
        outcome(of(this).offload(move || task.run()), failure)
    }
}

/// An engine in the form of the other side, during the application's loop.
pub struct EngineForC(Engine);

impl EngineForC {
    /// Lends an engine to `call`.
    pub fn lend<T>(engine: EngineBox, call: impl FnOnce(*const EngineObject) -> T) -> T {
        let mut engine = Self(Engine::from_raw(engine));
        let this = (&raw mut engine).cast();
        call(&EngineObject { functions: &raw const ENGINE, this })
    }
}

static ENGINE: EngineTable = EngineTable {
    table: Table::of::<EngineTable>(),
    descriptor: Some(descriptor),
    turn: Some(turn),
    stopped: Some(stopped),
};

/// # Safety
/// `this` is an engine that [`EngineForC::lend`] lends.
unsafe fn engine<'a>(this: *mut c_void) -> &'a Engine {
    // SAFETY: as the caller promises.
    unsafe { &(*this.cast::<EngineForC>()).0 }
}

unsafe extern "C" fn descriptor(this: *mut c_void) -> i32 {
    // SAFETY: see above.
    unsafe { engine(this) }.descriptor()
}

unsafe extern "C" fn turn(this: *mut c_void, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(engine(this).turn(), failure) }
}

unsafe extern "C" fn stopped(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { engine(this) }.stopped()
}
