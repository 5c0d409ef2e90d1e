//! A worker of the other side.

use std::ffi::c_void;

use worker_api::Failure;
use worker_api::abi::std_types::{RResult, RString};
use worker_api::raw::RawWorker;

use super::collect;
use crate::tables::{RawFailure, WorkerTable};

/// A worker of the other side, with its checked table.
pub struct ForeignWorker {
    functions: WorkerTable,
    this: *mut c_void,
}

impl ForeignWorker {
    /// A worker with this `self`.
    ///
    /// # Safety
    /// The table is checked, and the functions and `this` belong together and live as long as the process.
    pub unsafe fn new(functions: WorkerTable, this: *mut c_void) -> Self {
        Self { functions, this }
    }

    fn handle(&self, function: Option<unsafe extern "C" fn(*mut c_void)>) {
        if let Some(function) = function {
            // SAFETY: `new` was promised functions that go with `this`.
            unsafe { function(self.this) };
        }
    }
}

impl RawWorker for ForeignWorker {
    fn init_process(&self) -> RResult<(), Failure> {
        let Some(init_process) = self.functions.init_process else { return RResult::ROk(()) };
        // SAFETY: `new` was promised functions that go with `this`.
        RawFailure::catch(|failure| unsafe { init_process(self.this, failure) }).into()
    }

    fn run(&self) -> RResult<(), Failure> {
        let Some(run) = self.functions.run else { return RResult::ROk(()) };
        // SAFETY: `new` was promised functions that go with `this`.
        RawFailure::catch(|failure| unsafe { run(self.this, failure) }).into()
    }

    fn handle_exit(&self) {
        self.handle(self.functions.handle_exit);
    }

    fn handle_quit(&self) {
        self.handle(self.functions.handle_quit);
    }

    fn handle_winch(&self) {
        self.handle(self.functions.handle_winch);
    }

    fn handle_usr1(&self) {
        self.handle(self.functions.handle_usr1);
    }

    fn trace(&self) -> RString {
        let Some(trace) = self.functions.trace else { return RString::new() };
        // SAFETY: `new` was promised functions that go with `this`.
        collect::texts(|sink| unsafe { trace(self.this, sink) }).concat().into()
    }
}
