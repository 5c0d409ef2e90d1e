//! An exchange of a worker class of the other side.

use std::ffi::c_void;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RVec};
use worker_api::raw::{ExchangeBox, Hijacked, RawExchange, RawExchange_TO};
use worker_api::{Failure, Header, Interest, RequestHead, Result, Step, Waker};

use super::table::{Functions as _, Misfit, check_size, check_version};
use crate::tables::{
    Bytes, ExchangeObject, ExchangeTable, HijackedStream, PENDING, READY, RawFailure, Str,
    WakerObject,
};
use crate::values::{OwnedParts, header_lines};

/// Takes an exchange that a worker class passes to an application.
///
/// # Safety
/// The object is the other side's, which gives it away. Its table is NULL or valid for the life of the process, and its
/// head is valid and unchanged until the object is dropped.
pub unsafe fn exchange_from(object: &mut ExchangeObject) -> Result<ExchangeBox> {
    let refused = |misfit: Misfit| Failure::application(misfit.to_string());
    // SAFETY: as the caller promises.
    let functions = unsafe { object.functions.as_ref() }
        .ok_or(Misfit::Missing { table: "jimu_exchange", field: "functions" })
        .map_err(refused)?;
    check(functions).map_err(refused)?;
    let (functions, this) = (*functions, object.this);
    let object = Owned { functions, this };
    let Some(head) = functions.head else { return Err(no_head()) };
    // SAFETY: the functions go with `this`, and the head is valid as long as the object.
    let head = unsafe { head(this).as_ref() }.ok_or_else(no_head)?;
    // SAFETY: see above: the parts are kept no longer than the object.
    let parts = unsafe { OwnedParts::of(head) };
    let parts = parts.map_err(|field| {
        Failure::application(format!("the worker class passes a head whose `{field}` is not UTF-8"))
    })?;
    let parts: Box<OwnedParts<'static>> = Box::new(parts);
    // SAFETY: the head refers to `parts`, whose place does not change, and which lives as long as the head.
    let head =
        unsafe { std::mem::transmute::<RequestHead<'_>, RequestHead<'static>>(parts.head()) };
    Ok(RawExchange_TO::from_value(ForeignExchange { head, _parts: parts, object }, TD_Opaque))
}

fn no_head() -> Failure {
    Failure::application("the worker class passes an exchange without a head")
}

/// Checks the table each time: a class may have several, and none is kept longer than its exchange.
fn check(functions: &ExchangeTable) -> Result<(), Misfit> {
    let table = functions.table;
    check_version(table, ExchangeTable::NAME)?;
    check_size(table, ExchangeTable::NAME, ExchangeTable::OLDEST)?;
    match functions.missing() {
        Some(field) => Err(Misfit::Missing { table: ExchangeTable::NAME, field }),
        None => Ok(()),
    }
}

struct ForeignExchange {
    /// Refers to `_parts`.
    head: RequestHead<'static>,
    _parts: Box<OwnedParts<'static>>,
    /// Dropped last: the fields above refer to its head.
    object: Owned,
}

/// The object of the other side, which is dropped with this.
struct Owned {
    functions: ExchangeTable,
    this: *mut c_void,
}

// SAFETY: jimu.h has an exchange be used by one thread at a time, any.
unsafe impl Send for ForeignExchange {}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(end) = self.functions.drop {
            // SAFETY: `exchange_from` was given the object away; it is dropped once.
            unsafe { end(self.this) };
        }
    }
}

impl Owned {
    /// Calls an operation that does not block; `call` receives the places for the number of bytes and the failure.
    fn step(call: impl FnOnce(*mut usize, *mut RawFailure) -> i32) -> Step {
        let mut done = 0;
        match RawFailure::catch_step(|failure| call(&raw mut done, failure)) {
            Ok(READY) => Step::Ready(done),
            Ok(PENDING) => Step::Pending,
            Ok(other) => Step::Failed(Failure::application(format!(
                "the worker class returned {other} where jimu.h has JIMU_READY, JIMU_PENDING and JIMU_FAILED"
            ))),
            Err(failure) => Step::Failed(failure),
        }
    }
}

/// A function of a table that was checked.
macro_rules! call {
    ($self:ident . $function:ident ( $($argument:expr),* )) => {{
        let function =
            $self.object.functions.$function.expect("a checked table has all of its functions");
        // SAFETY: the functions go with `this`, and the arguments are valid during the call.
        unsafe { function($self.object.this $(, $argument)*) }
    }};
}

impl RawExchange for ForeignExchange {
    fn head(&self) -> &RequestHead<'_> {
        &self.head
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step {
        let (waker, buf) = (WakerObject::of(waker.into_option()), buf.as_mut_slice());
        let limit = buf.len();
        let step = Owned::step(|done, failure| {
            call!(self.read(buf.as_mut_ptr(), buf.len(), waker, done, failure))
        });
        match step {
            Step::Ready(bytes) if bytes > limit => Step::Failed(Failure::application(
                "the worker class read more than there is room for",
            )),
            step => step,
        }
    }

    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        let (reason, lines) = (Str::of(reason.as_str()), header_lines(headers.as_slice()));
        RawFailure::catch(|failure| {
            call!(self.start(status, reason, lines.as_ptr(), lines.len(), failure))
        })
        .into()
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step {
        let (waker, bytes) = (WakerObject::of(waker.into_option()), Bytes::of(bytes.as_slice()));
        Owned::step(|done, failure| {
            call!(self.write(bytes.data, bytes.length, waker, done, failure))
        })
    }

    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step {
        let waker = WakerObject::of(waker.into_option());
        Owned::step(|done, failure| call!(self.send_file(fd, offset, len, waker, done, failure)))
    }

    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        let lines = header_lines(headers.as_slice());
        RawFailure::catch(|failure| {
            call!(self.informational(status, lines.as_ptr(), lines.len(), failure))
        })
        .into()
    }

    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        let lines = header_lines(headers.as_slice());
        RawFailure::catch(|failure| call!(self.trailers(lines.as_ptr(), lines.len(), failure)))
            .into()
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.finish(failure))).into()
    }

    fn fail(&mut self, failure: Failure) {
        let mut place = std::mem::MaybeUninit::uninit();
        // SAFETY: the place is memory for a failure.
        unsafe { RawFailure::fill(place.as_mut_ptr(), &failure) };
        call!(self.fail(place.as_ptr()));
    }

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        let mut stream = HijackedStream { fd: -1, already_read: Bytes::of(&[]) };
        RawFailure::catch(|failure| call!(self.hijack(&raw mut stream, failure)))
            .map(|()| {
                // SAFETY: the bytes are valid until the exchange is dropped.
                let already_read = RVec::from(unsafe { stream.already_read.slice() });
                Hijacked { fd: stream.fd, already_read }
            })
            .into()
    }

    fn descriptor(&self) -> i32 {
        call!(self.descriptor())
    }

    fn deadline_ns(&self) -> u64 {
        call!(self.deadline_ns())
    }

    fn extend_deadline(&mut self, by_ns: u64) {
        call!(self.extend_deadline(by_ns));
    }

    fn on_disconnect(&mut self, waker: Waker) {
        call!(self.on_disconnect(WakerObject::of(Some(waker))));
    }

    fn wait(&mut self, interest: Interest) -> RResult<(), Failure> {
        RawFailure::catch(|failure| call!(self.wait(interest.0, failure))).into()
    }

    fn is_proxied(&self) -> bool {
        call!(self.is_proxied())
    }
}
