//! The TLS session of a connection. It does no I/O but with the non-blocking socket that it is given.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::FromRawFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use worker_api::abi::std_types::{ROption, RResult, RSlice, RSliceMut, RVec};
use worker_api::guard::catch;
use worker_api::raw::{RawTlsSession, TlsError, TlsProperties};

/// Shared by the thread that serves the connection, and the one that responds on its behalf if it hangs.
pub(crate) struct Session(Mutex<State>);

struct State {
    tls: ServerConnection,
    /// Whether the client's first byte has been checked.
    first_checked: bool,
}

impl Session {
    /// Creates the session of a connection whose first bytes may have been read already.
    pub(crate) fn new(config: &Arc<ServerConfig>, already_read: &[u8]) -> Result<Self, TlsError> {
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(refused)?;
        let mut rest = already_read;
        if let Some(first) = already_read.first() {
            check_first(*first)?;
        }
        while !rest.is_empty() {
            tls.read_tls(&mut rest).map_err(of_socket)?;
            tls.process_new_packets().map_err(refused)?;
        }
        Ok(Self(Mutex::new(State { tls, first_checked: !already_read.is_empty() })))
    }

    fn read(&self, mut socket: &TcpStream, buffer: &mut [u8]) -> Result<usize, TlsError> {
        let mut state = self.lock();
        let State { tls, first_checked } = &mut *state;
        loop {
            match tls.reader().read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(of_socket(error));
                }
                Err(_) => {}
            }
            // An alert or a part of the handshake may have to be sent before more data arrives.
            let sent = flush(tls, socket);
            if !*first_checked {
                let mut first = [0];
                socket.peek(&mut first).map_err(of_socket)?;
                check_first(first[0])?;
                *first_checked = true;
            }
            let received = tls.read_tls(&mut socket).map_err(of_socket)?;
            let processed = tls.process_new_packets();
            if tls.wants_write() {
                // The server's part of the handshake, or the alert that explains its failure.
                flush(tls, socket).or_else(ignore_would_block).map_err(of_socket)?;
            }
            processed.map_err(refused)?;
            if received == 0 {
                return Ok(0);
            }
            sent.or_else(ignore_would_block).map_err(of_socket)?;
        }
    }

    fn write(&self, socket: &TcpStream, parts: &[RSlice<'_, u8>]) -> io::Result<usize> {
        let tls = &mut self.lock().tls;
        flush(tls, socket).or_else(ignore_would_block)?;
        // Of several parts rustls makes one record.
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part.as_slice());
        }
        let taken = tls.writer().write_vectored(&slices[..parts.len().min(PARTS_MAX)])?;
        flush(tls, socket).or_else(ignore_would_block)?;
        if taken == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    fn seal(&self, last: &[u8]) -> Option<Vec<u8>> {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        state.tls.writer().write_all(last).ok()?;
        state.tls.send_close_notify();
        let mut sealed = Vec::new();
        while state.tls.wants_write() {
            state.tls.write_tls(&mut sealed).ok()?;
        }
        Some(sealed)
    }

    fn properties(&self) -> TlsProperties {
        let tls = &self.lock().tls;
        let protocol = match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        TlsProperties {
            protocol: protocol.into(),
            cipher: cipher.unwrap_or_default().into(),
            server_name: tls.server_name().unwrap_or_default().into(),
            client_certificate: certificate.map(|der| der.to_vec().into()).unwrap_or_default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawTlsSession for Session {
    fn read(&self, socket: i32, mut buffer: RSliceMut<'_, u8>) -> RResult<usize, TlsError> {
        guarded(|| Self::read(self, &borrowed(socket), buffer.as_mut_slice()))
    }

    fn write(&self, socket: i32, parts: RSlice<'_, RSlice<'_, u8>>) -> RResult<usize, TlsError> {
        guarded(|| Self::write(self, &borrowed(socket), parts.as_slice()).map_err(of_socket))
    }

    fn flush_some(&self, socket: i32) -> RResult<usize, TlsError> {
        guarded(|| self.lock().tls.write_tls(&mut &*borrowed(socket)).map_err(of_socket))
    }

    fn send_close_notify(&self, socket: i32) -> RResult<(), TlsError> {
        guarded(|| {
            let tls = &mut self.lock().tls;
            tls.send_close_notify();
            flush(tls, &borrowed(socket)).map_err(of_socket)
        })
    }

    fn seal(&self, last: RSlice<'_, u8>) -> ROption<RVec<u8>> {
        let sealed = catch("TLS", || Self::seal(self, last.as_slice())).unwrap_or_default();
        sealed.map(RVec::from).into()
    }

    fn wants_write(&self) -> bool {
        self.lock().tls.wants_write()
    }

    fn properties(&self) -> TlsProperties {
        catch("TLS", || Self::properties(self)).unwrap_or_default()
    }
}

/// Runs an operation; a panic is a failure of the session.
pub(crate) fn guarded<T>(operation: impl FnOnce() -> Result<T, TlsError>) -> RResult<T, TlsError> {
    let result = catch("TLS", operation);
    result.unwrap_or_else(|failure| Err(TlsError::Refused(failure.message))).into()
}

/// Borrows the caller's socket for a call.
fn borrowed(socket: i32) -> ManuallyDrop<TcpStream> {
    // SAFETY: the caller's descriptor is open during the call, and this value does not close it. No memory depends on what
    // it is a descriptor of.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(socket) })
}

/// Sends all unsent bytes; `WouldBlock` if some are left.
fn flush(tls: &mut ServerConnection, mut socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(())
}

/// The first byte of a TLS record is a small number, that of a request a letter.
fn check_first(byte: u8) -> Result<(), TlsError> {
    if byte.is_ascii_alphabetic() { Err(TlsError::PlainHttp) } else { Ok(()) }
}

#[allow(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
fn refused(error: rustls::Error) -> TlsError {
    TlsError::Refused(error.to_string().into())
}

#[allow(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
fn of_socket(error: io::Error) -> TlsError {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => TlsError::System(number),
        (None, io::ErrorKind::WouldBlock) => TlsError::System(libc::EAGAIN),
        (None, io::ErrorKind::WriteZero | io::ErrorKind::BrokenPipe) => {
            TlsError::System(libc::EPIPE)
        }
        (None, _) => TlsError::Refused(error.to_string().into()),
    }
}

fn ignore_would_block(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}

/// More parts are left to the next call.
const PARTS_MAX: usize = 8;
