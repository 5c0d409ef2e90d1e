//! Connections of `jimu_kit.h`, and calling the application with the request of one.

use std::ffi::c_void;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use c_api::tables::RawFailure;
use c_api::values::outcome;
use jimu_kit::{
    AcceptResult, Advance, Connection, ConnectionDriver, Deadline, RequestDeadlines, WorkerBase,
    blocking, clock, poll,
};
use worker_api::guard::catch;
use worker_api::{Counter, Failure, Host, Interest, Result};

use crate::{Kit, nanoseconds};

// SAFETY of the functions below: jimu_kit.h has the class pass a connection that it owns, to one function at a time, and
// pointers that are valid during the call.

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_accept(
    kit: &Kit,
    index: usize,
    rest_ns: *mut u64,
) -> *mut Connection {
    // SAFETY: see above.
    unsafe { rest_ns.write(0) };
    let Some(acceptor) = kit.base.acceptors.get(index) else { return ptr::null_mut() };
    let take = || match acceptor.take() {
        AcceptResult::Connection(accepted) => {
            kit.base.host.count(Counter::ACCEPTED, 1);
            Ok(Connection::new(&kit.base.context, accepted))
        }
        AcceptResult::Empty => Err(0),
        AcceptResult::Rest(pause) => Err(clock::nanoseconds(pause)),
    };
    match catch("accepting a connection", take) {
        Ok(Ok(connection)) => Box::into_raw(connection),
        Ok(Err(rest)) => {
            // SAFETY: see above.
            unsafe { rest_ns.write(rest) };
            ptr::null_mut()
        }
        Err(_) => ptr::null_mut(),
    }
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_advance(connection: &mut Connection) -> i32 {
    catch("advancing a connection", || connection.advance()).map_or(CLOSED, number)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_expire(connection: &mut Connection) -> i32 {
    catch("expiring a connection", || connection.expire()).map_or(CLOSED, number)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_wait_for_client(
    kit: &Kit,
    connection: &mut Connection,
    interest: i32,
) -> i32 {
    let interest = Interest(u8::try_from(interest).unwrap_or(Interest::READ_WRITE.0));
    let wait = || kit.waiting.wait(connection, interest);
    catch("waiting for a client", wait).map_or(CLOSED, number)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_fd(connection: &Connection) -> i32 {
    connection.fd()
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_deadline_ns(connection: &Connection) -> u64 {
    nanoseconds(connection.deadline())
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_waits_since_ns(connection: &Connection) -> u64 {
    connection.waits_since_ns().unwrap_or(0)
}

/// See `jimu_kit.h`.
#[unsafe(no_mangle)]
pub extern "C" fn jimu_kit_shorten_idle_deadline(connection: &mut Connection) {
    connection.shorten_idle_deadline(WorkerBase::idle_drain_deadline());
}

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_close(connection: *mut Connection) {
    if !connection.is_null() {
        // SAFETY: see above: the class gives it away.
        let connection = unsafe { Box::from_raw(connection) };
        // A failure is logged.
        let _ = catch("closing a connection", || drop(connection));
    }
}

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_wait(
    fd: i32,
    interest: u8,
    deadline_ns: u64,
    ready: *mut bool,
    failure: *mut RawFailure,
) -> i32 {
    let waited = poll::wait(fd, Interest(interest), Deadline::at_ns(deadline_ns), || ());
    let waited = waited.map_err(|error| Failure::io("cannot wait for a descriptor", &error));
    // SAFETY: see above.
    unsafe { outcome(waited.map(|is_ready| ready.write(is_ready)), failure) }
}

/// See `jimu_kit.h`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jimu_kit_call(
    kit: &Kit,
    connection: *mut Connection,
    driver: *const DriverObject,
) -> *mut Connection {
    // SAFETY: see above: the class gives the connection away, and the driver is valid during the call.
    let (connection, waits) = unsafe { (Box::from_raw(connection), driver.as_ref().copied()) };
    let deadlines = kit.deadlines.clone();
    let beats = (thread::current().id() == kit.main).then(|| kit.base.host.clone());
    let driver = Arc::new(Driver { waits, deadlines, beats, released: Mutex::default() });
    kit.base.host.count(Counter::BUSY_SLOTS, 1);
    // A failure is logged.
    let _ = catch("calling the application", || kit.deadlines.call(connection, driver.clone()));
    kit.base.host.count(Counter::BUSY_SLOTS, -1);
    driver.take().map_or(ptr::null_mut(), Box::into_raw)
}

/// `jimu_kit_driver`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DriverObject {
    wait: Option<unsafe extern "C" fn(*mut c_void, i32, u8, u64, *mut RawFailure) -> i32>,
    this: *mut c_void,
}

/// Drives the connection of a request, and returns it to the call.
struct Driver {
    waits: Option<DriverObject>,
    deadlines: RequestDeadlines,
    /// Receives the heartbeat of a main thread that waits.
    beats: Option<Host>,
    released: Mutex<Option<Box<Connection>>>,
}

// SAFETY: an exchange waits on the thread of its call only, which is where jimu_kit.h has the class's function be called.
unsafe impl Send for Driver {}
// SAFETY: see above.
unsafe impl Sync for Driver {}

impl Driver {
    fn take(&self) -> Option<Box<Connection>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConnectionDriver for Driver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        let Some(DriverObject { wait: Some(wait), this }) = self.waits else {
            let beat = || self.beats.iter().for_each(Host::notify);
            return blocking::in_time(poll::wait(fd, interest, deadline, beat));
        };
        RawFailure::catch(|failure| {
            // SAFETY: the function goes with `this`, and the driver outlives the call.
            unsafe { wait(this, fd, interest.0, nanoseconds(deadline), failure) }
        })
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.deadlines.extend(fd, deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

/// Returns the number of the header.
fn number(next: Advance) -> i32 {
    match next {
        Advance::Wait(interest) => i32::from(interest.0),
        Advance::Request => REQUEST,
        Advance::Closed => CLOSED,
    }
}

/// `JIMU_KIT_REQUEST`.
const REQUEST: i32 = 4;
/// `JIMU_KIT_CLOSED`.
const CLOSED: i32 = 5;
