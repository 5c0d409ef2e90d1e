//! An exchange for the other side.
//!
//! During the application's call it is lent: the object is on the caller's stack. Once it is detached it is owned: the
//! object is on the heap until the other side drops it.

use std::ffi::c_void;
use std::os::fd::IntoRawFd as _;
use std::ptr;

use worker_api::raw::ExchangeBox;
use worker_api::{Exchange, Interest, Result, Step, Waker};

use crate::tables::{
    Bytes, ExchangeObject, ExchangeTable, Head, HeaderLine, HijackedStream, OK, RawFailure, Str,
    Table, WakerObject,
};
use crate::values::step_outcome;
use crate::values::{HeadView, outcome, with_headers};

/// An exchange in the form of the other side.
pub struct ExchangeForC {
    exchange: Exchange,
    head: HeadView,
    /// Whether `head` is that of the exchange: its operations may move what it refers to. False once it is detached.
    is_head_current: bool,
    /// What the other side may read until the exchange is dropped.
    already_read: Vec<u8>,
    is_detached: bool,
}

impl ExchangeForC {
    /// Wraps an exchange that a class passes to an application.
    pub fn new(exchange: ExchangeBox) -> Self {
        Self::of(Exchange::from_raw(exchange))
    }

    fn of(exchange: Exchange) -> Self {
        Self {
            exchange,
            head: HeadView::new(),
            is_head_current: false,
            already_read: Vec::new(),
            is_detached: false,
        }
    }

    /// Lends the exchange to `call`, and closes it as `worker_api::App::call` says: what the call leaves open is finished,
    /// and fails if the call does.
    pub fn lend(mut self, call: impl FnOnce(*mut ExchangeObject) -> Result<()>) {
        let mut object =
            ExchangeObject { functions: &raw const LENT, this: (&raw mut self).cast() };
        let result = call(&raw mut object);
        if self.is_detached {
            return;
        }
        if let Err(failure) = result.and_then(|()| self.exchange.finish()) {
            self.exchange.fail(failure);
        }
    }

    /// Hands the exchange over.
    pub fn give(exchange: ExchangeBox) -> ExchangeObject {
        Self::new(exchange).owned()
    }

    /// Returns the exchange for an operation, after which the head is converted again.
    fn operate(&mut self) -> &mut Exchange {
        self.is_head_current = false;
        &mut self.exchange
    }

    /// Converts the head; returns NULL once the exchange is detached. Apart from [`head`], which has no registers to save
    /// without this.
    #[inline(never)]
    fn convert_head(&mut self) -> *const Head {
        if self.is_detached {
            return ptr::null();
        }
        self.is_head_current = true;
        self.head.set(self.exchange.head())
    }

    fn owned(self) -> ExchangeObject {
        ExchangeObject { functions: &raw const OWNED, this: Box::into_raw(Box::new(self)).cast() }
    }
}

/// The table of a lent exchange.
static LENT: ExchangeTable = ExchangeTable { drop: Some(keep), ..FUNCTIONS };

/// The table of an exchange that the other side owns.
static OWNED: ExchangeTable = FUNCTIONS;

const FUNCTIONS: ExchangeTable = ExchangeTable {
    table: Table::of::<ExchangeTable>(),
    head: Some(head),
    read: Some(read),
    start: Some(start),
    write: Some(write),
    send_file: Some(send_file),
    informational: Some(informational),
    trailers: Some(trailers),
    finish: Some(finish),
    fail: Some(fail),
    hijack: Some(hijack),
    descriptor: Some(descriptor),
    deadline_ns: Some(deadline_ns),
    extend_deadline: Some(extend_deadline),
    on_disconnect: Some(on_disconnect),
    wait: Some(wait),
    is_proxied: Some(is_proxied),
    detach: Some(detach),
    drop: Some(release),
};

/// # Safety
/// `this` is an exchange of this module that is not in use elsewhere.
unsafe fn of<'a>(this: *mut c_void) -> &'a mut ExchangeForC {
    // SAFETY: as the caller promises.
    unsafe { &mut *this.cast::<ExchangeForC>() }
}

/// Calls a primitive operation. One without a waker, as a blocking application calls it, needs no conversion.
///
/// # Safety
/// The arguments are those of such an operation in jimu.h.
unsafe fn step(
    this: *mut c_void,
    waker: WakerObject,
    done: *mut usize,
    failure: *mut RawFailure,
    call: impl FnOnce(&mut Exchange, Option<Waker>) -> Step,
) -> i32 {
    // SAFETY: as the caller promises.
    unsafe {
        let exchange = of(this).operate();
        let step = if waker.functions.is_null() {
            call(exchange, None)
        } else {
            step_with_waker(exchange, waker, call)
        };
        step_outcome(step, done, failure)
    }
}

/// Apart from [`step`], which has fewer registers to save without this.
///
/// # Safety
/// The waker was received by value, and its table is valid for the life of the process.
#[inline(never)]
unsafe fn step_with_waker(
    exchange: &mut Exchange,
    waker: WakerObject,
    call: impl FnOnce(&mut Exchange, Option<Waker>) -> Step,
) -> Step {
    // SAFETY: as the caller promises.
    call(exchange, unsafe { waker.waker() })
}

// SAFETY of the functions below: jimu.h has the other side pass the object's `self`, one thread at a time, pointers that
// are valid during the call, and wakers by value.

unsafe extern "C" fn head(this: *mut c_void) -> *const Head {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    if this.is_head_current {
        return this.head.converted();
    }
    this.convert_head()
}

unsafe extern "C" fn read(
    this: *mut c_void,
    buffer: *mut u8,
    length: usize,
    waker: WakerObject,
    done: *mut usize,
    failure: *mut RawFailure,
) -> i32 {
    let buffer = match length {
        0 => &mut [],
        // SAFETY: see above. The buffer is only written.
        _ => unsafe { std::slice::from_raw_parts_mut(buffer, length) },
    };
    // SAFETY: see above.
    unsafe { step(this, waker, done, failure, |exchange, waker| exchange.poll_read(buffer, waker)) }
}

unsafe extern "C" fn start(
    this: *mut c_void,
    status: u16,
    reason: Str,
    headers: *const HeaderLine,
    count: usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        let this = of(this);
        let reason = reason.text().unwrap_or_default();
        let result = with_headers(headers, count, |all| this.operate().start(status, reason, all));
        outcome(result, failure)
    }
}

unsafe extern "C" fn write(
    this: *mut c_void,
    bytes: *const u8,
    length: usize,
    waker: WakerObject,
    done: *mut usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        let bytes = Bytes { data: bytes, length }.slice();
        step(this, waker, done, failure, |exchange, waker| exchange.poll_write(bytes, waker))
    }
}

unsafe extern "C" fn send_file(
    this: *mut c_void,
    fd: i32,
    offset: u64,
    length: u64,
    waker: WakerObject,
    done: *mut usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        step(this, waker, done, failure, |exchange, waker| {
            exchange.poll_send_file(fd, offset, length, waker)
        })
    }
}

unsafe extern "C" fn informational(
    this: *mut c_void,
    status: u16,
    headers: *const HeaderLine,
    count: usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        let this = of(this);
        let result = with_headers(headers, count, |all| this.operate().informational(status, all));
        outcome(result, failure)
    }
}

unsafe extern "C" fn trailers(
    this: *mut c_void,
    headers: *const HeaderLine,
    count: usize,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        let this = of(this);
        outcome(with_headers(headers, count, |all| this.operate().trailers(all)), failure)
    }
}

unsafe extern "C" fn finish(this: *mut c_void, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(of(this).operate().finish(), failure) }
}

unsafe extern "C" fn fail(this: *mut c_void, failure: *const RawFailure) {
    // SAFETY: see above.
    let (this, failure) = unsafe { (of(this), RawFailure::read(failure)) };
    this.operate().fail(failure);
}

unsafe extern "C" fn hijack(
    this: *mut c_void,
    place: *mut HijackedStream,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    match this.operate().hijack() {
        Ok(stream) => {
            this.already_read = stream.already_read;
            let already_read = Bytes::of(&this.already_read);
            // SAFETY: see above.
            unsafe { place.write(HijackedStream { fd: stream.fd.into_raw_fd(), already_read }) };
            OK
        }
        // SAFETY: see above.
        Err(error) => unsafe { outcome(Err(error), failure) },
    }
}

unsafe extern "C" fn descriptor(this: *mut c_void) -> i32 {
    // SAFETY: see above.
    unsafe { of(this) }.exchange.descriptor()
}

unsafe extern "C" fn deadline_ns(this: *mut c_void) -> u64 {
    // SAFETY: see above.
    unsafe { of(this) }.exchange.deadline_ns().unwrap_or(0)
}

unsafe extern "C" fn extend_deadline(this: *mut c_void, by_ns: u64) {
    // SAFETY: see above. Of a detached exchange there is nothing to extend.
    let _ = unsafe { of(this) }.operate().extend_deadline(std::time::Duration::from_nanos(by_ns));
}

unsafe extern "C" fn on_disconnect(this: *mut c_void, waker: WakerObject) {
    // SAFETY: see above.
    let (this, waker) = unsafe { (of(this), waker.waker()) };
    if let Some(waker) = waker {
        // Of a detached exchange nothing is reported.
        let _ = this.operate().on_disconnect(waker);
    }
}

unsafe extern "C" fn wait(this: *mut c_void, interest: u8, failure: *mut RawFailure) -> i32 {
    // SAFETY: see above.
    unsafe { outcome(of(this).operate().wait(Interest(interest)), failure) }
}

unsafe extern "C" fn is_proxied(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { of(this) }.exchange.is_proxied()
}

unsafe extern "C" fn detach(this: *mut c_void) -> ExchangeObject {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    this.is_detached = true;
    ExchangeForC::of(this.operate().detach()).owned()
}

/// What is lent is not the other side's to drop.
unsafe extern "C" fn keep(_: *mut c_void) {}

unsafe extern "C" fn release(this: *mut c_void) {
    // SAFETY: `ExchangeForC::owned` made the object; its owner drops it once.
    drop(unsafe { Box::from_raw(this.cast::<ExchangeForC>()) });
}
