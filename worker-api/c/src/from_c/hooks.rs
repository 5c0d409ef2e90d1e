//! Hooks of the other side.

use std::ffi::c_void;

use worker_api::abi::std_types::{RResult, RSlice, RStr};
use worker_api::raw::RawHooks;
use worker_api::{AccessRecord, Failure, RequestHead};

use crate::tables::{HooksTable, RawFailure, Str};
use crate::values::{HeadView, with_record};

/// Hooks of the other side, with their checked table.
pub struct ForeignHooks {
    functions: HooksTable,
    this: *mut c_void,
}

// SAFETY: jimu.h has hooks be called on any thread, several at once.
unsafe impl Send for ForeignHooks {}
// SAFETY: see above.
unsafe impl Sync for ForeignHooks {}

impl ForeignHooks {
    /// Hooks with this `self`.
    ///
    /// # Safety
    /// The table is checked, and the functions and `this` belong together and live as long as the process.
    pub unsafe fn new(functions: HooksTable, this: *mut c_void) -> Self {
        Self { functions, this }
    }
}

impl RawHooks for ForeignHooks {
    fn event(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        let Some(function) = self.functions.event else { return RResult::ROk(()) };
        let (event, facts) = (Str::of(event.as_str()), facts.as_slice());
        RawFailure::catch(|failure| {
            // SAFETY: `new` was promised functions that go with `this`.
            unsafe { function(self.this, event, facts.as_ptr(), facts.len(), failure) }
        })
        .into()
    }

    fn wants_requests(&self) -> bool {
        self.functions.pre_request.is_some() || self.functions.post_request.is_some()
    }

    fn pre_request(&self, head: &RequestHead<'_>) {
        if let Some(function) = self.functions.pre_request {
            // SAFETY: `new` was promised functions that go with `this`; the head is valid during the call.
            unsafe { function(self.this, HeadView::new().set(head)) };
        }
    }

    fn post_request(&self, record: &AccessRecord<'_>) {
        if let Some(function) = self.functions.post_request {
            // SAFETY: `new` was promised functions that go with `this`; the record is valid during the call.
            with_record(record, |record| unsafe { function(self.this, record) });
        }
    }
}
