//! The exchange as it crosses the ABI: a connection during one request, owned by the application.
//!
//! The operations are methods of the active request: reading in `request`, responding in `response`. This module
//! decides who owns the connection at any time, and keeps panics from crossing the ABI.

use std::sync::Arc;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RStr};
use worker_api::fork;
use worker_api::guard::catch;
use worker_api::raw::{ExchangeBox, Hijacked, Interest, RawExchange, RawExchange_TO, Step};
use worker_api::{Address, Failure, FailureKind, Header, RequestHead, Version, Waker};

use crate::active_request::ActiveRequest;
use crate::connection::Connection;
use crate::driver::ConnectionDriver;
use crate::io::Io;
use crate::state::Then;

impl Connection {
    /// Turns the connection into an exchange with its request. Only valid after [`crate::Advance::Request`]; the
    /// connection returns through [`ConnectionDriver::release`].
    pub fn into_exchange(self: Box<Self>, driver: Arc<dyn ConnectionDriver>) -> ExchangeBox {
        self.note_queueing();
        let handle = ExchangeHandle { connection: Some(self), driver };
        RawExchange_TO::from_value(handle, TD_Opaque)
    }
}

/// The application's handle of a connection. The connection returns to its driver at the end of the exchange, at
/// the latest when this is dropped.
struct ExchangeHandle {
    connection: Option<Box<Connection>>,
    driver: Arc<dyn ConnectionDriver>,
}

impl ExchangeHandle {
    /// Runs `work` on the request; a panic in the kit ends the exchange.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut ActiveRequest, &mut Io, &dyn ConnectionDriver) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if fork::is_child() {
            return Err(Failure::new(FailureKind::OTHER, NOT_THE_PARENT));
        }
        let Some((active, io)) = self.connection.as_deref_mut().and_then(Connection::request_mut)
        else {
            return Err(Failure::application("the exchange is over"));
        };
        let driver = &*self.driver;
        match catch("the worker class's kit", || work(active, io, driver)) {
            Ok(result) => result,
            Err(panic) => {
                self.return_connection(Connection::abort);
                Err(panic)
            }
        }
    }

    fn step(
        &mut self,
        work: impl FnOnce(&mut ActiveRequest, &mut Io, &dyn ConnectionDriver) -> Step,
    ) -> Step {
        self.with(|active, io, driver| Ok(work(active, io, driver))).unwrap_or_else(Step::Failed)
    }

    fn request(&self) -> Option<&ActiveRequest> {
        self.connection.as_deref().and_then(Connection::request)
    }

    /// Returns the connection to its driver, after `end` has decided what becomes of it.
    fn return_connection(&mut self, end: impl FnOnce(&mut Connection)) {
        if fork::is_child() {
            // This is a copy in a forked child: it must not send, record or deregister anything.
            std::mem::forget(self.connection.take());
            return;
        }
        if let Some(mut connection) = self.connection.take() {
            if catch("the worker class's kit", || end(&mut connection)).is_err() {
                connection.abort();
            }
            self.driver.release(connection);
        }
    }
}

impl Drop for ExchangeHandle {
    fn drop(&mut self) {
        self.return_connection(|connection| {
            connection.fail(&Failure::application(
                "the application dropped the exchange without a response",
            ));
        });
    }
}

impl RawExchange for ExchangeHandle {
    fn head(&self) -> &RequestHead<'_> {
        self.request().map_or(&NO_HEAD, ActiveRequest::head)
    }

    fn poll_read(&mut self, mut buf: RSliceMut<'_, u8>, waker: ROption<Waker>) -> Step {
        self.step(|active, io, driver| {
            active.poll_read(io, buf.as_mut_slice(), waker.into_option(), driver)
        })
    }

    fn start(
        &mut self,
        status: u16,
        reason: RStr<'_>,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        self.with(|active, io, driver| {
            active.start(io, status, reason.as_str(), headers.as_slice())?;
            if active.is_upgraded() {
                // `request_timeout` limits requests, and this connection carries another protocol now.
                driver.deadline_extended(io.stream.fd(), active.deadline);
            }
            Ok(())
        })
        .into()
    }

    fn poll_write(&mut self, bytes: RSlice<'_, u8>, waker: ROption<Waker>) -> Step {
        self.step(|active, io, driver| {
            active.poll_write(io, bytes.as_slice(), waker.into_option(), driver)
        })
    }

    fn poll_send_file(&mut self, fd: i32, offset: u64, len: u64, waker: ROption<Waker>) -> Step {
        self.step(|active, io, driver| {
            active.poll_send_file(io, fd, offset, len, waker.into_option(), driver)
        })
    }

    fn informational(
        &mut self,
        status: u16,
        headers: RSlice<'_, Header<'_>>,
    ) -> RResult<(), Failure> {
        self.with(|active, io, _| active.informational(io, status, headers.as_slice())).into()
    }

    fn trailers(&mut self, headers: RSlice<'_, Header<'_>>) -> RResult<(), Failure> {
        self.with(|active, _, _| active.trailers(headers.as_slice())).into()
    }

    fn finish(&mut self) -> RResult<(), Failure> {
        let finished = self.with(|active, io, _| active.finish(io));
        if let Ok(then) = finished {
            self.return_connection(|connection| connection.end_request(then));
        }
        finished.map(drop).into()
    }

    fn fail(&mut self, failure: Failure) {
        self.return_connection(|connection| connection.fail(&failure));
    }

    fn hijack(&mut self) -> RResult<Hijacked, Failure> {
        let hijacked = self.with(|active, io, _| active.hijack(io));
        if hijacked.is_ok() {
            self.return_connection(|connection| connection.end_request(Then::Detach));
        }
        hijacked.into()
    }

    fn descriptor(&self) -> i32 {
        self.connection.as_deref().map_or(-1, Connection::fd)
    }

    fn deadline_ns(&self) -> u64 {
        self.request().map_or(0, |active| active.deadline.to_abi())
    }

    fn extend_deadline(&mut self, by_ns: u64) {
        let _ = self.with(|active, io, driver| {
            active.extend_deadline(by_ns);
            driver.deadline_extended(io.stream.fd(), active.deadline);
            Ok(())
        });
    }

    fn on_disconnect(&mut self, waker: Waker) {
        let _ = self.with(|_, io, driver| {
            driver.on_disconnect(io.stream.as_fd(), waker);
            Ok(())
        });
    }

    fn wait(&mut self, interest: Interest) -> RResult<(), Failure> {
        self.with(|active, io, driver| active.wait(io, interest, driver)).into()
    }

    fn is_proxied(&self) -> bool {
        self.connection.as_deref().is_some_and(|connection| connection.io.ends().local.proxied)
    }
}

/// Why a child that the application forked cannot use an exchange.
const NOT_THE_PARENT: &str =
    "the exchange belongs to the parent process: this process was forked during the request";

/// What [`RawExchange::head`] returns after the end of the exchange.
static NO_HEAD: RequestHead<'static> = RequestHead {
    method: RStr::from_str(""),
    target: RSlice::EMPTY,
    path: RSlice::EMPTY,
    query: RSlice::EMPTY,
    authority: RStr::from_str(""),
    version: Version::HTTP_11,
    trusted_peer: false,
    chunked: false,
    content_length: ROption::RSome(0),
    scheme: RStr::from_str("http"),
    headers: RSlice::EMPTY,
    peer: Address { host: RStr::from_str(""), port: 0 },
    local: Address { host: RStr::from_str(""), port: 0 },
    tls: ROption::RNone,
    received_ns: 0,
    id: 0,
};
