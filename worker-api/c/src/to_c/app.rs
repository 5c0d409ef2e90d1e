//! An application for a worker class of the other side.

use std::ffi::c_void;
use std::ptr;

use worker_api::AppHandle;
use worker_api::raw::AppBox;

use crate::from_c::exchange::exchange_from;
use crate::from_c::runtime::{engine_from, runtime_from};
use crate::tables::{
    AppObject, AppTable, EngineObject, ExchangeObject, RawFailure, RuntimeObject, Sink, Str, Table,
};
use crate::values::{outcome, slice_of};

impl AppObject {
    /// An application for the other side, which keeps it for the life of the process.
    pub fn of(app: AppBox) -> &'static Self {
        let app: &'static AppHandle = Box::leak(Box::new(AppHandle::from_raw(app)));
        let this = ptr::from_ref(app).cast_mut().cast();
        let needs = app.requirements().0;
        Box::leak(Box::new(Self { functions: &raw const APP, this, needs }))
    }
}

static APP: AppTable = AppTable {
    table: Table::of::<AppTable>(),
    call: Some(call),
    load: Some(load),
    init_worker: Some(init_worker),
    run_loop: Some(run_loop),
    shutdown: Some(shutdown),
    drain: Some(drain),
    before_fork: Some(before_fork),
    after_fork: Some(after_fork),
    hook: Some(hook),
    trace: Some(trace),
    files: Some(files),
    stack_size: Some(stack_size),
    run_signal_handlers: Some(run_signal_handlers),
    wait_in_mold: Some(wait_in_mold),
};

/// # Safety
/// `this` is an application of this module.
unsafe fn of(this: *mut c_void) -> &'static AppHandle {
    // SAFETY: as the caller promises; it is never dropped.
    unsafe { &*this.cast::<AppHandle>() }
}

// SAFETY of the functions below: jimu.h has the other side pass the object's `self`, and pointers that are valid during
// the call.

/// Takes the exchange: when this returns, it is finished, failed, hijacked or detached.
unsafe extern "C" fn call(
    this: *mut c_void,
    exchange: *mut ExchangeObject,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above; the class gives the exchange away.
    let (this, exchange) = unsafe { (of(this), exchange_from(&mut *exchange)) };
    let result = exchange.map(|exchange| this.call(exchange));
    // SAFETY: see above.
    unsafe { outcome(result, failure) }
}

unsafe extern "C" fn load(this: *mut c_void, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(of(this).load(), failure) }
}

unsafe extern "C" fn init_worker(
    this: *mut c_void,
    runtime: *const RuntimeObject,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above; a runtime lives as long as the process.
    unsafe {
        let result = runtime_from(runtime).and_then(|runtime| of(this).init_worker(runtime));
        outcome(result, failure)
    }
}

unsafe extern "C" fn run_loop(
    this: *mut c_void,
    engine: *const EngineObject,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above; the engine lives until the loop returns.
    unsafe {
        let result = engine_from(engine).and_then(|engine| of(this).run_loop(engine));
        outcome(result, failure)
    }
}

unsafe extern "C" fn shutdown(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.shutdown();
}

unsafe extern "C" fn drain(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.drain();
}

unsafe extern "C" fn before_fork(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.before_fork();
}

unsafe extern "C" fn after_fork(this: *mut c_void, in_child: bool) {
    // SAFETY: see above.
    unsafe { of(this) }.after_fork(in_child);
}

unsafe extern "C" fn hook(
    this: *mut c_void,
    event: Str,
    facts: *const i64,
    count: usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(of(this).hook(&event.lossy(), slice_of(facts, count)), failure) }
}

unsafe extern "C" fn trace(this: *mut c_void, sink: *const Sink) {
    // SAFETY: see above.
    let (text, sink) = unsafe { (of(this).trace(), &*sink) };
    // SAFETY: see above.
    unsafe { sink.put(&text) };
}

unsafe extern "C" fn files(this: *mut c_void, sink: *const Sink) {
    // SAFETY: see above.
    let (files, sink) = unsafe { (of(this).files(), &*sink) };
    for file in files {
        // SAFETY: see above.
        unsafe { sink.put(&file) };
    }
}

unsafe extern "C" fn stack_size(this: *mut c_void) -> u64 {
    // SAFETY: see above.
    unsafe { of(this) }.stack_size() as u64
}

unsafe extern "C" fn run_signal_handlers(this: *mut c_void) {
    // SAFETY: see above.
    unsafe { of(this) }.run_signal_handlers();
}

unsafe extern "C" fn wait_in_mold(this: *mut c_void, descriptor: i32) {
    // SAFETY: see above.
    unsafe { of(this) }.wait_in_mold(descriptor);
}
