//! Wakers and tasks, in both directions, and sinks. Wakers and tasks are passed by value: the receiver drops them.

use std::ffi::c_void;
use std::ptr;

use worker_api::Waker;
use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::raw::{RawTask, RawTask_TO, TaskBox};

use crate::tables::{MAJOR, Sink, Str, Table, TaskObject, TaskTable, WakerObject, WakerTable};

impl WakerObject {
    /// No waker.
    pub const NONE: Self = Self { functions: ptr::null(), this: ptr::null_mut() };

    /// A waker for the other side.
    pub fn of(waker: Option<Waker>) -> Self {
        let Some(waker) = waker else { return Self::NONE };
        Self { functions: &raw const WAKER, this: Box::into_raw(Box::new(waker)).cast() }
    }

    /// Takes the other side's waker. A table that does not fit counts as no waker.
    ///
    /// # Safety
    /// It was received by value, and its table is NULL or valid for the life of the process.
    pub unsafe fn waker(self) -> Option<Waker> {
        // SAFETY: as the caller promises.
        let functions = unsafe { self.functions.as_ref() }?;
        let fits = functions.table.major == MAJOR && functions.wake.is_some();
        let waker = ForeignWaker(self);
        fits.then(|| Waker::new(move || waker.wake()))
    }
}

/// A waker of the other side.
struct ForeignWaker(WakerObject);

// SAFETY: jimu.h allows `wake` and `drop` on any thread, and `wake` on several at once.
unsafe impl Send for ForeignWaker {}
// SAFETY: see above.
unsafe impl Sync for ForeignWaker {}

impl ForeignWaker {
    fn wake(&self) {
        // SAFETY: `WakerObject::waker` was promised a valid table, and the object is dropped with `self`.
        if let Some(wake) = unsafe { (*self.0.functions).wake } {
            // SAFETY: see above.
            unsafe { wake(self.0.this) };
        }
    }
}

impl Drop for ForeignWaker {
    fn drop(&mut self) {
        // SAFETY: `WakerObject::waker` was promised a valid table; this owner drops the object once.
        if let Some(end) = unsafe { (*self.0.functions).drop } {
            // SAFETY: see above.
            unsafe { end(self.0.this) };
        }
    }
}

static WAKER: WakerTable =
    WakerTable { table: Table::of::<WakerTable>(), wake: Some(wake), drop: Some(drop_waker) };

unsafe extern "C" fn wake(this: *mut c_void) {
    // SAFETY: `WakerObject::of` made the object, which the other side has not dropped yet.
    unsafe { &*this.cast::<Waker>() }.wake();
}

unsafe extern "C" fn drop_waker(this: *mut c_void) {
    // SAFETY: `WakerObject::of` made the object; its owner drops it once.
    drop(unsafe { Box::from_raw(this.cast::<Waker>()) });
}

impl TaskObject {
    /// A task for the other side.
    pub fn of(task: TaskBox) -> Self {
        Self { functions: &raw const TASK, this: Box::into_raw(Box::new(task)).cast() }
    }

    /// Takes the other side's task. One without a table does nothing.
    ///
    /// # Safety
    /// It was received by value, and its table is NULL or valid for the life of the process.
    pub unsafe fn task(self) -> TaskBox {
        RawTask_TO::from_value(ForeignTask(self), TD_Opaque)
    }
}

/// A task of the other side.
struct ForeignTask(TaskObject);

// SAFETY: jimu.h lets the receiver choose the thread.
unsafe impl Send for ForeignTask {}

impl RawTask for ForeignTask {
    fn run(&mut self) {
        // SAFETY: `TaskObject::task` was promised NULL or a valid table.
        if let Some(run) = unsafe { self.0.functions.as_ref() }.and_then(|functions| functions.run)
        {
            // SAFETY: the object is dropped with `self`.
            unsafe { run(self.0.this) };
        }
    }
}

impl Drop for ForeignTask {
    fn drop(&mut self) {
        // SAFETY: `TaskObject::task` was promised NULL or a valid table; this owner drops the object once.
        if let Some(end) = unsafe { self.0.functions.as_ref() }.and_then(|functions| functions.drop)
        {
            // SAFETY: see above.
            unsafe { end(self.0.this) };
        }
    }
}

static TASK: TaskTable =
    TaskTable { table: Table::of::<TaskTable>(), run: Some(run_task), drop: Some(drop_task) };

unsafe extern "C" fn run_task(this: *mut c_void) {
    // SAFETY: `TaskObject::of` made the object, which its only user has not dropped yet.
    unsafe { &mut *this.cast::<TaskBox>() }.run();
}

unsafe extern "C" fn drop_task(this: *mut c_void) {
    // SAFETY: `TaskObject::of` made the object; its owner drops it once.
    drop(unsafe { Box::from_raw(this.cast::<TaskBox>()) });
}

impl Sink {
    /// Writes a text.
    ///
    /// # Safety
    /// The sink is the other side's, and valid.
    pub(crate) unsafe fn put(&self, text: &str) {
        if let Some(write) = self.write {
            // SAFETY: as the caller promises.
            unsafe { write(self.to, Str::of(text)) };
        }
    }
}
