//! The host's TLS as a worker class of the other side received it, for the kit that is linked to that class.

use std::ffi::c_void;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RVec};
use worker_api::raw::{
    RawTls, RawTls_TO, RawTlsSession, RawTlsSession_TO, TlsBox, TlsError, TlsProperties,
    TlsSessionBox,
};

use super::table::{Misfit, copy};
use crate::tables::{
    ByteSink, Bytes, PENDING, RawFailure, TLS_PLAIN_HTTP, TLS_REFUSED, TlsConfigObject,
    TlsConfigTable, TlsSessionObject, TlsSessionTable,
};

/// Takes the configuration.
///
/// # Safety
/// `object` is the host's, which lives as long as the process.
pub unsafe fn tls_from(object: TlsConfigObject) -> Result<TlsBox, Misfit> {
    // SAFETY: as the caller promises.
    let functions = unsafe { copy(object.functions, "jimu_tls_config") }?;
    Ok(RawTls_TO::from_value(ForeignConfig { functions, this: object.this }, TD_Opaque))
}

struct ForeignConfig {
    functions: TlsConfigTable,
    this: *mut c_void,
}

struct ForeignSession {
    functions: TlsSessionTable,
    this: *mut c_void,
}

// SAFETY: jimu.h allows the functions of both on any thread, several at once.
unsafe impl Send for ForeignConfig {}
// SAFETY: see above.
unsafe impl Sync for ForeignConfig {}
// SAFETY: see above.
unsafe impl Send for ForeignSession {}
// SAFETY: see above.
unsafe impl Sync for ForeignSession {}

/// A function of a table that was checked.
macro_rules! call {
    ($self:ident . $function:ident ( $($argument:expr),* )) => {{
        let function = $self.functions.$function.expect("a checked table has all of its functions");
        // SAFETY: the functions go with `this`, and the arguments are valid during the call.
        unsafe { function($self.this $(, $argument)*) }
    }};
}

impl Drop for ForeignSession {
    fn drop(&mut self) {
        call!(self.drop());
    }
}

/// Calls an operation, which receives the places for the error's number and its failure.
fn step(call: impl FnOnce(*mut i32, *mut RawFailure) -> i32) -> Result<(), TlsError> {
    let mut error = TLS_REFUSED;
    let again = TlsError::System(AGAIN);
    match RawFailure::catch_step(|failure| call(&raw mut error, failure)) {
        Ok(PENDING) => Err(again),
        Ok(_) => Ok(()),
        Err(failure) => Err(match error {
            TLS_REFUSED => TlsError::Refused(failure.message),
            TLS_PLAIN_HTTP => TlsError::PlainHttp,
            number => TlsError::System(number),
        }),
    }
}

impl RawTls for ForeignConfig {
    fn session(&self, received: RSlice<'_, u8>) -> RResult<TlsSessionBox, TlsError> {
        let received = Bytes::of(received.as_slice());
        let mut object =
            TlsSessionObject { functions: std::ptr::null(), this: std::ptr::null_mut() };
        let made =
            step(|error, failure| call!(self.session(received, &raw mut object, error, failure)));
        let session = made.and_then(|()| {
            // SAFETY: the host made the object.
            let functions = unsafe { copy(object.functions, "jimu_tls_session") };
            let functions =
                functions.map_err(|misfit| TlsError::Refused(misfit.to_string().into()))?;
            Ok(ForeignSession { functions, this: object.this })
        });
        session.map(|session| RawTlsSession_TO::from_value(session, TD_Opaque)).into()
    }
}

impl RawTlsSession for ForeignSession {
    fn read(&self, socket: i32, mut buffer: RSliceMut<'_, u8>) -> RResult<usize, TlsError> {
        let (buffer, mut done) = (buffer.as_mut_slice(), 0);
        let (place, length) = (buffer.as_mut_ptr(), buffer.len());
        step(|error, failure| {
            call!(self.read(socket, place, length, &raw mut done, error, failure))
        })
        .map(|()| done.min(length))
        .into()
    }

    fn write(&self, socket: i32, parts: RSlice<'_, RSlice<'_, u8>>) -> RResult<usize, TlsError> {
        let parts: Vec<Bytes> =
            parts.as_slice().iter().map(|part| Bytes::of(part.as_slice())).collect();
        let mut done = 0;
        step(|error, failure| {
            call!(self.write(socket, parts.as_ptr(), parts.len(), &raw mut done, error, failure))
        })
        .map(|()| done)
        .into()
    }

    fn flush_some(&self, socket: i32) -> RResult<usize, TlsError> {
        let mut done = 0;
        step(|error, failure| call!(self.flush_some(socket, &raw mut done, error, failure)))
            .map(|()| done)
            .into()
    }

    fn send_close_notify(&self, socket: i32) -> RResult<(), TlsError> {
        step(|error, failure| call!(self.send_close_notify(socket, error, failure))).into()
    }

    fn seal(&self, last: RSlice<'_, u8>) -> ROption<RVec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        let sink = ByteSink { write: Some(append), to: (&raw mut bytes).cast() };
        let sealed = call!(self.seal(Bytes::of(last.as_slice()), &raw const sink));
        sealed.then(|| RVec::from(bytes)).into()
    }

    fn wants_write(&self) -> bool {
        call!(self.wants_write())
    }

    fn properties(&self) -> TlsProperties {
        let properties = call!(self.properties());
        // SAFETY: jimu.h makes them valid until the session is dropped.
        unsafe {
            TlsProperties {
                protocol: properties.protocol.lossy().into(),
                cipher: properties.cipher.lossy().into(),
                server_name: properties.server_name.lossy().into(),
                client_certificate: properties.client_certificate.slice().into(),
            }
        }
    }
}

unsafe extern "C" fn append(to: *mut c_void, bytes: Bytes) {
    // SAFETY: `seal` passes a vector that it does not use during the call; jimu.h makes the bytes valid.
    let (to, bytes) = unsafe { (&mut *to.cast::<Vec<u8>>(), bytes.slice()) };
    to.extend_from_slice(bytes);
}

/// `EAGAIN` of Linux.
const AGAIN: i32 = 11;
