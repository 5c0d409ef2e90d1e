//! The class's services for the application, and its engine, for the other side.

use std::ffi::c_void;
use std::os::fd::IntoRawFd as _;
use std::time::Duration;

use worker_api::raw::{EngineBox, Interest, RuntimeBox};
use worker_api::{Engine, Failure, Result, Runtime};

use crate::tables::{
    EngineObject, EngineTable, FOREVER, RawFailure, RuntimeObject, RuntimeTable, Sink, Str, Table,
    TaskObject,
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
    connect: Some(connect),
    resolve: Some(resolve),
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
    // SAFETY: see above.
    let runtime = unsafe { of(this) };
    let result = runtime.wait_fd(fd, Interest(interest), limit(timeout_ns)).map(|is_ready| {
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

unsafe extern "C" fn connect(
    this: *mut c_void,
    address: Str,
    timeout_ns: u64,
    fd: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let result = unsafe { text(address, "the address") }
        .and_then(|address| {
            // SAFETY: see above.
            unsafe { of(this) }.connect(address, limit(timeout_ns))
        })
        .map(|socket| {
            if !fd.is_null() {
                // SAFETY: see above.
                unsafe { fd.write(socket.into_raw_fd()) };
            }
        });
    // SAFETY: see above.
    unsafe { outcome(result, failure) }
}

unsafe extern "C" fn resolve(
    this: *mut c_void,
    host: Str,
    port: u16,
    timeout_ns: u64,
    addresses: *const Sink,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let result = unsafe { text(host, "the name of the host") }
        .and_then(|host| {
            // SAFETY: see above.
            unsafe { of(this) }.resolve(host, port, limit(timeout_ns))
        })
        .map(|found| {
            // SAFETY: see above.
            if let Some(addresses) = unsafe { addresses.as_ref() } {
                for address in found {
                    // SAFETY: see above.
                    unsafe { addresses.put(&address.to_string()) };
                }
            }
        });
    // SAFETY: see above.
    unsafe { outcome(result, failure) }
}

/// # Safety
/// The text is valid for `'a`.
unsafe fn text<'a>(value: Str, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let text = unsafe { value.text() };
    text.ok_or_else(|| Failure::application(format!("{what} is not UTF-8")))
}

fn limit(timeout_ns: u64) -> Option<Duration> {
    (timeout_ns != FOREVER).then(|| Duration::from_nanos(timeout_ns))
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
