//! The host as a worker class of the other side received it, for the kit that is linked to that class.

use std::ffi::c_void;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::raw::{HostBox, RawHost, RawHost_TO, TaskBox, TlsBox};
use worker_api::{AccessRecord, Counter, Failure, Listener, RequestHead, Value};

use super::collect;
use super::table::{Misfit, copy};
use super::tls::tls_from;
use crate::tables::{
    Bytes, HostObject, HostTable, RawFailure, SettingValue, Str, TaskObject, TlsConfigObject,
};
use crate::values::{HeadView, slice_of, with_record};

/// Takes the host.
///
/// # Safety
/// `object` is the host's, which lives as long as the process.
pub unsafe fn host_from(object: *const HostObject) -> Result<HostBox, Misfit> {
    // SAFETY: as the caller promises.
    let object = unsafe { *object };
    // SAFETY: as the caller promises.
    let functions = unsafe { copy(object.functions, "jimu_host") }?;
    Ok(RawHost_TO::from_value(ForeignHost { functions, this: object.this }, TD_Opaque))
}

struct ForeignHost {
    functions: HostTable,
    this: *mut c_void,
}

// SAFETY: jimu.h allows the host's functions on any thread, several at once.
unsafe impl Send for ForeignHost {}
// SAFETY: see above.
unsafe impl Sync for ForeignHost {}

/// A function of the table, which was checked.
macro_rules! call {
    ($self:ident . $function:ident ( $($argument:expr),* )) => {{
        let function = $self.functions.$function.expect("a checked table has all of its functions");
        // SAFETY: the functions go with `this`, and the arguments are valid during the call.
        unsafe { function($self.this $(, $argument)*) }
    }};
}

impl SettingValue {
    /// Returns the value, unless it is not set.
    ///
    /// # Safety
    /// It is valid.
    unsafe fn value(&self) -> ROption<Value> {
        let value = match self.kind {
            1 => Value::Bool(self.boolean),
            2 => Value::Int(self.integer),
            3 => Value::Float(self.real),
            // SAFETY: as the caller promises.
            4 => Value::Text(unsafe { self.text.lossy() }.into()),
            5 => {
                // SAFETY: as the caller promises.
                let items = unsafe { slice_of(self.list, self.list_length) };
                // SAFETY: see above.
                Value::List(items.iter().map(|item| unsafe { item.lossy() }.into()).collect())
            }
            _ => return ROption::RNone,
        };
        ROption::RSome(value)
    }
}

impl RawHost for ForeignHost {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        let value = call!(self.setting(Str::of(name.as_str())));
        // SAFETY: jimu.h makes it valid for the life of the process.
        unsafe { value.value() }
    }

    fn section(&self) -> RString {
        let section = call!(self.section());
        // SAFETY: jimu.h makes it valid for the life of the process.
        unsafe { section.lossy() }.into()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        let mut contents = Bytes { data: std::ptr::null(), length: 0 };
        let name = Str::of(name.as_str());
        RawFailure::catch(|failure| call!(self.setting_file(name, &raw mut contents, failure)))
            .map(|()| {
                // SAFETY: jimu.h makes them valid for the life of the process.
                let bytes = || RVec::from(unsafe { contents.slice() });
                (!contents.data.is_null()).then(bytes).into()
            })
            .into()
    }

    fn listeners(&self) -> RVec<Listener> {
        let mut count = 0;
        let sockets = call!(self.listeners(&raw mut count));
        // SAFETY: jimu.h makes them valid for the life of the process.
        let sockets = unsafe { slice_of(sockets, count) };
        let convert = |socket: &crate::tables::ListeningSocket| Listener {
            fd: socket.fd,
            // SAFETY: see above.
            name: unsafe { socket.name.lossy() }.into(),
            unix: socket.is_unix,
        };
        sockets.iter().map(convert).collect()
    }

    fn close_listeners(&self) {
        call!(self.close_listeners());
    }

    fn spawn_index(&self) -> u64 {
        call!(self.spawn_index())
    }

    fn arbiter_pid(&self) -> i32 {
        call!(self.arbiter_pid())
    }

    fn notify(&self) {
        call!(self.notify());
    }

    fn alive(&self) -> bool {
        call!(self.alive())
    }

    fn stop(&self) {
        call!(self.stop());
    }

    fn retire(&self) {
        call!(self.retire(Str::of("")));
    }

    fn wake_descriptor(&self) -> i32 {
        call!(self.wake_descriptor())
    }

    fn deliver_signals(&self) {
        call!(self.deliver_signals());
    }

    fn count(&self, counter: Counter, by: i64) {
        call!(self.count(counter.0, by));
    }

    fn request_started(&self, head: &RequestHead<'_>) -> u32 {
        call!(self.request_started(HeadView::new().set(head)))
    }

    fn request_ended(&self, token: u32, record: &AccessRecord<'_>) {
        with_record(record, |record| call!(self.request_ended(token, record)));
    }

    fn wants_response_headers(&self) -> bool {
        call!(self.wants_response_headers())
    }

    fn log_level(&self) -> u8 {
        call!(self.log_level())
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>) {
        call!(self.log(level, Str::of(target.as_str()), Str::of(message.as_str())));
    }

    fn retire_for(&self, reason: RStr<'_>) {
        call!(self.retire(Str::of(reason.as_str())));
    }

    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        call!(self.write_log(Str::of(target.as_str()), Bytes::of(text.as_slice())));
    }

    fn logged_variables(&self) -> RVec<RString> {
        let names = collect::texts(|sink| call!(self.logged_variables(sink)));
        names.into_iter().map(RString::from).collect()
    }

    fn set_logged_variable(&self, request: u64, name: RStr<'_>, value: RSlice<'_, u8>) {
        let (name, value) = (Str::of(name.as_str()), Bytes::of(value.as_slice()));
        call!(self.set_logged_variable(request, name, value));
    }

    fn on_signal(&self, signal: i32) {
        call!(self.on_signal(signal));
    }

    fn reclaim_signals(&self) {
        call!(self.reclaim_signals());
    }

    fn signal_descriptor(&self) -> i32 {
        call!(self.signal_descriptor())
    }

    fn remaining_backlog(&self, listener: i32) -> u64 {
        call!(self.remaining_backlog(listener))
    }

    fn at_abort(&self, task: TaskBox) {
        call!(self.at_abort(TaskObject::of(task)));
    }

    fn log_stack(
        &self,
        level: u8,
        target: RStr<'_>,
        heading: RStr<'_>,
        addresses: RSlice<'_, usize>,
    ) {
        let (target, heading) = (Str::of(target.as_str()), Str::of(heading.as_str()));
        call!(self.log_stack(level, target, heading, addresses.as_ptr(), addresses.len()));
    }

    fn tls(&self, protocols: RSlice<'_, RStr<'_>>) -> RResult<TlsBox, Failure> {
        let names: Vec<Str> =
            protocols.as_slice().iter().map(|name| Str::of(name.as_str())).collect();
        let mut config =
            TlsConfigObject { functions: std::ptr::null(), this: std::ptr::null_mut() };
        let made = RawFailure::catch(|failure| {
            call!(self.tls(names.as_ptr(), names.len(), &raw mut config, failure))
        });
        made.and_then(|()| {
            // SAFETY: the host made the object.
            unsafe { tls_from(config) }.map_err(|misfit| Failure::config(misfit.to_string()))
        })
        .into()
    }
}
