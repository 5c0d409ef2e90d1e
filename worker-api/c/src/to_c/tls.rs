//! The host's TLS for worker classes of the other side.

use std::ffi::c_void;
use std::io::{self, IoSlice};
use std::sync::OnceLock;

use worker_api::raw::TlsProperties;
use worker_api::{Failure, FailureKind, PlainHttp, TlsSession};

use crate::tables::{
    ByteSink, Bytes, FAILED, OK, PENDING, READY, RawFailure, Str, TLS_PLAIN_HTTP, TLS_REFUSED,
    Table, Tls, TlsConfigObject, TlsConfigTable, TlsSessionObject, TlsSessionTable,
};
use crate::values::slice_of;

impl TlsConfigObject {
    /// A configuration for the other side, which keeps it for the life of the process.
    pub fn of(config: worker_api::Tls) -> Self {
        let config = Box::leak(Box::new(config));
        Self { functions: &raw const CONFIG, this: (&raw mut *config).cast() }
    }
}

static CONFIG: TlsConfigTable =
    TlsConfigTable { table: Table::of::<TlsConfigTable>(), session: Some(session) };

static SESSION: TlsSessionTable = TlsSessionTable {
    table: Table::of::<TlsSessionTable>(),
    read: Some(read),
    write: Some(write),
    flush_some: Some(flush_some),
    send_close_notify: Some(send_close_notify),
    seal: Some(seal),
    wants_write: Some(wants_write),
    properties: Some(properties),
    drop: Some(release),
};

struct SessionForC {
    session: TlsSession,
    /// What the other side may read until the session is dropped.
    properties: OnceLock<TlsProperties>,
}

/// # Safety
/// `this` is a session of this module.
unsafe fn of<'a>(this: *mut c_void) -> &'a SessionForC {
    // SAFETY: as the caller promises; its owner has not dropped it.
    unsafe { &*this.cast::<SessionForC>() }
}

/// Returns the result of an operation, and writes what belongs to it.
///
/// # Safety
/// `error` and `failure` are memory for what their types say.
unsafe fn step(result: io::Result<i32>, error: *mut i32, failure: *mut RawFailure) -> i32 {
    let reason = match result {
        Ok(step) => return step,
        Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => return PENDING,
        Err(reason) => reason,
    };
    let is_plain =
        reason.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<PlainHttp>);
    let number =
        reason.raw_os_error().unwrap_or(if is_plain { TLS_PLAIN_HTTP } else { TLS_REFUSED });
    // SAFETY: as the caller promises.
    unsafe {
        error.write(number);
        RawFailure::fill(failure, &Failure::new(FailureKind::PROTOCOL, reason.to_string()));
    }
    FAILED
}

/// Writes the number of bytes of an operation.
///
/// # Safety
/// `done` is memory for a number.
unsafe fn counted(result: io::Result<usize>, done: *mut usize) -> io::Result<i32> {
    result.map(|count| {
        // SAFETY: as the caller promises.
        unsafe { done.write(count) };
        READY
    })
}

// SAFETY of the functions below: jimu.h has the other side pass the object's `self`, and pointers that are valid during
// the call.

unsafe extern "C" fn session(
    this: *mut c_void,
    received: Bytes,
    place: *mut TlsSessionObject,
    error: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above; a configuration is never dropped.
    let (config, received) = unsafe { (&*this.cast::<worker_api::Tls>(), received.slice()) };
    let result = config.session(received).map(|session| {
        let session = SessionForC { session, properties: OnceLock::new() };
        let this = Box::into_raw(Box::new(session)).cast();
        // SAFETY: see above.
        unsafe { place.write(TlsSessionObject { functions: &raw const SESSION, this }) };
        OK
    });
    // SAFETY: see above.
    unsafe { step(result, error, failure) }
}

unsafe extern "C" fn read(
    this: *mut c_void,
    socket: i32,
    buffer: *mut u8,
    length: usize,
    done: *mut usize,
    error: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    let buffer = match length {
        0 => &mut [],
        // SAFETY: see above.
        _ => unsafe { std::slice::from_raw_parts_mut(buffer, length) },
    };
    // SAFETY: see above.
    unsafe {
        let result = of(this).session.read(socket, buffer);
        step(counted(result, done), error, failure)
    }
}

unsafe extern "C" fn write(
    this: *mut c_void,
    socket: i32,
    parts: *const Bytes,
    count: usize,
    done: *mut usize,
    error: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    let parts = unsafe { slice_of(parts, count) };
    let mut slices = [IoSlice::new(&[]); PARTS_MAX];
    for (slice, part) in slices.iter_mut().zip(parts) {
        // SAFETY: see above.
        *slice = IoSlice::new(unsafe { part.slice() });
    }
    let slices = &slices[..count.min(PARTS_MAX)];
    // SAFETY: see above.
    unsafe { step(counted(of(this).session.write(socket, slices), done), error, failure) }
}

unsafe extern "C" fn flush_some(
    this: *mut c_void,
    socket: i32,
    done: *mut usize,
    error: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe { step(counted(of(this).session.flush_some(socket), done), error, failure) }
}

unsafe extern "C" fn send_close_notify(
    this: *mut c_void,
    socket: i32,
    error: *mut i32,
    failure: *mut RawFailure,
) -> i32 {
    // SAFETY: see above.
    unsafe {
        let result = of(this).session.send_close_notify(socket);
        step(result.map(|()| READY), error, failure)
    }
}

unsafe extern "C" fn seal(this: *mut c_void, last: Bytes, sink: *const ByteSink) -> bool {
    // SAFETY: see above.
    let (this, last, sink) = unsafe { (of(this), last.slice(), &*sink) };
    let sealed = this.session.seal(last);
    if let (Some(bytes), Some(write)) = (&sealed, sink.write) {
        // SAFETY: see above.
        unsafe { write(sink.to, Bytes::of(bytes)) };
    }
    sealed.is_some()
}

unsafe extern "C" fn wants_write(this: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe { of(this) }.session.wants_write()
}

unsafe extern "C" fn properties(this: *mut c_void) -> Tls {
    // SAFETY: see above.
    let this = unsafe { of(this) };
    let properties = this.properties.get_or_init(|| this.session.properties());
    Tls {
        protocol: Str::of(&properties.protocol),
        cipher: Str::of(&properties.cipher),
        server_name: Str::of(&properties.server_name),
        client_certificate: Bytes::of(&properties.client_certificate),
    }
}

unsafe extern "C" fn release(this: *mut c_void) {
    // SAFETY: `session` made the object; its owner drops it once.
    drop(unsafe { Box::from_raw(this.cast::<SessionForC>()) });
}

/// More parts are left to the next call.
const PARTS_MAX: usize = 8;
