//! What a worker class of the other side passes to an application: its runtime, its engine.

use std::ffi::c_void;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RStr, RString, RVec};
use worker_api::raw::{
    EngineBox, Interest, RawEngine, RawEngine_TO, RawRuntime, RawRuntime_TO, RuntimeBox, TaskBox,
};
use worker_api::{Failure, Result};

use super::collect;
use super::table::{Misfit, copy};
use crate::tables::{
    EngineObject, EngineTable, RawFailure, RuntimeObject, RuntimeTable, Str, TaskObject,
};

/// Takes the runtime of a class.
///
/// # Safety
/// `object` is NULL or a runtime that is valid for the life of the process.
pub unsafe fn runtime_from(object: *const RuntimeObject) -> Result<RuntimeBox> {
    // SAFETY: as the caller promises.
    let object = unsafe { object.as_ref() }.ok_or_else(|| Failure::application("no runtime"))?;
    // SAFETY: as the caller promises.
    let functions =
        unsafe { copy(object.functions, "jimu_runtime") }.map_err(|misfit| refused(&misfit))?;
    Ok(RawRuntime_TO::from_value(ForeignRuntime { functions, this: object.this }, TD_Opaque))
}

/// Takes the engine of a class.
///
/// # Safety
/// `object` is NULL or an engine that is valid until the application's loop returns.
pub unsafe fn engine_from(object: *const EngineObject) -> Result<EngineBox> {
    // SAFETY: as the caller promises.
    let object = unsafe { object.as_ref() }.ok_or_else(|| Failure::application("no engine"))?;
    // SAFETY: as the caller promises.
    let functions =
        unsafe { copy(object.functions, "jimu_engine") }.map_err(|misfit| refused(&misfit))?;
    Ok(RawEngine_TO::from_value(ForeignEngine { functions, this: object.this }, TD_Opaque))
}

fn refused(misfit: &Misfit) -> Failure {
    Failure::application(format!("the worker class passes an object that does not fit: {misfit}"))
}

/// A function of a table that was checked.
macro_rules! call {
    ($self:ident . $function:ident ( $($argument:expr),* )) => {{
        let function = $self.functions.$function.expect("a checked table has all of its functions");
        // SAFETY: the functions go with `this`, and the arguments are valid during the call.
        unsafe { function($self.this $(, $argument)*) }
    }};
}

struct ForeignRuntime {
    functions: RuntimeTable,
    this: *mut c_void,
}

// SAFETY: jimu.h has a runtime be used on all threads of the application.
unsafe impl Send for ForeignRuntime {}
// SAFETY: see above.
unsafe impl Sync for ForeignRuntime {}

impl RawRuntime for ForeignRuntime {
    fn cooperative(&self) -> bool {
        call!(self.cooperative())
    }

    fn wait_fd(&self, fd: i32, interest: Interest, timeout_ns: u64) -> RResult<bool, Failure> {
        let mut ready = false;
        let result = RawFailure::catch(|failure| {
            call!(self.wait_fd(fd, interest.0, timeout_ns, &raw mut ready, failure))
        });
        result.map(|()| ready).into()
    }

    fn sleep(&self, ns: u64) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.sleep(ns, failure))).into()
    }

    fn spawn(&self, task: TaskBox) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.spawn(TaskObject::of(task), failure))).into()
    }

    fn offload(&self, task: TaskBox) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.offload(TaskObject::of(task), failure))).into()
    }

    fn connect(&self, address: RStr<'_>, timeout_ns: u64) -> RResult<i32, Failure> {
        let address = Str::of(address.as_str());
        let mut fd = -1;
        let result = RawFailure::catch(|failure| {
            call!(self.connect(address, timeout_ns, &raw mut fd, failure))
        });
        result.map(|()| fd).into()
    }

    fn resolve(
        &self,
        host: RStr<'_>,
        port: u16,
        timeout_ns: u64,
    ) -> RResult<RVec<RString>, Failure> {
        let host = Str::of(host.as_str());
        let mut result = Ok(());
        let addresses = collect::texts(|sink| {
            result = RawFailure::catch(|failure| {
                call!(self.resolve(host, port, timeout_ns, sink, failure))
            });
        });
        result.map(|()| addresses.into_iter().map(RString::from).collect()).into()
    }
}

struct ForeignEngine {
    functions: EngineTable,
    this: *mut c_void,
}

impl RawEngine for ForeignEngine {
    fn descriptor(&self) -> i32 {
        call!(self.descriptor())
    }

    fn turn(&self) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.turn(failure))).into()
    }

    fn stopped(&self) -> bool {
        call!(self.stopped())
    }
}
