//! An application of the other side.

use std::ffi::c_void;

use worker_api::Failure;
use worker_api::abi::std_types::{RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{EngineBox, ExchangeBox, RawApp, RuntimeBox};

use super::collect;
use super::table::{Misfit, copy};
use crate::tables::{
    AppObject, AppTable, EngineObject, ExchangeObject, RawFailure, RuntimeObject, Str,
};
use crate::to_c::exchange::ExchangeForC;
use crate::to_c::runtime::EngineForC;

/// An application of the other side, with its checked table.
pub struct ForeignApp {
    functions: AppTable,
    this: *mut c_void,
    needs: u64,
    ownership: Ownership,
}

/// What becomes of the exchange that a call receives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// It is lent, as to the application of a plugin.
    Lent,
    /// It is given away, as a worker class does.
    Given,
}

// SAFETY: jimu.h has applications be called on any thread, several at once.
unsafe impl Send for ForeignApp {}
// SAFETY: see above.
unsafe impl Sync for ForeignApp {}

impl ForeignApp {
    /// An application of a plugin, with this `self`.
    ///
    /// # Safety
    /// The table is checked, and the functions and `this` belong together and live as long as the process.
    pub unsafe fn new(functions: AppTable, this: *mut c_void, needs: u64) -> Self {
        Self { functions, this, needs, ownership: Ownership::Lent }
    }

    /// The application that the host passes to a worker class.
    ///
    /// # Safety
    /// `object` is that application, which lives as long as the process.
    pub unsafe fn of_host(object: *const AppObject) -> Result<Self, Misfit> {
        // SAFETY: as the caller promises.
        let object = unsafe { *object };
        // SAFETY: as the caller promises.
        let functions = unsafe { copy(object.functions, "jimu_app") }?;
        let ownership = Ownership::Given;
        Ok(Self { functions, this: object.this, needs: object.needs, ownership })
    }
}

// SAFETY of the calls below: `new` was promised functions that go with `this`.
impl RawApp for ForeignApp {
    fn requirements(&self) -> u64 {
        self.needs
    }

    fn load(&self) -> RResult<(), Failure> {
        let Some(load) = self.functions.load else { return RResult::ROk(()) };
        // SAFETY: see above.
        RawFailure::catch(|failure| unsafe { load(self.this, failure) }).into()
    }

    fn before_fork(&self) {
        if let Some(before_fork) = self.functions.before_fork {
            // SAFETY: see above.
            unsafe { before_fork(self.this) };
        }
    }

    fn after_fork(&self, in_child: bool) {
        if let Some(after_fork) = self.functions.after_fork {
            // SAFETY: see above.
            unsafe { after_fork(self.this, in_child) };
        }
    }

    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure> {
        let Some(init_worker) = self.functions.init_worker else { return RResult::ROk(()) };
        let runtime: *const RuntimeObject = RuntimeObject::of(runtime);
        // SAFETY: see above.
        RawFailure::catch(|failure| unsafe { init_worker(self.this, runtime, failure) }).into()
    }

    fn call(&self, exchange: ExchangeBox) {
        let Some(call) = self.functions.call else { return };
        if self.ownership == Ownership::Given {
            let mut object = ExchangeForC::give(exchange);
            // SAFETY: see above. The other side fails an exchange that it cannot pass on.
            let _ =
                RawFailure::catch(|failure| unsafe { call(self.this, &raw mut object, failure) });
            return;
        }
        ExchangeForC::new(exchange).lend(|exchange: *mut ExchangeObject| {
            // SAFETY: see above; the exchange is lent for the call.
            RawFailure::catch(|failure| unsafe { call(self.this, exchange, failure) })
        });
    }

    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure> {
        let Some(run_loop) = self.functions.run_loop else {
            return RResult::RErr(Failure::unsupported("this application has no event loop"));
        };
        EngineForC::lend(engine, |engine: *const EngineObject| {
            // SAFETY: see above; the engine is lent for the call.
            RawFailure::catch(|failure| unsafe { run_loop(self.this, engine, failure) })
        })
        .into()
    }

    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        let Some(hook) = self.functions.hook else { return RResult::ROk(()) };
        let (event, facts) = (Str::of(event.as_str()), facts.as_slice());
        RawFailure::catch(|failure| {
            // SAFETY: see above.
            unsafe { hook(self.this, event, facts.as_ptr(), facts.len(), failure) }
        })
        .into()
    }

    fn trace(&self) -> RString {
        let Some(trace) = self.functions.trace else { return RString::new() };
        // SAFETY: see above.
        collect::texts(|sink| unsafe { trace(self.this, sink) }).concat().into()
    }

    fn files(&self) -> RVec<RString> {
        let Some(files) = self.functions.files else { return RVec::new() };
        // SAFETY: see above.
        let files = collect::texts(|sink| unsafe { files(self.this, sink) });
        files.into_iter().map(RString::from).collect()
    }

    fn shutdown(&self) {
        if let Some(shutdown) = self.functions.shutdown {
            // SAFETY: see above.
            unsafe { shutdown(self.this) };
        }
    }

    fn drain(&self) {
        if let Some(drain) = self.functions.drain {
            // SAFETY: see above.
            unsafe { drain(self.this) };
        }
    }

    fn stack_size(&self) -> u64 {
        // SAFETY: see above.
        self.functions.stack_size.map_or(0, |stack_size| unsafe { stack_size(self.this) })
    }

    fn run_signal_handlers(&self) {
        if let Some(run_signal_handlers) = self.functions.run_signal_handlers {
            // SAFETY: see above.
            unsafe { run_signal_handlers(self.this) };
        }
    }

    fn wait_in_mold(&self, descriptor: i32) {
        if let Some(wait_in_mold) = self.functions.wait_in_mold {
            // SAFETY: see above.
            unsafe { wait_in_mold(self.this, descriptor) };
        }
    }
}
